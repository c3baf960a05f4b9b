# SPDX-License-Identifier: Apache-2.0
"""Where `ee_pose` comes from: the topic, or tf.

    ee_pose: {tf: [base, tool0]}    # in robot.yaml: the pose of tool0 in base

Each node that needs the pose listens to tf itself; tf2_ros is imported only then. A pose has the stamp of
its transform and is handed over once, so that an arm whose transforms stop has an old pose, as with a
topic.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time

from rlif_node.parameters import Param
from rlif_node.stamps import to_ns

TF = Param(
    "ee_pose.tf",
    [],
    "base frame and frame of the end effector: ee_pose comes from tf; empty: from the topic",
    items=str,
)
PERIOD = 0.01  # s between two looks at tf
REMIND = 5.0  # s between two warnings


class PoseFromTf:
    """Calls `receive` with each new pose of `frames[1]` in `frames[0]`. problem: why there is none now.

    period: s between two looks at tf
    """

    def __init__(
        self,
        node: Node,
        frames: Sequence[str],
        receive: Callable[[PoseStamped], None],
        period: float = PERIOD,
    ) -> None:
        tf2_ros = _tf2_ros()
        self._node, self._receive = node, receive
        self._base, self._tool = frames
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._error: Any = tf2_ros.TransformException
        self._last = 0
        self._warned = time.monotonic()  # others start too
        self.problem = ""
        node.create_timer(period, self.poll, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def poll(self) -> None:
        """Hand over the newest transform, if it is another than the last one."""
        try:
            found = self._buffer.lookup_transform(self._base, self._tool, Time())
        except self._error as error:
            self._complain(f"no transform from {self._base} to {self._tool}: {error}")
            return
        self.problem = ""
        stamp = to_ns(found.header.stamp)
        if stamp == self._last:
            return
        self._last = stamp
        pose = PoseStamped(header=found.header)
        moved, p = found.transform.translation, pose.pose.position
        p.x, p.y, p.z = moved.x, moved.y, moved.z
        pose.pose.orientation = found.transform.rotation
        self._receive(pose)

    def _complain(self, problem: str) -> None:
        self.problem = problem
        now = time.monotonic()
        if now - self._warned >= REMIND:
            self._warned = now
            self._node.get_logger().warning(f"ee_pose: {problem}")


def _tf2_ros() -> Any:
    """ValueError, saying how to install it, where it is not."""
    try:
        return importlib.import_module("tf2_ros")
    except ImportError as error:
        raise ValueError(
            f"ee_pose.tf needs the Python package tf2_ros, which is not installed ({error}): install it with "
            "`sudo apt install ros-$ROS_DISTRO-tf2-ros-py`, or publish a PoseStamped and leave ee_pose.tf out"
        ) from error


def subscribe_pose(
    node: Node, frames: Sequence[str], receive: Callable[[PoseStamped], None], qos: QoSProfile
) -> PoseFromTf | None:
    """Call `receive` with each pose of the end effector; None: of the topic `ee_pose`.

    frames: of the parameter `ee_pose.tf`

    ValueError for any other number of frames than 0 and 2, and where tf2_ros is not installed.
    """
    if not frames:
        node.create_subscription(PoseStamped, "ee_pose", receive, qos)
        return None
    if len(frames) != 2 or not all(frames):
        raise ValueError(
            f"ee_pose.tf: found {list(frames)}, expected two frames, the base and the end effector's"
        )
    return PoseFromTf(node, frames, receive)
