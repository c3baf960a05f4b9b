# SPDX-License-Identifier: Apache-2.0
"""When confidences end an episode, and what counts as a disagreement with the operator."""

from __future__ import annotations

import pytest
from rlif_node.states import Outcome, Phase

from rlif_policy.success import Disagreement, SuccessWatch


def running(ticks: int = 2, number: int = 1, start: int = 10) -> SuccessWatch:
    watch = SuccessWatch(ticks)
    assert watch.episode(number, Phase.RUNNING, start, Outcome.RUNNING) is None
    return watch


def test_watch_fires_once_an_episode_after_ticks_in_a_row() -> None:
    watch = running(ticks=2)
    seen = [(11, 0.9), (12, 0.1), (13, 0.8), (14, 0.8), (15, 0.9), (16, 0.9)]
    fired = [watch.observe(stamp, value, 0.5, False) for stamp, value in seen]
    assert fired == [False, False, False, True, False, False]
    watch.episode(2, Phase.RUNNING, 20, Outcome.RUNNING)
    assert [watch.observe(s, 0.9, 0.5, False) for s in (21, 22)] == [False, True]


def test_watch_counts_neither_old_observations_nor_those_outside_an_episode() -> None:
    watch = SuccessWatch(1)
    assert not watch.observe(5, 0.9, 0.5, False)
    watch.episode(1, Phase.RUNNING, 10, Outcome.RUNNING)
    assert not watch.observe(9, 0.9, 0.5, False), "of before the episode"
    assert not watch.observe(11, 0.9, 0.5, True), "switched off in a take-over"
    assert watch.observe(12, 0.9, 0.5, False)


@pytest.mark.parametrize(
    ("confidences", "outcome", "expected"),
    [
        ([0.1, 0.2], Outcome.SUCCESS, (False, True)),  # the button, and it saw nothing
        ([0.9, 0.9], Outcome.SUCCESS, None),  # its own
        ([0.1, 0.9], Outcome.FAILURE, (True, False)),  # it was about to
        ([0.1, 0.1], Outcome.FAILURE, None),
        ([0.1, 0.1], Outcome.TRUNCATED, None),
        ([0.9, 0.9], Outcome.DISCARDED, None),
        ([], Outcome.SUCCESS, None),  # no detector, or no observation
    ],
)
def test_watch_end_of_episode_disagreement(
    confidences: list[float], outcome: Outcome, expected: tuple[bool, bool] | None
) -> None:
    watch = running(ticks=2, number=7)
    for tick, value in enumerate(confidences):
        watch.observe(11 + tick, value, 0.5, False)
    found = watch.episode(7, Phase.ENDED, 30, outcome)
    if expected is None:
        assert found is None
    else:
        last = 10 + len(confidences)
        assert found == Disagreement(7, last, *expected, confidences[-1])


def test_watch_failure_button_after_its_own_success_is_one_disagreement() -> None:
    watch = running(ticks=1, number=3)
    assert watch.failure_pressed() is None, "in the episode the button ends it"
    watch.observe(11, 0.9, 0.5, False)
    watch.episode(3, Phase.ENDED, 11, Outcome.SUCCESS)
    assert watch.failure_pressed() == Disagreement(3, 11, True, False, 0.9)
    assert watch.failure_pressed() is None, "once"
    watch.episode(4, Phase.RUNNING, 20, Outcome.RUNNING)
    watch.episode(4, Phase.ENDED, 30, Outcome.TRUNCATED)
    assert watch.failure_pressed() is None


def test_watch_failure_button_after_the_next_episode_is_ready_means_the_one_before() -> None:
    watch = running(ticks=1, number=3)
    watch.observe(11, 0.9, 0.5, False)
    watch.episode(3, Phase.ENDED, 11, Outcome.SUCCESS)
    watch.episode(4, Phase.READY, 12, Outcome.RUNNING)
    found = watch.failure_pressed()
    assert found is not None and found.episode_id == 3


def test_watch_an_observation_that_was_not_judged_breaks_the_row() -> None:
    watch = running(ticks=2)
    assert not watch.observe(11, 0.9, 0.5, False)
    watch.interrupt()
    assert [watch.observe(s, 0.9, 0.5, False) for s in (13, 14)] == [False, True]
