# SPDX-License-Identifier: Apache-2.0
"""What libraries say while a node runs is in its log, and nowhere else afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest

from rlif_node import logs


class Said:
    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda words: self.lines.append((level, words))


def test_logs_shown_passes_levels_and_warnings_to_the_node(monkeypatch):
    said = Said()
    monkeypatch.setattr(logs, "get_logger", lambda name: said)
    library = logging.getLogger("rlif_some_library")
    with warnings.catch_warnings(), logs.logs_shown("learner", "rlif_some_library"):
        warnings.simplefilter("always")
        library.debug("too fine")
        library.info("compiling")
        library.error("broken")
        warnings.warn("slow", stacklevel=1)
    library.error("after the end")
    assert said.lines[:2] == [("info", "compiling"), ("error", "broken")]
    assert said.lines[2][0] == "warning"
    assert "slow" in said.lines[2][1]
    assert len(said.lines) == 3


def test_logs_shown_after_a_failure_removes_its_handlers():
    before = logging.getLogger("rlif_some_library").level
    with pytest.raises(RuntimeError), logs.logs_shown("learner", "rlif_some_library"):
        raise RuntimeError
    library = logging.getLogger("rlif_some_library")
    assert (library.level, library.handlers) == (before, [])
