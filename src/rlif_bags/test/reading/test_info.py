# SPDX-License-Identifier: Apache-2.0
"""What `rlif bag info` counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from step_bags import make_episodes, write_bag

from rlif_bags.drawing.show import view_of
from rlif_bags.reading.info import describe_bag, missing_in


def test_describe_bag_counts_episodes_and_missing_steps(tmp_path: Path) -> None:
    steps = make_episodes(3)
    lines = "\n".join(describe_bag(write_bag(tmp_path / "bag", steps[:7] + steps[8:])))
    assert "3 episodes (3 success), 17 steps" in lines and "1 missing" in lines
    assert "10.0 Hz" in lines and "3 interventions" in lines


def test_missing_in_tick_without_step_is_missing() -> None:
    """The recorder could not make it: its number in the episode is left out, none in sequence."""
    steps = [replace(s, step_index=s.step_index + (s.step_index > 2)) for s in make_episodes(1)]
    assert view_of(steps).missing == 1
    assert missing_in([*steps, *make_episodes(2)[len(steps) :]]) == 1
