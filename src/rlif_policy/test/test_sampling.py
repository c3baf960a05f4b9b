# SPDX-License-Identifier: Apache-2.0
"""Newest samples and their ages; ticks of lock-step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_policy.sampling import LatestSamples, Ticks

SECOND = 1_000_000_000
LIMIT = SECOND // 5


def make(*names, steady=True):
    return LatestSamples(dict.fromkeys(names, LIMIT), steady)


def test_samples_with_a_missing_source_name_it():
    samples = make("ee_pose", "wrench")
    samples.put("ee_pose", 1, 10 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND, 0)
    assert (problem.source, problem.age) == ("wrench", None)


def test_samples_with_a_stale_source_give_age_and_limit():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 10 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND + 3 * LIMIT, 0)
    assert problem.age == 3 * LIMIT
    assert "0.600 s old, expected at most 0.200 s" in problem.reason


def test_samples_of_several_messages_name_the_part_that_is_stale():
    samples = make("joint_states")
    samples.put("joint_states", 1, 10 * SECOND, 0, "joint finger")
    (problem,) = samples.problems(10 * SECOND + 3 * LIMIT, 0)
    assert problem.reason.startswith("joint finger: 0.600 s old")


def test_samples_never_received_are_those_without_any_message():
    samples = make("a", "b", "c")
    samples.put("a", 1, SECOND, 0)
    samples.refuse("b", "broken")
    assert samples.never_received == ("c",)


def test_samples_at_the_limit_are_good_and_beyond_it_are_not():
    samples = make("ee_pose", steady=False)
    samples.put("ee_pose", 1, SECOND, 0)
    assert not samples.problems(SECOND + LIMIT, 0)
    assert samples.problems(SECOND + LIMIT + 1, 0)


def test_samples_stamped_in_the_future_are_a_problem_of_clocks():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 20 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND, 0)
    assert "in the future" in problem.reason


def test_samples_under_a_clock_that_was_set_back_still_age():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 10 * SECOND, received=0)
    now_set_back = 10 * SECOND  # although 5 s have passed
    (problem,) = samples.problems(now_set_back, 5 * SECOND)
    assert problem.age == 5 * SECOND


def test_samples_without_a_stamp_age_from_reception():
    samples = make("ee_pose", steady=False)
    samples.put("ee_pose", 1, 0, received=7 * SECOND)
    assert samples.age("ee_pose", 100 * SECOND, 8 * SECOND) == SECOND
    assert samples.oldest_stamp() == 0


def test_samples_refused_replace_the_last_good_one():
    samples = make("camera/wrist/image")
    samples.put("camera/wrist/image", 1, SECOND, 0)
    samples.refuse("camera/wrist/image", "640x480, expected 128x128")
    (problem,) = samples.problems(SECOND, 0)
    assert problem.reason == "640x480, expected 128x128"
    assert samples.absent() == [problem]
    samples.put("camera/wrist/image", 2, SECOND, 0)
    assert not samples.problems(SECOND, 0)


def test_samples_without_sources_or_age_raise():
    with pytest.raises(ValueError, match="sources: found none"):
        LatestSamples({})
    with pytest.raises(ValueError, match="max_age of wrench"):
        LatestSamples({"wrench": 0})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), max_size=40))
def test_ticks_in_lock_step_come_once_per_complete_set(arrivals):
    samples, ticks = make("a", "b", "c"), Ticks()
    newest, ticked = {}, []
    for source, stamp in arrivals:
        if stamp < newest.get(source, 0):
            continue  # DDS keeps the order of one topic
        newest[source] = stamp
        samples.put(source, source, stamp, 0)
        complete = len(newest) == 3 and len(set(newest.values())) == 1
        due = ticks.due(samples.common_stamp())
        assert due == (complete and (not ticked or ticked[-1] != stamp))
        if due:
            ticked.append(stamp)
    assert ticked == sorted(set(ticked))


def test_ticks_in_lock_step_go_on_when_the_simulation_restarts():
    ticks = Ticks()
    assert ticks.due(50) and not ticks.due(50)
    assert not ticks.due(None)
    assert ticks.due(1)


def test_ticks_never_repeat_a_number():
    ticks = Ticks()
    assert [ticks.advance() for _ in range(3)] == [1, 2, 3]
