"""Goals as move_group takes them; the planner against a stand-in of its action."""

from __future__ import annotations

import pytest
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from rlif_moveit.move_group_planner import MoveGroupPlanner
from rlif_moveit.planning import (
    ERRORS,
    PlanConfig,
    error_words,
    move_group_goal,
    planning_interfaces,
)
from rlif_moveit.reset_goals import JointGoal, NamedGoal, PoseGoal

pytestmark = pytest.mark.ros

CONFIG = PlanConfig(group="arm", velocity_scale=0.2, acceleration_scale=0.1, motion_timeout=1.0)
JOINTS = JointGoal(joints=("a", "b"), positions=(0.1, -0.2), tolerance=0.01)
POSE = PoseGoal(
    link="tool0", frame="base", position=(0.5, 0.1, 0.3), orientation=(1.0, 0.0, 0.0, 0.0)
)
SRDF = """<robot name="r"><group_state name="ready" group="arm"><joint name="a" value="0.5"/>
</group_state></robot>"""


def test_joints_become_a_constraint_each_and_the_arm_is_slow(planning_types):
    request = move_group_goal(JOINTS, CONFIG, planning_types).request
    (constraints,) = request.goal_constraints
    found = [(c.joint_name, c.position, c.tolerance_above) for c in constraints.joint_constraints]
    assert found == [("a", 0.1, 0.01), ("b", -0.2, 0.01)]
    assert request.group_name == "arm" and request.max_velocity_scaling_factor == 0.2
    assert request.allowed_planning_time == 5.0 and request.start_state.is_diff


def test_a_pose_becomes_a_ball_and_an_orientation_in_its_frame(planning_types):
    goal = move_group_goal(POSE, CONFIG, planning_types)
    (constraints,) = goal.request.goal_constraints
    (where,), (turned,) = constraints.position_constraints, constraints.orientation_constraints
    assert (where.header.frame_id, where.link_name) == ("base", "tool0")
    centre = where.constraint_region.primitive_poses[0].position
    assert (centre.x, centre.y, centre.z) == (0.5, 0.1, 0.3)
    assert list(where.constraint_region.primitives[0].dimensions) == [0.002]
    assert turned.orientation.x == 1.0 and turned.absolute_z_axis_tolerance == 0.01
    assert goal.planning_options.plan_only is False


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"group": ""}, "planning_group"),
        ({"group": "arm", "velocity_scale": 0.0}, "velocity_scale"),
        ({"group": "arm", "acceleration_scale": 1.5}, "acceleration_scale"),
        ({"group": "arm", "planning_time": 0.0}, "planning_time"),
    ],
)
def test_a_bad_set_up_is_refused_by_name(values, word):
    # A scale of 0 would be full speed: move_group takes it for "not set".
    with pytest.raises(ValueError, match=word):
        PlanConfig(**values)


def test_errors_are_said_in_words():
    assert error_words(1) == ""
    assert "joint_states" in error_words(-23)
    assert "-99" in error_words(-99)


def test_the_error_codes_are_those_of_moveit_msgs():
    codes = pytest.importorskip("moveit_msgs.msg").MoveItErrorCodes
    for code, words in ERRORS.items():
        assert getattr(codes, words.split(":")[0]) == code


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


def test_success_has_no_problem_and_failure_is_in_words(
    bench, go, planner_with, stand_in_move_group
):
    assert go(planner_with(stand_in_move_group(1)), JOINTS).problem == ""
    failed = go(planner_with(stand_in_move_group(-12)), POSE)
    assert "GOAL_IN_COLLISION" in failed.problem and failed.still
    refused = go(planner_with(stand_in_move_group(accepted=False)), JOINTS)
    assert "refused" in refused.problem and refused.still


def test_a_motion_without_a_result_is_cancelled_and_may_not_be_still(
    bench, go, planner_with, stand_in_move_group
):
    client = stand_in_move_group(None)
    client.cancel_goal_async = lambda: setattr(client, "cancels", client.cancels + 1)
    outcome = go(planner_with(client), JOINTS)
    assert "no result" in outcome.problem and not outcome.still
    assert client.cancels == 1


def test_cancel_ends_the_motion(bench, go, planner_with, stand_in_move_group):
    client = stand_in_move_group(None)
    planner = planner_with(client, motion_timeout=10.0)
    outcome = go(planner, JOINTS, meanwhile=planner.cancel)
    assert "PREEMPTED" in outcome.problem and client.cancels == 1


def test_a_cancel_before_the_goal_is_sent_sends_none(bench, go, planner_with, stand_in_move_group):
    """While move_group is asked for its SRDF: the arm must not begin to move after all."""
    node = bench.add(Node("move_group"))
    node.declare_parameter("robot_description_semantic", SRDF)
    client = stand_in_move_group()
    planner = planner_with(client)
    bench.until(planner._parameters.services_are_ready, "move_group's parameters")
    outcome = go(planner, NamedGoal("ready"), meanwhile=planner.cancel)
    assert "cancelled" in outcome.problem and outcome.still and client.goals == []


def test_a_move_group_that_is_not_there_is_said(bench, planner_with, stand_in_move_group):
    client = stand_in_move_group()
    client.ready = False
    assert "start move_group" in planner_with(client).problem()


def test_a_named_state_is_looked_up_in_move_groups_srdf(
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


def test_without_an_srdf_the_parameter_to_check_is_named(
    bench, go, planner_with, stand_in_move_group
):
    outcome = go(planner_with(stand_in_move_group()), NamedGoal("ready"))
    assert "move_group_name" in outcome.problem


def test_with_the_real_action(bench, go):
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
