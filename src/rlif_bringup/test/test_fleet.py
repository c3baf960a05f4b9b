# SPDX-License-Identifier: Apache-2.0
"""A demo of several robots: each one's share, and their records and displays as one."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from episode_records import record
from hypothesis import given
from hypothesis import strategies as st

from rlif_bringup import demo, fleet
from rlif_bringup.progress import Progress, Snapshot
from rlif_bringup.summary import EpisodeRecord, trials


def arguments_of(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(options)


@given(st.integers(0, 10_000), st.integers(1, 16))
def test_share_of_all_robots_is_the_total_and_less_than_one_each_more(
    total: int, robots: int
) -> None:
    assert 0 <= fleet.share(total, robots) * robots - total < robots


def test_robot_arguments_have_a_share_of_each_count_and_another_seed() -> None:
    arguments = arguments_of("--robots", "4", "--steps", "8000", "--eval-every", "1000")
    own = [fleet.robot_arguments(arguments, number) for number in range(4)]
    assert {(a.steps, a.demonstrations, a.eval_every, a.eval_episodes, a.trials) for a in own} == {
        (2000, 3, 250, 13, 5)
    }
    assert len({a.seed for a in own}) == 4
    names = [[phase.name for phase in demo.phases_of(a)] for a in own]
    assert names.count(names[0]) == 4, "they wait for each other after each phase"


def test_values_put_each_robot_into_a_namespace_and_the_learner_beside_them() -> None:
    common = {"seed": 3, "images": False, "run_directory": Path("run"), "prior_episodes": 10,
              "robot": "sim_vision", "lock_step": False}  # fmt: skip
    robot = fleet.robot_values(common, Path("run"), "arm_2")
    assert (robot["namespace"], robot["clock"]) == ("arm_2", "/arm_2/clock")
    assert (robot["learner"], robot["bag_directory"]) == (False, Path("run/arm_2/bag"))
    assert robot["lock_step"] is False and robot["run_directory"] == ""
    learner = fleet.learner_values(common, fleet.robot_names(2), 5)
    assert learner == {"robot": "sim_vision", "robots": "[arm_1, arm_2]", "pace": True, "seed": 3,
                       "prior_episodes": 5, "run_directory": Path("run")}  # fmt: skip


def test_merged_records_count_the_steps_of_all_robots() -> None:
    # Of `record`: episode n ends at n s, after 10 n steps.
    records = {
        "arm_1": [record("training", n, 0, True) for n in (1, 3, 5)],
        "arm_2": [record("training", n, 0, True) for n in (2, 4)],
    }
    merged = fleet.merge(records)
    assert [r.robot for r in merged] == ["arm_1", "arm_2", "arm_1", "arm_2", "arm_1"]
    assert [r.env_steps for r in merged] == [10, 30, 50, 70, 90]


def test_a_record_that_comes_after_a_later_one_of_another_robot_is_reported_itself() -> None:
    """Regression: the later one was reported twice."""
    reported: list[EpisodeRecord] = []
    robots = fleet.Fleet(
        {}, arguments_of("--robots", "2"), Path(), Progress(""), demo.phases_of, reported.append
    )
    robots._on_record("arm_1", record("training", 3, 0, True))
    robots._on_record("arm_2", record("training", 2, 0, True))
    assert [(r.robot, r.id) for r in reported] == [("arm_1", 3), ("arm_2", 2)]


def test_merged_trials_are_one_after_the_steps_of_all_robots() -> None:
    records = {name: [record("trial at 250", 1, 0, name == "arm_1")] for name in ("arm_1", "arm_2")}
    (trial,) = trials(fleet.merge(records))
    assert (trial.env_steps, trial.successes, trial.episodes) == (500, 1, 2)


def test_combined_display_has_sums_and_means() -> None:
    one = Snapshot("training", 2, 4, 7, "POLICY", 0.5, None, 1.0, 100, 500, 50.0, 90, 9.0, 40.0)
    two = Snapshot(
        "training", 2, 4, 9, "OPERATOR", 0.3, 2.0, 0.5, 90, 500, 50.0, 90, 9.0, 45.0, note="x"
    )
    both = fleet.combine([one, two])
    assert (both.env_steps, both.env_steps_goal, both.control_source) == (
        190,
        1000,
        "POLICY, OPERATOR",
    )
    assert (both.operator_share, both.interventions, both.success) == (0.4, 2.0, 0.75)
    assert both.note == "x" and both.line()


@pytest.mark.parametrize(
    "options", [["--real-time"], ["--operator", "me"], ["--film", "2"], ["--robots", "0"]]
)
def test_demo_of_several_robots_refuses_what_is_for_one(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = arguments_of("--robots", "2", "--run-directory", str(tmp_path), *options)
    assert demo.run(arguments) == 2
    assert "--robots" in capsys.readouterr().err and not list(tmp_path.iterdir())
