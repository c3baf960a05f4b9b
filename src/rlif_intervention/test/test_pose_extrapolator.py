# SPDX-License-Identifier: Apache-2.0
"""How far an arm may have moved since it was measured, and which measurements can be used."""

from __future__ import annotations

import math

import pytest

from rlif_intervention.limits import Drift
from rlif_intervention.pose_extrapolator import MeasuredPosition, PoseExtrapolator


def test_drift_of_a_measurement_is_the_range_of_the_commands_since():
    extrapolator = PoseExtrapolator(2, latency=0.1, timeout=0.3)
    assert extrapolator.drift(0.0, 0.0) == Drift((0.0, 0.0), (0.0, 0.0))
    extrapolator.sent((1.0, -1.0), 1.0)
    extrapolator.sent((2.0, 0.0), 1.2)
    drift = extrapolator.drift(1.3, 1.4)  # measured between 1.2 and 1.3
    assert drift.least == pytest.approx((0.2, 0.0)) and drift.most == pytest.approx((0.4, 0.0))
    drift = extrapolator.drift(1.25, 1.4)  # between 1.15 and 1.25
    assert drift.least == pytest.approx((0.3, -0.05)) and drift.most == pytest.approx((0.45, 0.0))
    extrapolator.sent((-1.0, 0.0), 1.4)  # the farthest is reached in between
    assert extrapolator.drift(1.45, 1.45).most == pytest.approx((0.05, 0.0))
    assert extrapolator.drift(1.45, 1.45).least == pytest.approx((-0.05, 0.0))


def test_measured_position_is_used_for_its_timeout_and_needed_only_by_a_limit():
    assert MeasuredPosition("", "", 3, 0.0, 0.3).problem(0.0) is None
    position = MeasuredPosition("ee_pose", "there is a box", 2, 0.1, 0.3)
    assert position.problem(0.0) == "no ee_pose for more than 0.3 s: there is a box"
    position.put((1.0, 2.0), 10.0)
    position.sent((0.5, 0.0), 10.0)
    assert position.problem(10.29) is None and position.problem(10.31)
    where, drift = position.now(10.2)
    assert where == (1.0, 2.0) and drift.most == pytest.approx((0.1, 0.0))
    assert position.now(10.31)[0] is None


@pytest.mark.parametrize(
    ("value", "message"), [((math.nan, 0.0), "not finite"), ((0.0,), "has 1 entries")]
)
def test_measured_position_that_is_bad_is_refused_for_the_timeout(value, message):
    position = MeasuredPosition("ee_pose", "there is a box", 2, 0.1, 0.3)
    position.put(value, 10.0)
    position.put((0.0, 0.0), 10.1)  # a good one in between is no help: two may be publishing
    assert message in position.problem(10.29) and position.problem(10.31) is None
