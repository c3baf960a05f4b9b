# SPDX-License-Identifier: Apache-2.0
"""Stamps as whole nanoseconds, and the clock that ages are measured with."""

from __future__ import annotations

import time
from collections.abc import Callable

from builtin_interfaces.msg import Time
from rclpy.node import Node


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp."""
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def to_msg(ns: int) -> Time:
    """The stamp of nanoseconds."""
    sec, nanosec = divmod(ns, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def clock_of(node: Node) -> Callable[[], float]:
    """Seconds for ages and time-outs: ROS time in simulation, else a steady clock."""
    if node.get_parameter("use_sim_time").value:
        clock = node.get_clock()
        return lambda: float(clock.now().nanoseconds * 1e-9)
    return time.monotonic
