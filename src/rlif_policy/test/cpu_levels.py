# SPDX-License-Identifier: Apache-2.0
"""Tests at each level of the processor: `@pytest.mark.parametrize("name", PARAMETERS)` and `enter(name)`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rlif_policy.processor import LEVELS, VARIABLE, processor, why_missing

NAMES = tuple(level.name for level in LEVELS)
_HIGHEST = processor().level.name  # of this run: RLIF_CPU_LEVEL may have lowered it
# For parametrize and fixtures. Those below this run's own each cost a compilation of their own.
PARAMETERS = [
    pytest.param(name, marks=[] if name == _HIGHEST else [pytest.mark.slow]) for name in NAMES
]


@contextmanager
def enter(name: str) -> Iterator[str]:
    """With RLIF_CPU_LEVEL set to `name`. Skips the test, with the reason, where it cannot be tried."""
    if NAMES.index(name) > NAMES.index(_HIGHEST):
        here = processor(_HIGHEST)
        if name in (level.name for level in here.levels):
            pytest.skip(f"level {name}, above {VARIABLE}={_HIGHEST}, as which these tests run")
        pytest.skip(f"level {name}, {why_missing(name, here.flags, platform.machine())}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, name)
        yield name
