# SPDX-License-Identifier: Apache-2.0
"""What the tests of the whole suite share: the generator of docs/reference.md, and launch files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """docs/make_reference.py, which reads the nodes' parameters and endpoints out of the code."""
    path = ROOT / "docs" / "make_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
