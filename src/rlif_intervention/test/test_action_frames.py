# SPDX-License-Identifier: Apache-2.0
"""Actions in the tool's frame: turned before the limits, which hold as without."""

from __future__ import annotations

import math

import pytest
from arbiter_bench import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from rlif_node.rotations import IDENTITY, rotate
from rlif_node.states import ControlState

from rlif_intervention.action_frames import ToolFrame
from rlif_intervention.limits import AXES, LimitConfig, Limited, Limiter, norm

XYZ = AXES[:3]
LINEAR = st.tuples(*[st.floats(-1.5, 1.5)] * 3)
ORIENTATIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: tuple(v / math.hypot(*q) for v in q))
)
DOWN = (1.0, 0.0, 0.0, 0.0)  # the tool looks down: its y and z are those of the base, turned around


@given(ORIENTATIONS, LINEAR, LINEAR)
def test_tool_frame_of_an_action_and_back_is_the_action_with_a_norm_of_1_at_most(turn, a, b):
    frame = ToolFrame(AXES)
    frame.turn(turn)
    base, clamped = frame.to_base((*a, *b))
    assert base[:3] == pytest.approx(rotate(turn, [v / max(1.0, norm(a)) for v in a]), abs=1e-9)
    assert clamped == (max(norm(a), norm(b)) > 1.0)
    back = frame.executed(Limited(base, base, ("speed",)), clamped)
    wanted = [v / max(1.0, norm(part)) for part in (a, b) for v in part]
    assert back.action == pytest.approx(wanted, abs=1e-9)
    assert back.twist == base, "what is sent stays in the base frame"
    assert back.names == (("clamp", "speed") if clamped else ("speed",))


@settings(deadline=None)
@given(st.data())
def test_box_with_actions_of_a_turning_tool_is_not_left(data):
    low, high = (0.0, 0.0, 0.0), (0.1, 0.3, 0.02)
    config = LimitConfig(
        period=0.1,
        linear_scale=data.draw(st.floats(0.05, 0.5)),
        max_linear_acceleration=data.draw(st.sampled_from([0.0, 1.0])),
        max_linear_deceleration=data.draw(st.sampled_from([0.0, 0.2, 1.0])),
        workspace_min=low,
        workspace_max=high,
        tool_actions=True,
    )
    limiter, frame = Limiter(config), ToolFrame(XYZ)
    position = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    for turn, action in data.draw(
        st.lists(st.tuples(ORIENTATIONS, LINEAR), min_size=1, max_size=40)
    ):
        frame.turn(turn)
        base, clamped = frame.to_base(action)
        out = frame.executed(limiter.drive(base, tuple(position)), clamped)
        position = [p + v * config.period for p, v in zip(position, out.twist, strict=True)]
        assert all(a - 1e-9 <= p <= b + 1e-9 for a, p, b in zip(low, position, high, strict=True))
        assert all(abs(v) <= 1.0 + 1e-9 for v in out.action)
        sent = [v / config.linear_scale for v in out.twist]
        assert rotate(turn, out.action) == pytest.approx(sent, abs=1e-9), "learned is what was sent"


@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z", "yaw"), ("yaw",)])
def test_tool_frame_of_axes_that_a_rotation_leaves_is_refused(axes):
    with pytest.raises(ValueError, match="expected all or none of"):
        ToolFrame(axes)


def test_arbiter_with_tool_actions_drives_along_the_tool_and_learns_its_action():
    b = Bench(limits=LimitConfig(tool_actions=True))
    b.pose, b.orientation, b.action = (0.5, 0.0, 0.3), DOWN, (0.5, 0.0, 0.5)
    b.driving()
    b.run(200)
    assert b.arbiter.state is ControlState.POLICY
    assert b.outputs[-1][1] == pytest.approx((0.05, 0.0, -0.05))
    assert b.decisions[-1].executed_action == pytest.approx((0.5, 0.0, 0.5))


def test_arbiter_with_tool_actions_holds_without_an_orientation():
    b = Bench(limits=LimitConfig(tool_actions=True))
    b.pose, b.orientation = (0.5, 0.0, 0.3), IDENTITY
    b.driving()
    b.orientation = (0.0, 0.0, 0.0, 0.0)
    b.run(20)
    assert b.arbiter.state is ControlState.HOLD and "expected a unit quaternion" in b.arbiter.reason
    b.pose = None
    b.run(600)
    assert "action_frame tool needs it" in b.arbiter.reason
