# SPDX-License-Identifier: Apache-2.0
"""The arbiter's commands as ROS messages: one class for each value of the parameter `output`.

    twist             geometry_msgs/TwistStamped on `command`: MoveIt Servo, or the simulated arm
    joint_velocity    std_msgs/Float64MultiArray on `joint_command`: forward_command_controller
    joint_trajectory  trajectory_msgs/JointTrajectory: joint_trajectory_controller

What each consumer lacks is made good here. A forward_command_controller repeats its last command for
ever: it gets explicit zeros without an active source and when this process ends, and the watchdog sends
them when it cannot. A joint_trajectory_controller holds the last point it was given: it gets short
trajectories, each of which ends at rest by itself, and nothing while the arm stands, so that
planners may use the same controller between episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rlif_node.qos import RELIABLE_1
from rlif_node.stamps import to_msg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from .joint_limits import JointLimitConfig, TrajectoryPoint, stopping_trajectory
from .limits import LINEAR, LimitConfig, Vector

_ROTATIONS = {"roll": "x", "pitch": "y", "yaw": "z"}


class Output(Protocol):
    """What the node needs of an output."""

    publisher: Publisher

    def send(self, values: Vector, reference: Vector, stamp: int) -> None:
        """values: (n,) m/s and rad/s; reference: as in `limits.Limited`; stamp: ns."""

    def stop(self, stamp: int) -> None:
        """The last command: no motion."""


def twist_message(axes: Sequence[str], twist: Vector, frame: str, stamp: int) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp = to_msg(stamp)
    message.header.frame_id = frame
    linear, angular = message.twist.linear, message.twist.angular
    for axis, value in zip(axes, twist, strict=True):
        if axis in LINEAR:
            setattr(linear, axis, value)
        else:
            setattr(angular, _ROTATIONS[axis], value)
    return message


def trajectory_message(
    joints: Sequence[str], points: Sequence[TrajectoryPoint], stamp: int
) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(joints))
    message.header.stamp = to_msg(stamp)
    for point in points:
        message.points.append(
            JointTrajectoryPoint(
                positions=list(point.positions),
                velocities=list(point.velocities),
                time_from_start=Duration(seconds=point.time).to_msg(),
            )
        )
    return message


def zeros_unless_finite(values: Vector) -> Vector:
    """The last gate. The limits let nothing else through; a mistake in them must not reach a motor."""
    return values if all(map(math.isfinite, values)) else (0.0,) * len(values)


class TwistOutput:
    """Each command freshly stamped; Servo stops by itself when they stop coming."""

    def __init__(self, node: Node, axes: tuple[str, ...], frame: str) -> None:
        self._axes, self._frame = axes, frame
        self.publisher = node.create_publisher(TwistStamped, "command", RELIABLE_1)

    def send(self, values: Vector, reference: Vector, stamp: int) -> None:
        twist = zeros_unless_finite(values)
        self.publisher.publish(twist_message(self._axes, twist, self._frame, stamp))

    def stop(self, stamp: int) -> None:
        self.send((0.0,) * len(self._axes), (), stamp)


class JointVelocityOutput:
    """One velocity for each joint, in the order of `axes`, zeros included."""

    def __init__(self, node: Node, joints: tuple[str, ...]) -> None:
        self._size = len(joints)
        self.publisher = node.create_publisher(Float64MultiArray, "joint_command", RELIABLE_1)

    def send(self, values: Vector, reference: Vector, stamp: int) -> None:
        self.publisher.publish(Float64MultiArray(data=list(zeros_unless_finite(values))))

    def stop(self, stamp: int) -> None:
        self.send((0.0,) * self._size, (), stamp)


class JointTrajectoryOutput:
    """A trajectory with each command that moves, and one that ends the motion; then silence."""

    def __init__(self, node: Node, config: JointLimitConfig) -> None:
        self._config = config
        self._moving = False
        self.publisher = node.create_publisher(JointTrajectory, "joint_trajectory", RELIABLE_1)

    def send(self, values: Vector, reference: Vector, stamp: int) -> None:
        moving = any(values)
        finite = all(map(math.isfinite, (*values, *reference)))
        if (moving or self._moving) and reference and finite:
            points = stopping_trajectory(reference, values, self._config)
            self.publisher.publish(trajectory_message(self._config.axes, points, stamp))
        self._moving = moving

    def stop(self, stamp: int) -> None:
        """Sends nothing: the trajectory that is under way comes to rest within the limits."""


def make_output(
    node: Node, kind: str, limits: LimitConfig | JointLimitConfig, frame: str
) -> Output:
    """The one that the parameter `output` names."""
    if not isinstance(limits, JointLimitConfig):
        return TwistOutput(node, limits.axes, frame)
    if kind == "joint_trajectory":
        return JointTrajectoryOutput(node, limits)
    return JointVelocityOutput(node, limits.axes)
