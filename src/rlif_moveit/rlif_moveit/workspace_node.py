# SPDX-License-Identifier: Apache-2.0
"""Node `show_workspace`: the arbiter's workspace box in RViz, and its walls in the planning scene.

Publishes
    workspace_marker  visualization_msgs/Marker  the box, as lines in base_frame (latched)
Calls
    apply_planning_scene  moveit_msgs/srv/ApplyPlanningScene  of move_group, with `walls`; again
                          whenever move_group was away

For display only: the arbiter keeps the box. Give this node the robot configuration's robot.yaml too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import Point, Pose
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED
from rlif_node.running import run
from visualization_msgs.msg import Marker

from .interfaces import require
from .workspace import Plate, WorkspaceBox

LOOK = 1.0  # s between two looks at whether move_group has the walls
PARAMETERS = (
    Param("workspace_min", [], "m; as the arbiter's"),
    Param("workspace_max", [], "m; as the arbiter's"),
    Param("base_frame", "base", "frame of the box"),
    Param("walls", [], "faces that planners keep out of: left right front back top bottom", items=str),
    Param("wall_margin", 0.02, "m outside of the box; what the gripper needs beyond its origin", 0.0, 1.0),
    Param("wall_thickness", 0.01, "m", 0.001, 0.5),
    Param("line_width", 0.004, "m, of the lines in RViz", 0.0005, 0.1),
)  # fmt: skip


@dataclass(frozen=True)
class SceneInterfaces:
    """Types of moveit_msgs and shape_msgs."""

    apply_scene: Any
    planning_scene: Any
    collision_object: Any
    solid_primitive: Any


def scene_interfaces() -> SceneInterfaces:
    """The real ones. Raises MissingInterfacesError."""
    needed_for = "the node show_workspace with walls"
    messages = require("moveit_msgs", "msg", needed_for)
    return SceneInterfaces(
        apply_scene=require("moveit_msgs", "srv", needed_for).ApplyPlanningScene,
        planning_scene=messages.PlanningScene,
        collision_object=messages.CollisionObject,
        solid_primitive=require("shape_msgs", "msg", needed_for).SolidPrimitive,
    )


def box_marker(box: WorkspaceBox, frame: str, width: float) -> Marker:
    """The edges as a line list."""
    marker = Marker(ns="rlif_workspace", id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    marker.header.frame_id = frame
    marker.frame_locked = True  # moves with the base in RViz
    marker.pose.orientation.w = 1.0
    marker.scale.x = width
    marker.color.r, marker.color.g, marker.color.b, marker.color.a = 0.1, 0.8, 0.3, 1.0
    marker.points = [Point(x=x, y=y, z=z) for edge in box.edges() for x, y, z in edge]
    return marker


def walls_scene(plates: Sequence[Plate], frame: str, types: SceneInterfaces) -> Any:
    """A change of the planning scene that puts the plates into it, in place of earlier ones."""
    scene = types.planning_scene()
    scene.is_diff = scene.robot_state.is_diff = True
    for plate in plates:
        thing = types.collision_object()
        thing.header.frame_id, thing.id = frame, plate.name
        thing.operation = types.collision_object.ADD
        primitive = types.solid_primitive()
        primitive.type = types.solid_primitive.BOX
        primitive.dimensions = list(plate.size)
        pose = Pose()
        pose.position.x, pose.position.y, pose.position.z = plate.centre
        pose.orientation.w = 1.0
        thing.pose.orientation.w = 1.0
        thing.primitives.append(primitive)
        thing.primitive_poses.append(pose)
        scene.world.collision_objects.append(thing)
    return scene


class WorkspaceNode(Node):
    """Says where the box is. interfaces: stand-ins, for tests."""

    def __init__(
        self, overrides: Sequence[Parameter] = (), interfaces: SceneInterfaces | None = None
    ) -> None:
        super().__init__("show_workspace", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        box = WorkspaceBox(tuple(p["workspace_min"]), tuple(p["workspace_max"]))
        self._marker = self.create_publisher(Marker, "workspace_marker", LATCHED)
        marker = box_marker(box, p["base_frame"], p["line_width"])
        marker.header.stamp = self.get_clock().now().to_msg()
        self._marker.publish(marker)
        plates = box.walls(tuple(p["walls"]), p["wall_margin"], p["wall_thickness"])
        if plates:
            types = interfaces or scene_interfaces()
            self._request = types.apply_scene.Request()
            self._request.scene = walls_scene(plates, p["base_frame"], types)
            self._apply = self.create_client(types.apply_scene, "apply_planning_scene")
            self._applied = False
            self._call: Future | None = None
            self.create_timer(LOOK, self._keep, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _keep(self) -> None:
        """Apply once for each start of move_group."""
        if not self._apply.service_is_ready():
            self._applied, self._call = False, None
        elif not self._applied and self._call is None:
            self._call = self._apply.call_async(self._request)
            self._call.add_done_callback(self._on_applied)

    def _on_applied(self, call: Future) -> None:
        self._call = None
        error = call.exception()
        self._applied = error is None and call.result().success
        if self._applied:
            self.get_logger().info("the walls of the workspace are in the planning scene")
        else:
            self.get_logger().error(
                f"move_group did not take the walls: {error or 'refused without a reason'}"
            )


def main() -> int:
    """Console script `show_workspace`."""
    return run("show_workspace", WorkspaceNode, shared_memory=False)
