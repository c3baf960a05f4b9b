# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from episode_records import run_of
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rlif_bringup.plot import Curves, draw
from rlif_bringup.summary import EpisodeRecord


@pytest.mark.parametrize("records", [run_of(40), run_of(1, 0), []])
def test_draw_of_any_run_writes_a_png(records: list[EpisodeRecord], tmp_path: Path) -> None:
    draw(records, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_curves_that_were_written_are_read_back(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(100, training__success=0.25, nothing=None)
    curves.close()
    (path,) = tmp_path.iterdir()
    events = [e for e in EventFileLoader(str(path)).Load() if e.step == 100]
    assert [value.tag for value in events[0].summary.value] == ["training/success"]
