# SPDX-License-Identifier: Apache-2.0
"""The box as a marker, and its walls in the planning scene."""

from __future__ import annotations

import importlib.util

import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.qos import LATCHED
from visualization_msgs.msg import Marker

from rlif_moveit import workspace_node
from rlif_moveit.interfaces import MissingInterfacesError
from rlif_moveit.workspace import WorkspaceBox
from rlif_moveit.workspace_node import WorkspaceNode, walls_scene

pytestmark = pytest.mark.ros

BOX = {"workspace_min": [0.3, -0.2, 0.0], "workspace_max": [0.7, 0.2, 0.5]}


def overrides(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


def test_marker_of_the_box_is_latched_and_has_twelve_lines_in_the_base_frame(bench):
    bench.add(WorkspaceNode(overrides(**BOX, base_frame="link0")))
    received = bench.listen(Marker, "workspace_marker", LATCHED)
    bench.until(lambda: received, "the marker")
    marker = received[0]
    assert marker.type == Marker.LINE_LIST and len(marker.points) == 24
    assert marker.header.frame_id == "link0" and marker.scale.x > 0.0 and marker.color.a == 1.0
    assert {round(p.z, 6) for p in marker.points} == {0.0, 0.5}


def test_workspace_node_without_a_box_is_refused_by_name(bench):
    with pytest.raises(ValueError, match="workspace_min"):
        WorkspaceNode([])


@pytest.mark.skipif(importlib.util.find_spec("moveit_msgs") is not None, reason="it is installed")
def test_walls_without_moveit_msgs_name_it(bench):
    with pytest.raises(MissingInterfacesError, match="moveit_msgs"):
        WorkspaceNode(overrides(**BOX, walls=["bottom"]))


def test_walls_are_applied_once_for_each_move_group(bench, scene_types, monkeypatch):
    monkeypatch.setattr(workspace_node, "LOOK", 0.05)
    types = scene_types
    scenes = []

    def answer(request, response):
        scenes.append(getattr(request, "scene", None) or node._request.scene)
        response.success = True
        return response

    def move_group():
        node = bench.add(Node("stand_in_move_group"))
        node.create_service(types.apply_scene, "apply_planning_scene", answer)
        return node

    first = move_group()
    node = bench.add(WorkspaceNode(overrides(**BOX, walls=["bottom", "back"]), scene_types))
    bench.until(lambda: node._applied, "the walls")
    objects = scenes[0].world.collision_objects
    assert [o.id for o in objects] == ["rlif_workspace_bottom", "rlif_workspace_back"]
    assert list(objects[0].primitives[0].dimensions) == pytest.approx([0.4, 0.4, 0.01])
    assert scenes[0].is_diff and len(scenes) == 1
    bench.remove(first)
    bench.until(lambda: not node._applied, "move_group gone")
    move_group()
    bench.until(lambda: len(scenes) == 2, "the walls again")


def test_walls_scene_is_a_diff_of_the_walls_alone(scene_types):
    plates = WorkspaceBox((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).walls(("top",), 0.0, 0.01)
    scene = walls_scene(plates, "base", scene_types)
    assert scene.is_diff and scene.robot_state.is_diff
    assert not scene.allowed_collision_matrix.entry_names
