# SPDX-License-Identifier: Apache-2.0
"""`rlif status`: one screen of what a live system does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from waiting import scaled

from rlif_bringup import cli
from rlif_bringup.status_command import Seen, rows
from rlif_msgs.msg import ControlState, Episode, LearnerStatus, RobotStatus

SEEN = Seen(
    seconds=2.0,
    control=ControlState(state=ControlState.OPERATOR, device="joy", reason="deadman pressed"),
    episode=Episode(
        id=12, phase=Episode.RUNNING, steps=34, max_steps=200, operator_steps=8, interventions=2
    ),
    learner=LearnerStatus(
        updates=1234, steps=1300, updates_per_step=0.95, lost_steps=1, policy_version=17
    ),
    counts={"observation": 20, "policy_action": 19, "decision": 20},
    ages=[0.02, 0.04],
    problems={"observer: camera wrist": "frozen"},
    bag="runs/1/bag",
    free=83_100_000_000,
)


def test_rows_of_a_running_graph_show_all_that_is_known() -> None:
    assert rows(SEEN) == [
        ("control", "OPERATOR by joy: deadman pressed"),
        ("episode", "12 running: 34 of 200 steps, 8 by the operator, 2 interventions"),
        ("rates", "observation 10.0 Hz, policy_action 9.5 Hz, decision 10.0 Hz"),
        ("age", "observation to action 30 ms, at most 40 ms"),
        ("learner", "1,234 updates for 1,300 steps (0.95 per step, behind), 1 lost, weights 17"),
        ("disk", "83.1 GB free, bag runs/1/bag"),
        ("problems", "observer: camera wrist: frozen"),
    ]


def test_rows_of_a_learner_of_several_robots_have_one_for_each() -> None:
    robots = [
        RobotStatus(
            robot="arm_1", steps=1200, lost_steps=1, episodes=30, intervention_rate=0.02,
            success_rate=0.75, age=0.1, latency=0.12, policy_version=7,
        ),
        RobotStatus(robot="arm_2", age=math.nan),
        RobotStatus(robot="arm_3", steps=5, age=math.nan, success_rate=math.nan, latency=math.nan),
        RobotStatus(robot="arm_4", lost_steps=3, age=0.2, success_rate=math.nan, latency=math.nan),
    ]  # fmt: skip
    found = dict(rows(replace(SEEN, learner=LearnerStatus(robots=robots))))
    assert found["arm_1"] == (
        "1,200 steps, 1 lost, the last 0.1 s ago after 120 ms; 30 episodes, 75% successful, "
        "0.020 interventions per step, weights 7"
    )
    assert found["arm_2"] == "no Step yet"
    assert found["arm_3"].startswith("5 steps, 0 lost, none since the learner started; 0 episodes")
    assert found["arm_4"].startswith("0 steps, 3 lost, the last 0.2 s ago; 0 episodes")


def test_rows_of_a_graph_in_simulated_time_give_no_age() -> None:
    """Regression: 1795909308626 ms, the difference of two clocks."""
    assert "another clock" in dict(rows(replace(SEEN, ages=[1.8e9])))["age"]


def test_rows_of_a_graph_that_is_not_complete_name_what_is_missing() -> None:
    found = dict(rows(Seen(seconds=2.0)))
    assert found["control"] == "no arbiter" and found["episode"] == "no episode node"
    assert found["learner"] == "no learner" and found["disk"] == "no recorder"
    assert found["rates"].startswith("observation 0.0 Hz") and found["problems"] == "none"


@pytest.mark.ros
def test_status_of_a_live_graph_has_one_line_for_each(
    start_graph: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    graph, client = start_graph(recorder=True)
    client.set_parameters("episode", auto_start=True, max_episodes=1)
    client.wait(lambda: client.finished, "an episode", scaled(20.0))
    within = ["--timeout", str(scaled(20.0)), "--domain-id", os.environ["ROS_DOMAIN_ID"]]
    assert cli.main(["status", "--seconds", "0.5", "--namespace", "none", *within]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "control   HOLD"
    assert lines[1].startswith("episode   1 ended as success: 10 steps")
    assert any(line.startswith("learner   11 updates for 11 steps") for line in lines)
    assert any(line.startswith("disk      no bag is written") for line in lines)


@pytest.mark.ros
def test_status_without_a_graph_says_to_start_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["status", "--namespace", "nobody", "--seconds", "0.1", "--timeout", "0.1"]) == 1
    )
    assert "rlif launch" in capsys.readouterr().err
