# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it goes."""

from __future__ import annotations

import dataclasses

import pytest

from rlif_bringup.progress import Snapshot, clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00"), (61.4, "1:01"), (3725.0, "62:05"), (None, "–")]
)
def test_clock_of_seconds_is(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_line_of_a_snapshot_has_what_is_known_and_dashes_for_the_rest() -> None:
    snapshot = Snapshot(
        phase="training", phase_number=2, phases=4, episode=7, control_source="policy",
        operator_share=0.25, interventions=None, success=None, env_steps=120, env_steps_goal=8000,
        critic_steps_per_s=41.6, updates=10, elapsed=65.0, left=None,
    )  # fmt: skip
    line = snapshot.line()
    assert "training: episode 7, 120 of 8,000 steps" in line and "operator 25 %" in line
    assert "42 gradient steps/s" in line
    assert ("phase", "training  (2 of 4)") in snapshot.rows()
    judged = dataclasses.replace(snapshot, env_steps_goal=0, episodes=3, episodes_goal=50)
    assert "3 of 50 episodes" in judged.line() and ("done", "3 of 50 episodes") in judged.rows()
    assert "Take over (" in dataclasses.replace(judged, task="Take over").line()
