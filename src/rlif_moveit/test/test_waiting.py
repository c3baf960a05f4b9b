# SPDX-License-Identifier: Apache-2.0
"""Waiting for a future without blocking."""

from __future__ import annotations

import pytest
from rclpy.task import Future

from rlif_moveit.waiting import within

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("answered", "seconds"), [(True, 60.0), (False, 0.02)])
def test_within_of_a_future_returns_whether_it_was_done_in_time(bench, answered, seconds):
    future = Future(executor=bench.executor)
    task = bench.executor.create_task(within(bench.node, future, seconds))
    bench.executor.spin_once(timeout_sec=0.05)
    if answered:
        future.set_result(None)
    bench.until(task.done, "the coroutine")
    assert task.result() is answered
