# SPDX-License-Identifier: Apache-2.0
"""The profiles of topics: what a late subscriber gets, and what a sensor's subscription accepts."""

import pytest
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy
from rclpy.qos import qos_check_compatible as check

from rlif_node import qos

PUBLISHERS = [
    QoSProfile(depth=1, reliability=reliability, durability=durability)
    for reliability in (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
    for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
]


@pytest.mark.parametrize("publisher", PUBLISHERS)
@pytest.mark.parametrize("name", ["SENSOR", "SENSOR_100"])
def test_sensor_subscription_accepts_every_publisher(publisher, name):
    compatible, _ = check(publisher, getattr(qos, name))
    assert compatible != QoSCompatibility.ERROR  # a warning is of policies that nobody set


@pytest.mark.parametrize("name", ["LATCHED", "LATCHED_10", "REPLAY"])
def test_latched_profiles_are_reliable_and_kept_for_late_subscribers(name):
    profile = getattr(qos, name)
    assert profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert profile.reliability == ReliabilityPolicy.RELIABLE
