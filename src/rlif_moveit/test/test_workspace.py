# SPDX-License-Identifier: Apache-2.0
"""The workspace box, seen."""

from __future__ import annotations

import math

import pytest

from rlif_moveit.workspace import FACES, WorkspaceBox

BOX = WorkspaceBox((0.3, -0.2, 0.0), (0.7, 0.2, 0.5))


def test_edges_of_a_box_are_twelve_each_along_one_axis():
    edges = BOX.edges()
    assert len(set(edges)) == 12
    for a, b in edges:
        moved = [i for i in range(3) if a[i] != b[i]]
        assert len(moved) == 1
        assert b[moved[0]] - a[moved[0]] == pytest.approx(BOX.size[moved[0]])
    corners = {corner for edge in edges for corner in edge}
    assert len(corners) == 8


@pytest.mark.parametrize("face", FACES)
def test_wall_of_a_face_stands_outside_by_the_margin(face):
    (plate,) = BOX.walls((face,), margin=0.02, thickness=0.01)
    axis, end = FACES[face]
    near = plate.centre[axis] + (-0.005 if end else 0.005)
    assert near == pytest.approx(BOX.high[axis] + 0.02 if end else BOX.low[axis] - 0.02)
    for other in {0, 1, 2} - {axis}:
        assert plate.size[other] == pytest.approx(BOX.size[other])


def test_workspace_box_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match="workspace_min"):
        WorkspaceBox((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="workspace_max"):
        WorkspaceBox((0.0, 0.0, 0.0), (1.0, math.inf, 1.0))
    with pytest.raises(ValueError, match="walls"):
        BOX.walls(("floor",), 0.0, 0.01)
