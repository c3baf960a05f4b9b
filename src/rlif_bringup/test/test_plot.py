# SPDX-License-Identifier: Apache-2.0
"""The picture of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from episode_records import run_of

from rlif_bringup.plot import draw
from rlif_bringup.summary import EpisodeRecord


@pytest.mark.parametrize("records", [run_of(40), run_of(1, 0), []])
def test_draw_of_any_run_writes_a_png(records: list[EpisodeRecord], tmp_path: Path) -> None:
    draw(records, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
