# SPDX-License-Identifier: Apache-2.0
"""The heartbeat of the arbiter."""

from __future__ import annotations

import pytest

from rlif_moveit.heartbeat import Heartbeat


def test_heartbeat_is_missing_before_the_first_and_after_the_time_out():
    heartbeat = Heartbeat(0.5)
    assert not heartbeat.ever and "start it" in heartbeat.problem(0.0)
    heartbeat.received(1.0)
    assert heartbeat.ever and heartbeat.problem(1.5) == ""
    assert "more than 0.5 s" in heartbeat.problem(1.51)


def test_heartbeat_of_several_arbiters_is_that_of_the_oldest_until_it_is_gone():
    heartbeat = Heartbeat(0.5)
    heartbeat.received(1.0, b"young")
    heartbeat.received(1.1, b"old")
    heartbeat.received(1.6, b"young")
    assert heartbeat.problem(1.61), "the oldest has gone silent"
    heartbeat.received(1.7, b"young")
    assert heartbeat.problem(1.8) == ""


def test_heartbeat_tells_the_first_of_a_younger_arbiter_whose_state_counts():
    heartbeat = Heartbeat(0.5)
    assert not heartbeat.received(1.0, b"1"), "nobody was there before"
    assert not heartbeat.received(2.0, b"1"), "it was only late"
    assert not heartbeat.received(2.1, b"2"), "the older one acts"
    assert heartbeat.received(3.0, b"2") and not heartbeat.received(3.1, b"2")
    assert not heartbeat.received(4.0, b"1"), "an older one that was frozen may be armed since ever"


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_heartbeat_with_a_bad_time_out_is_refused_by_name(timeout):
    with pytest.raises(ValueError, match="arbiter_timeout"):
        Heartbeat(timeout)
