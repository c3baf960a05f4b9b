# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: on conditions, with deadlines that one factor stretches on slow machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
FACTOR = "RLIF_TEST_TIMEOUT_FACTOR"


def scaled(seconds: float) -> float:
    """A deadline in seconds, times the factor of the environment (default 1).

    Only for how long a test waits for what must happen; never for a time that is measured.
    """
    text = os.environ.get(FACTOR, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < float("inf"):
        raise pytest.UsageError(f"{FACTOR}: found {text!r}, expected a number above 0, such as 3")
    return seconds * factor


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    deadline: float = 20.0,
    step: Callable[[], object] = lambda: time.sleep(0.01),
) -> T:
    """The condition's first true value; `step` runs between two looks.

    Fails after `deadline` scaled seconds and names `what` was waited for. The time is looked at
    before the condition, so that a process that was stopped in between still looks once more.
    """
    end = time.monotonic() + scaled(deadline)
    while True:
        late = time.monotonic() > end
        found = condition()
        if found:
            return found
        if late:
            pytest.fail(
                f"waited {scaled(deadline):g} s in vain for {what if isinstance(what, str) else what()}"
            )
        step()
