# SPDX-License-Identifier: Apache-2.0
"""The simulated arm takes a twist exactly when MoveIt Servo would."""

import numpy as np
import pytest

from rlif_sim.servo import Command, ServoConfig, follow

TWIST = np.array([0.1, -0.2, 0.3, 0.0, 0.0, 0.5])


def answer(frame="base", stamp=10.0, now=10.05, twist=TWIST, **config):
    return follow(Command(twist, frame, stamp), now, ServoConfig(**config))


def test_follow_a_fresh_command_in_a_known_frame_moves():
    result = answer()
    assert result.refused == ""
    np.testing.assert_array_equal(result.twist, TWIST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frame": ""}, "frame_id is empty"),
        ({"frame": "camera"}, "expected one of base"),
        ({"stamp": 0.0, "now": 0.01}, "stamp of 0"),
        ({"stamp": 10.0, "now": 10.11}, "allowed are 0.1 s"),
        ({"twist": TWIST * np.nan}, "not finite"),
        ({"twist": TWIST * 4, "command_in_type": "unitless"}, "beyond"),
    ],
)
def test_follow_a_command_that_servo_refuses_gives_zero_and_the_reason(change, words):
    result = answer(**change)
    assert words in result.refused
    assert not result.twist.any()


def test_follow_before_the_first_command_gives_zero():
    assert follow(None, 1.0, ServoConfig()).refused == "no command yet"


def test_follow_a_unitless_command_scales_it():
    result = answer(command_in_type="unitless", scale_linear=0.4, scale_rotational=0.8)
    np.testing.assert_allclose(result.twist, [0.04, -0.08, 0.12, 0.0, 0.0, 0.4])


@pytest.mark.parametrize(
    "wrong", [{"command_in_type": "velocity"}, {"incoming_command_timeout": 0.0}]
)
def test_servo_config_with_a_wrong_value_names_it(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServoConfig(**wrong)
