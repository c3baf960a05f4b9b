# SPDX-License-Identifier: Apache-2.0
"""A reset's goal as move_group's messages, and its error codes as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .interfaces import require
from .reset_goals import JointGoal, PoseGoal

SUCCESS = 1
# moveit_msgs/MoveItErrorCodes, with what a person can do about it.
ERRORS: Mapping[int, str] = {
    99999: "FAILURE",
    -1: "PLANNING_FAILED: no way to the goal was found",
    -2: "INVALID_MOTION_PLAN",
    -3: "MOTION_PLAN_INVALIDATED_BY_ENVIRONMENT_CHANGE: something came into the way",
    -4: "CONTROL_FAILED: is the trajectory controller active, and Servo's not?",
    -5: "UNABLE_TO_AQUIRE_SENSOR_DATA",
    -6: "TIMED_OUT: no plan within planning_time: the goal is in collision or out of reach, or more is needed",
    -7: "PREEMPTED: it was cancelled",
    -10: "START_STATE_IN_COLLISION: move the arm free by hand",
    -11: "START_STATE_VIOLATES_PATH_CONSTRAINTS",
    -12: "GOAL_IN_COLLISION: look at the goal in the planning scene",
    -13: "GOAL_VIOLATES_PATH_CONSTRAINTS",
    -14: "GOAL_CONSTRAINTS_VIOLATED: the goal is out of reach, or in collision",
    -15: "INVALID_GROUP_NAME: check planning_group",
    -16: "INVALID_GOAL_CONSTRAINTS: check the names of joints and links",
    -17: "INVALID_ROBOT_STATE",
    -18: "INVALID_LINK_NAME: check goal_link",
    -21: "FRAME_TRANSFORM_FAILURE: check goal_frame",
    -23: "ROBOT_STATE_STALE: does move_group receive joint_states?",
    -26: "START_STATE_INVALID: a joint is beyond its limits",
    -27: "GOAL_STATE_INVALID",
    -31: "NO_IK_SOLUTION: the goal is out of reach",
}


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """group: of the SRDF; pipeline, planner: ids, empty: move_group's default

    planning_time: s; velocity_scale, acceleration_scale: of the joint limits, in (0, 1]
    motion_timeout: s until a motion without a result is given up, and a human asked
    """

    group: str
    planning_time: float = 5.0
    velocity_scale: float = 0.1
    acceleration_scale: float = 0.1
    pipeline: str = ""
    planner: str = ""
    motion_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not self.group:
            raise ValueError("planning_group is empty; expected a group of the SRDF")
        for name in ("velocity_scale", "acceleration_scale"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:  # move_group takes 0 for full speed
                raise ValueError(f"{name} is {value}; expected above 0, up to 1")
        for name in ("planning_time", "motion_timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; expected seconds above 0")


@dataclass(frozen=True)
class PlanningInterfaces:
    """action: MoveGroup; msg: a module or object with the messages of moveit_msgs and shape_msgs"""

    action: Any
    joint_constraint: Any
    position_constraint: Any
    orientation_constraint: Any
    constraints: Any
    solid_primitive: Any
    pose: Any


def planning_interfaces(
    needed_for: str = "the node reset_by_planning with planner move_group",
) -> PlanningInterfaces:
    """The real ones. Raises MissingInterfacesError."""
    messages = require("moveit_msgs", "msg", needed_for)
    return PlanningInterfaces(
        action=require("moveit_msgs", "action", needed_for).MoveGroup,
        joint_constraint=messages.JointConstraint,
        position_constraint=messages.PositionConstraint,
        orientation_constraint=messages.OrientationConstraint,
        constraints=messages.Constraints,
        solid_primitive=require("shape_msgs", "msg", needed_for).SolidPrimitive,
        pose=require("geometry_msgs", "msg", needed_for).Pose,
    )


def move_group_goal(goal: JointGoal | PoseGoal, c: PlanConfig, types: PlanningInterfaces) -> Any:
    """The action's goal: plan from where the arm is, collision-aware, and execute."""
    message = types.action.Goal()
    request = message.request
    request.group_name = c.group
    request.pipeline_id, request.planner_id = c.pipeline, c.planner
    request.num_planning_attempts = 1
    request.allowed_planning_time = c.planning_time
    request.max_velocity_scaling_factor = c.velocity_scale
    request.max_acceleration_scaling_factor = c.acceleration_scale
    request.start_state.is_diff = True  # empty: the state that move_group sees
    request.goal_constraints = [constraints(goal, types)]
    options = message.planning_options
    options.plan_only = False
    options.planning_scene_diff.is_diff = True
    options.planning_scene_diff.robot_state.is_diff = True
    return message


def constraints(goal: JointGoal | PoseGoal, types: PlanningInterfaces) -> Any:
    """The goal as a moveit_msgs/Constraints, with its tolerances."""
    if isinstance(goal, JointGoal):
        return joint_constraints(goal, types)
    return pose_constraints(goal, types)


def joint_constraints(goal: JointGoal, types: PlanningInterfaces) -> Any:
    """A constraint for each joint; the others are free."""
    found = types.constraints()
    for joint, position in zip(goal.joints, goal.positions, strict=True):
        one = types.joint_constraint()
        one.joint_name, one.position, one.weight = joint, position, 1.0
        one.tolerance_above = one.tolerance_below = goal.tolerance
        found.joint_constraints.append(one)
    return found


def pose_constraints(goal: PoseGoal, types: PlanningInterfaces) -> Any:
    """The link's origin in a ball around the position, and its orientation."""
    ball = types.solid_primitive()
    ball.type = types.solid_primitive.SPHERE
    ball.dimensions = [goal.position_tolerance]
    centre = types.pose()
    p = centre.position
    p.x, p.y, p.z = goal.position
    centre.orientation.w = 1.0
    where = types.position_constraint()
    where.header.frame_id, where.link_name, where.weight = goal.frame, goal.link, 1.0
    where.constraint_region.primitives.append(ball)
    where.constraint_region.primitive_poses.append(centre)
    turned = types.orientation_constraint()
    turned.header.frame_id, turned.link_name, turned.weight = goal.frame, goal.link, 1.0
    q = turned.orientation
    q.x, q.y, q.z, q.w = goal.orientation
    turned.absolute_x_axis_tolerance = goal.angle_tolerance
    turned.absolute_y_axis_tolerance = goal.angle_tolerance
    turned.absolute_z_axis_tolerance = goal.angle_tolerance
    found = types.constraints()
    found.position_constraints.append(where)
    found.orientation_constraints.append(turned)
    return found


def error_words(code: int) -> str:
    """Empty for success."""
    return "" if code == SUCCESS else ERRORS.get(code, f"MoveIt's error code {code}")
