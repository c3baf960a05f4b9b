"""Newest samples and their ages; ticks of lock-step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_policy.sampling import LatestSamples, Ticks

SECOND = 1_000_000_000
LIMIT = SECOND // 5


def make(*names, steady=True):
    return LatestSamples(dict.fromkeys(names, LIMIT), steady)


def test_a_missing_source_is_named():
    samples = make("ee_pose", "wrench")
    samples.put("ee_pose", 1, 10 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND, 0)
    assert (problem.source, problem.age) == ("wrench", None)


def test_a_stale_source_is_named_with_its_age_and_the_limit():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 10 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND + 3 * LIMIT, 0)
    assert problem.age == 3 * LIMIT
    assert "0.600 s old, expected at most 0.200 s" in problem.reason


def test_an_age_at_the_limit_is_good_and_beyond_it_is_not():
    samples = make("ee_pose", steady=False)
    samples.put("ee_pose", 1, SECOND, 0)
    assert not samples.problems(SECOND + LIMIT, 0)
    assert samples.problems(SECOND + LIMIT + 1, 0)


def test_a_stamp_far_in_the_future_is_a_clock_problem_not_a_fresh_sample():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 20 * SECOND, 0)
    (problem,) = samples.problems(10 * SECOND, 0)
    assert "in the future" in problem.reason


def test_a_ros_clock_that_was_set_back_does_not_keep_a_dead_source_alive():
    samples = make("ee_pose")
    samples.put("ee_pose", 1, 10 * SECOND, received=0)
    now_set_back = 10 * SECOND  # although 5 s have passed
    (problem,) = samples.problems(now_set_back, 5 * SECOND)
    assert problem.age == 5 * SECOND


def test_without_a_stamp_the_time_of_reception_counts():
    samples = make("ee_pose", steady=False)
    samples.put("ee_pose", 1, 0, received=7 * SECOND)
    assert samples.age("ee_pose", 100 * SECOND, 8 * SECOND) == SECOND
    assert samples.oldest_stamp() == 0


def test_what_was_refused_replaces_the_last_good_sample():
    samples = make("camera/wrist/image")
    samples.put("camera/wrist/image", 1, SECOND, 0)
    samples.refuse("camera/wrist/image", "640x480, expected 128x128")
    (problem,) = samples.problems(SECOND, 0)
    assert problem.reason == "640x480, expected 128x128"
    assert samples.absent() == [problem]
    samples.put("camera/wrist/image", 2, SECOND, 0)
    assert not samples.problems(SECOND, 0)


def test_no_sources_and_no_age_are_refused():
    with pytest.raises(ValueError, match="sources: found none"):
        LatestSamples({})
    with pytest.raises(ValueError, match="max_age of wrench"):
        LatestSamples({"wrench": 0})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), max_size=40))
def test_lock_step_ticks_only_on_complete_sets_and_once_each(arrivals):
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


def test_lock_step_goes_on_when_the_simulation_starts_anew():
    ticks = Ticks()
    assert ticks.due(50) and not ticks.due(50)
    assert not ticks.due(None)
    assert ticks.due(1)


def test_ticks_never_repeat():
    ticks = Ticks()
    assert [ticks.advance() for _ in range(3)] == [1, 2, 3]
