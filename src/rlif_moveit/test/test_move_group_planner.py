# SPDX-License-Identifier: Apache-2.0
"""The planner through move_group, against a stand-in of its action."""

from __future__ import annotations

import pytest
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from rlif_moveit.move_group_planner import MoveGroupPlanner
from rlif_moveit.planning import PlanConfig, planning_interfaces
from rlif_moveit.reset_goals import JointGoal, NamedGoal, PoseGoal

pytestmark = pytest.mark.ros

CONFIG = PlanConfig(group="arm", velocity_scale=0.2, acceleration_scale=0.1, motion_timeout=1.0)
JOINTS = JointGoal(joints=("a", "b"), positions=(0.1, -0.2), tolerance=0.01)
POSE = PoseGoal(
    link="tool0", frame="base", position=(0.5, 0.1, 0.3), orientation=(1.0, 0.0, 0.0, 0.0)
)
SRDF = """<robot name="r"><group_state name="ready" group="arm"><joint name="a" value="0.5"/>
</group_state></robot>"""


@pytest.fixture
def go(bench):
    """Run a planner's coroutine on the executor; returns the Outcome."""

    def run(planner, goal, meanwhile=lambda: None):
        task = bench.executor.create_task(planner.go(goal))
        bench.executor.spin_once(timeout_sec=0.05)
        meanwhile()
        bench.until(task.done, "the planner")
        return task.result()

    return run


@pytest.fixture
def planner_with(bench, planning_types):
    def make(client, **config):
        settings = PlanConfig(**({"group": "arm", "motion_timeout": 0.3} | config))
        return MoveGroupPlanner(bench.node, settings, planning_types, client=client)

    return make


def test_planner_reports_success_failure_and_refusal(bench, go, planner_with, stand_in_move_group):
    assert go(planner_with(stand_in_move_group(1)), JOINTS).problem == ""
    failed = go(planner_with(stand_in_move_group(-12)), POSE)
    assert "GOAL_IN_COLLISION" in failed.problem and failed.still
    refused = go(planner_with(stand_in_move_group(accepted=False)), JOINTS)
    assert "refused" in refused.problem and refused.still


def test_planner_without_a_result_cancels_and_is_not_still(
    bench, go, planner_with, stand_in_move_group
):
    client = stand_in_move_group(None)
    client.cancel_goal_async = lambda: setattr(client, "cancels", client.cancels + 1)
    outcome = go(planner_with(client), JOINTS)
    assert "no result" in outcome.problem and not outcome.still
    assert client.cancels == 1


def test_planner_cancelled_ends_the_motion(bench, go, planner_with, stand_in_move_group):
    client = stand_in_move_group(None)
    planner = planner_with(client, motion_timeout=10.0)
    outcome = go(planner, JOINTS, meanwhile=planner.cancel)
    assert "PREEMPTED" in outcome.problem and client.cancels == 1


def test_planner_cancelled_before_the_goal_is_sent_sends_none(
    bench, go, planner_with, stand_in_move_group
):
    """While move_group is asked for its SRDF: the arm must not begin to move after all."""
    node = bench.add(Node("move_group"))
    node.declare_parameter("robot_description_semantic", SRDF)
    client = stand_in_move_group()
    planner = planner_with(client)
    bench.until(planner._parameters.services_are_ready, "move_group's parameters")
    outcome = go(planner, NamedGoal("ready"), meanwhile=planner.cancel)
    assert "cancelled" in outcome.problem and outcome.still and client.goals == []


def test_planner_without_move_group_says_to_start_it(bench, planner_with, stand_in_move_group):
    client = stand_in_move_group()
    client.ready = False
    assert "start move_group" in planner_with(client).problem()


def test_planner_with_a_named_goal_looks_it_up_in_the_srdf(
    bench, go, planner_with, stand_in_move_group
):
    node = bench.add(Node("move_group"))
    node.declare_parameter("robot_description_semantic", SRDF)
    client = stand_in_move_group()
    planner = planner_with(client)
    bench.until(planner._parameters.services_are_ready, "move_group's parameters")
    assert go(planner, NamedGoal("ready")).problem == ""
    (constraints,) = client.goals[0].request.goal_constraints
    assert constraints.joint_constraints[0].position == 0.5
    assert "its states are: ready" in go(planner, NamedGoal("home")).problem


def test_planner_without_an_srdf_names_the_parameter_to_check(
    bench, go, planner_with, stand_in_move_group
):
    outcome = go(planner_with(stand_in_move_group()), NamedGoal("ready"))
    assert "move_group_name" in outcome.problem


def test_planner_with_the_real_action_reaches_the_goal(bench, go):
    action = pytest.importorskip("moveit_msgs.action").MoveGroup
    node = bench.add(Node("stand_in_move_group"))
    seen = []

    def execute(handle):
        seen.append(handle.request)
        result = action.Result()
        failing = handle.request.request.group_name == "stuck"
        result.error_code.val = -1 if failing else 1
        (handle.abort if failing else handle.succeed)()
        return result

    server = ActionServer(
        node, action, "move_action", execute, callback_group=ReentrantCallbackGroup(),
        cancel_callback=lambda _: CancelResponse.ACCEPT,
    )  # fmt: skip
    try:
        planner = MoveGroupPlanner(bench.node, CONFIG, planning_interfaces())
        bench.until(lambda: not planner.problem(), "the action server")
        assert go(planner, POSE).problem == ""
        assert seen[0].request.goal_constraints[0].position_constraints[0].link_name == "tool0"
        stuck = MoveGroupPlanner(bench.node, PlanConfig(group="stuck"), planning_interfaces())
        bench.until(lambda: not stuck.problem(), "the action server")
        assert "PLANNING_FAILED" in go(stuck, JOINTS).problem
    finally:
        server.destroy()
