# SPDX-License-Identifier: Apache-2.0
"""The planner through moveit_py, with a stand-in worker."""

from __future__ import annotations

import sys

import pytest

from rlif_moveit.moveit_py_planner import MoveItPyPlanner
from rlif_moveit.planning import PlanConfig
from rlif_moveit.reset_goals import NamedGoal

pytestmark = pytest.mark.ros

CONFIG = PlanConfig(group="arm", motion_timeout=60.0)
CHILD = """
import json, sys
print(json.dumps({"ready": ""}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if "go" not in m:
        print(json.dumps({"problem": "cancelled"}), flush=True)
    elif m["go"]["name"] == "die":
        sys.exit(7)
    elif m["go"]["name"] != "hang":
        print(json.dumps({"problem": "" if m["go"]["name"] == "ready" else "no plan"}), flush=True)
"""


@pytest.fixture
def planner(bench):
    made = MoveItPyPlanner(bench.node, CONFIG, [sys.executable, "-c", CHILD])
    bench.until(lambda: not made.problem(), "the worker")
    yield made
    made.close()


def go(bench, planner, name):
    task = bench.executor.create_task(planner.go(NamedGoal(name)))
    bench.executor.spin_once(timeout_sec=0.05)
    return task


def test_planner_waiting_for_its_worker_blocks_no_timer(bench, planner):
    ticks = []
    timer = bench.node.create_timer(0.01, lambda: ticks.append(1))
    task = go(bench, planner, "hang")
    bench.until(lambda: len(ticks) > 20, "the node's timers")
    assert not task.done()
    planner.cancel()
    bench.until(task.done, "the answer")
    assert task.result().problem == "cancelled"
    timer.cancel()


def test_planner_returns_the_problem_of_its_worker(bench, planner):
    for name, problem in (("ready", ""), ("other", "no plan")):
        task = go(bench, planner, name)
        bench.until(task.done, "the answer")
        assert task.result().problem == problem


def test_planner_whose_worker_dies_says_so_and_is_not_still(bench, planner):
    task = go(bench, planner, "die")
    bench.until(task.done, "the end of the worker")
    assert "status 7" in task.result().problem and not task.result().still
    assert "start this node again" in planner.problem()
