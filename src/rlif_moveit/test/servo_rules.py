# SPDX-License-Identifier: Apache-2.0
"""What the stand-in Servo does with a twist and says of it; tests/test_recorded_servo.py checks it against recordings."""

from __future__ import annotations

from rlif_moveit.servo_status import Dialect, condition

TIMEOUT = 100_000_000  # ns; incoming_command_timeout


def follows(frame: str, age: int, paused: bool = False) -> bool:
    """Whether a twist in `frame` that is `age` ns old is followed."""
    return not paused and bool(frame) and age < TIMEOUT


def reported(dialect: Dialect, code: int, moving: bool) -> int:
    """The code that is published where the arm is in `code`: near a singularity or a joint limit only for a
    command that is not zero, as in MoveIt's `Servo::getNextJointState`."""
    name = condition(dialect, code).name
    always = name.endswith("COLLISION") or name == "INVALID"
    return code if always or moving else 0
