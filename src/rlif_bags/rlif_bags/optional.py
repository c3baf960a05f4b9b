# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some formats and options need, imported when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from rlif_bags.reading.files import BagError

_GROUP = "pip install --group export` in the clone, or `pip install "
# Module: how to install what it is in.
_INSTALL = {
    "pyarrow": _GROUP + '"pyarrow"',
    "av": _GROUP + '"av"',
    "minari": _GROUP + '"minari[hdf5]"',
    "h5py": _GROUP + '"minari[hdf5]"',
    "gymnasium": _GROUP + '"minari[hdf5]"',
    "ray": "pip install 'ray==2.60.0'",
    "rerun": "pip install 'rerun-sdk==0.41.0'",
}


def optional(module: str) -> ModuleType:
    """BagError names how to install a library that is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise BagError(f"found no {name} here ({error}): `{_INSTALL[name]}`") from error
