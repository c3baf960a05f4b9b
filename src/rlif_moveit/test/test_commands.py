# SPDX-License-Identifier: Apache-2.0
"""The arbiter's twist as Servo wants it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_moveit.commands import CommandConfig, CommandConverter

HALF = math.sqrt(0.5)
YAW_90 = (0.0, 0.0, HALF, HALF)
any_number = st.floats(allow_nan=True, allow_infinity=True)


def convert(twist, frame="base", orientation=YAW_90, **config):
    converter = CommandConverter(CommandConfig(**config))
    return converter.convert(np.array(twist, dtype=float), frame, orientation)


def test_convert_without_a_change_needs_no_pose():
    got = convert([0.1, 0, 0, 0, 0, 0.2], orientation=None)
    assert got.twist == pytest.approx([0.1, 0, 0, 0, 0, 0.2])
    assert (got.frame, got.problem) == ("base", "")


def test_convert_to_the_base_and_back_gives_the_command():
    there = convert([0.1, 0, 0, 0, 0.3, 0], frame="tool")
    assert there.twist == pytest.approx([0, 0.1, 0, -0.3, 0, 0])
    back = convert(there.twist, frame="base", output_frame="tool")
    assert back.frame == "tool"
    assert back.twist == pytest.approx([0.1, 0, 0, 0, 0.3, 0])


def test_convert_with_a_tool_offset_takes_out_the_lever_arm():
    # The tip is 0.1 m along the tool's x, which is the base's y. A spin about the tip by z moves the
    # flange, 0.1 m along -y of it, along x: w x (-r) = z x (-0.1 y) = +0.1 x.
    got = convert([0, 0, 0, 0, 0, 1.0], tool_offset=(0.1, 0, 0))
    assert got.twist == pytest.approx([0.1, 0, 0, 0, 0, 1.0])
    in_tool = convert(
        [0, 0, 0, 0, 0, 1.0], frame="tool", output_frame="tool", orientation=None,
        tool_offset=(0.1, 0, 0),
    )  # fmt: skip
    assert in_tool.twist == pytest.approx([0, -0.1, 0, 0, 0, 1.0])


def test_convert_to_unitless_divides_by_the_scales_and_keeps_the_direction():
    got = convert([0.2, 0.1, 0, 0, 0, 0.4], command_in_type="unitless")
    assert got.twist == pytest.approx([0.5, 0.25, 0, 0, 0, 0.5])
    fast = convert([0.8, 0.4, 0, 0, 0, 0], command_in_type="unitless")
    assert fast.twist == pytest.approx([1.0, 0.5, 0, 0, 0, 0])


def test_convert_to_another_frame_without_a_pose_is_zero_with_the_reason():
    got = convert([0.1, 0, 0, 0, 0, 0], frame="tool", orientation=None)
    assert not got.twist.any() and "ee_pose" in got.problem
    assert not convert([0.0] * 6, frame="tool", orientation=None).problem


def test_convert_of_an_unknown_frame_is_zero_and_names_it():
    got = convert([0.1, 0, 0, 0, 0, 0], frame="world")
    assert not got.twist.any() and "'world'" in got.problem


@given(st.lists(any_number, min_size=6, max_size=6), st.sampled_from(["base", "tool", ""]),
       st.sampled_from(["speed_units", "unitless"]))  # fmt: skip
def test_convert_of_anything_is_finite(twist, frame, units):
    got = convert(twist, frame=frame, command_in_type=units, tool_offset=(0.1, 0.0, 0.2))
    assert np.isfinite(got.twist).all()
    if units == "unitless":
        assert np.abs(got.twist).max() <= 1.0 + 1e-12
    if not np.isfinite(twist).all():
        assert not got.twist.any() and got.problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_frame", "world"),
        ("tool_frame", "base"),
        ("command_in_type", "metres"),
        ("tool_offset", (0.0, 0.0)),
        ("scale_linear", 0.0),
    ],
)
def test_command_config_with_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        CommandConfig(**{name: value})
