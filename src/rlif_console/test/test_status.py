# SPDX-License-Identifier: Apache-2.0
"""What a page is told of a graph."""

from __future__ import annotations

import json
import math

import pytest

from rlif_console.status import FORGET, AxisDirections, RobotStatus


def episode(id: int, outcome: int, evaluation: bool = False, driven: int = 5) -> dict:
    counts = {"max_steps": 60, "steps": 20, "interventions": 2, "operator_steps": driven}
    return {
        "id": id,
        "phase": 3,
        "outcome": outcome,
        "reason": "",
        "evaluation": evaluation,
        **counts,
    }


def test_snapshot_is_json_whatever_came():
    status = RobotStatus()
    status.on_control(4, "stop", "", 1.0)
    status.on_decision(2, 3, [math.nan, 1.0], "speed", 1.0)
    status.on_pose("ee_pose", [math.inf, 0.0, 0.1])
    json.dumps(status.snapshot(2.0), allow_nan=False)
    assert status.snapshot(2.0)["control"]["state"] == "FAULT"


def test_rates_leave_out_discarded_episodes_and_evaluations():
    status = RobotStatus()
    for id, found in enumerate([(1, False), (2, False), (4, False), (2, True)], 1):
        status.on_episode(episode(id, *found), float(id))
    status.on_decision(1, 0, [0.0], "", 5.0)
    status.on_episode(episode(5, 1, True, driven=0), 5.0)
    status.on_episode(episode(6, 1, True), 6.0)
    found = status.snapshot(9.0)
    assert found["success"] == 0.5 and found["interventions"] == 0.1
    assert found["evaluated"] == {"policy": (1.0, 1), "operator": (0.0, 1)}, "one was of both"
    assert found["outcomes"] == {"success": 3, "failure": 2, "truncated": 0}


def test_episode_reported_twice_counts_once():
    status = RobotStatus()
    status.on_episode(episode(1, 1), 1.0)
    status.on_episode(episode(1, 1), 2.0)
    assert len(status.take_new()) == 1


@pytest.mark.parametrize(
    ("sources", "label"), [([2], None), ([0, 2], None), ([1, 1, 2], 1), ([1, 0, 0, 2], 0)]
)
def test_take_over_is_shown_with_the_policy_step_that_its_label_falls_on(sources, label):
    status = RobotStatus()
    status.on_decision(1, 40, [0.0], "", 1.0)  # of the episode before
    for step, source in enumerate(sources):
        status.on_decision(source, step, [0.0], "", 1.0)
    status.on_take_over(1, len(sources) - 1, 1.0)
    assert status.take_new()[0]["label"] == label


def test_values_of_the_critic_do_not_displace_what_has_happened():
    status = RobotStatus()
    status.on_take_over(1, 0, 1.0)
    for n in range(5000):
        status.on_value(math.nan if n == 0 else -0.5, float(n))
    assert len(status.history) == 1 and len(status.values) == 3000
    assert [entry["value"] for entry in status.take_new()[1:3]] == [-0.5, -0.5]


def test_problem_has_advice_and_is_forgotten_when_it_is_over_or_silent():
    status = RobotStatus()
    status.on_diagnostic("arbiter: device joy", 2, "silent", 1.0)
    assert "driver" in status.snapshot(1.0)["problems"][0]["advice"]
    assert not status.snapshot(1.1 + FORGET)["problems"]
    status.on_diagnostic("arbiter: device joy", 2, "silent", 9.0)
    status.on_diagnostic("arbiter: device joy", 0, "fresh", 9.0)
    assert not status.snapshot(9.0)["problems"]


def test_history_is_bounded_and_new_entries_are_given_once():
    status = RobotStatus()
    for n in range(3000):
        status.on_control(n % 2, "", "", float(n))
    assert len(status.take_new()) == 3000 and len(status.history) == 2000
    assert not status.take_new()


@pytest.mark.parametrize(
    ("pushed", "step", "verdict"), [(1.0, 0.02, "pass"), (-1.0, 0.02, "FAIL"), (0.1, 0.02, "warn")]
)
def test_axis_directions_compare_push_and_motion(pushed, step, verdict):
    directions = AxisDirections()
    for n in range(3):
        directions.update(["x", "y"], [pushed, 0.0], [n * step, 0.0, 0.0])
    assert [f["verdict"] for f in directions.findings()] == [verdict, "warn", "warn"]
