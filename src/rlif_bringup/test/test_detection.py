# SPDX-License-Identifier: Apache-2.0
"""A demo whose episodes a detector ends: its phases, and how the detector is judged."""

from __future__ import annotations

import argparse
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from episode_records import record

from rlif_bringup import demo
from rlif_bringup.detection import Truth, detector_problem, detector_trainings, judge_detector
from rlif_msgs.msg import Episode, TaskSuccess


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_intermixed_args(list(given))


def test_phases_stop_where_the_detector_is_trained() -> None:
    given = arguments("--detector", "--detector-steps", "1500", "--steps", "4000", "--eval-every", "2000")  # fmt: skip
    names = [(p.name, p.env_steps) for p in demo.phases_of(given)]
    assert names[2:7] == [
        ("training", 1500), ("training", 2000), ("trial at 2000", 0), ("training", 3000), ("training", 4000),
    ]  # fmt: skip
    assert list(detector_trainings(given)) == [1500, 3000]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ""),
        (("--detector",), ""),
        (("--detector", "--real-time"), "found --real-time"),
        (("--detector", "--operator", "me"), "found --real-time, --operator me or --robots"),
        (("--detector", "--steps", "2000"), "expected 1 to 1999"),
    ],
)
def test_detector_problem(given: tuple[str, ...], expected: str) -> None:
    found = detector_problem(arguments(*given))
    assert expected in found and bool(found) == bool(expected)


def test_judge_detector_by_the_truth() -> None:
    def ended(success: bool, by: str | None):
        return replace(record("policy", 1, 0, success), ended_by=by)

    records = [ended(True, "detector")] * 6 + [ended(False, "detector")] * 2
    records += [ended(True, "other"), ended(False, "other"), ended(True, None)]
    found = judge_detector(records)
    assert (found["precision"], found["recall"]) == (0.75, 6 / 7)
    assert (found["episodes"], found["false_successes"], found["false_success_rate"]) == (
        10,
        2,
        0.2,
    )
    nothing = judge_detector([ended(True, None)])
    assert nothing["precision"] is None and nothing["recall"] is None


def test_detector_lines_of_a_run_without_one_are_none() -> None:
    assert demo.detector_lines({}) == []
    (line,) = demo.detector_lines({"detector": {"evaluation": judge_detector([])}})
    assert "0 false successes in 0 episodes" in line


def test_truth_counts_only_successes_within_the_episode() -> None:
    callbacks: list[Any] = []
    node = SimpleNamespace(create_subscription=lambda *given: callbacks.append(given[2]))
    truth = Truth(SimpleNamespace(node=node))  # type: ignore[arg-type]
    on_success, on_episode = callbacks

    def stage(number: int, phase: int, second: int) -> Episode:
        message = Episode(id=number, phase=phase)
        message.header.stamp.sec = second
        on_episode(message)
        return message

    def succeed(second: int) -> None:
        message = TaskSuccess()
        message.header.stamp.sec = second
        on_success(message)

    stage(1, Episode.RUNNING, 1)
    first = stage(1, Episode.ENDED, 5)
    succeed(6)  # the arm went on for a moment
    stage(2, Episode.RUNNING, 7)
    succeed(9)
    second = stage(2, Episode.ENDED, 9)
    assert (truth.succeeded(first), truth.succeeded(second)) == (False, True)
