# SPDX-License-Identifier: Apache-2.0
"""Waiting for a future in a coroutine of rclpy, with a deadline and without blocking."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future


async def within(node: Node, future: Future, seconds: float) -> bool:
    """True as soon as `future` is done, False after `seconds` of steady time."""
    turn: Future = Future(executor=node.executor)

    def wake(_: object = None) -> None:
        if not turn.done():
            turn.set_result(None)

    timer = node.create_timer(seconds, wake, clock=Clock(clock_type=ClockType.STEADY_TIME))
    future.add_done_callback(wake)
    try:
        await turn
    finally:
        node.destroy_timer(timer)
    return bool(future.done())
