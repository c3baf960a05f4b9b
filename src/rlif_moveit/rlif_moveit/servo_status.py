# SPDX-License-Identifier: Apache-2.0
"""What Servo's status codes mean: one table per interface, and which of them hold the policy.

Humble numbers its codes differently from Jazzy and newer: a 4 is a halt there and a slow-down here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from rlif_intervention.diagnostics import Level


class Dialect(enum.Enum):
    """Which interface Servo speaks; the value is the parameter's."""

    JAZZY = "jazzy"  # and Kilted, Rolling: SetBool ~/pause_servo, ~/switch_command_type
    HUMBLE = "humble"  # Triggers ~/start_servo and ~/stop_servo, status as std_msgs/Int8


@dataclass(frozen=True)
class Condition:
    """One status code.

    holds: Servo has stopped the arm, so the policy must not go on
    stuck: reason to hold when the arm stands still with this status although it is commanded to move
    """

    name: str
    level: Level
    meaning: str
    holds: bool = False
    stuck: str = ""

    @property
    def well(self) -> bool:
        """Servo neither stops the arm nor may have slowed it down to a standstill."""
        return not self.holds and not self.stuck


_INVALID = Condition(
    "INVALID",
    Level.ERROR,
    "Servo refuses the commands as invalid: check that command_frame is a frame of the robot, and "
    "that Servo's move group is right",
    holds=True,
)
_OK = Condition("NO_WARNING", Level.OK, "Servo follows the commands")
_NEAR = Condition(
    "DECELERATE_FOR_APPROACHING_SINGULARITY",
    Level.WARN,
    "Servo slows down: the arm comes close to a singularity",
    stuck="Servo has slowed the arm down to a standstill at a singularity: plan a reset; driving away "
    "may not be possible",
)
_SINGULAR = Condition(
    "HALT_FOR_SINGULARITY",
    Level.ERROR,
    "Servo has halted the arm at a singularity: plan a reset; Servo moves it in no direction",
    holds=True,
)
_LEAVING = Condition(
    "DECELERATE_FOR_LEAVING_SINGULARITY",
    Level.WARN,
    "Servo is slow: the arm leaves a singularity",
)
_CLOSE = Condition(
    "DECELERATE_FOR_COLLISION",
    Level.WARN,
    "Servo slows down: something is close to the arm",
    stuck="Servo has slowed the arm down to a standstill before a collision, in every direction: plan a "
    "reset, or set Servo's check_collisions to false while the operator drives the arm away",
)
_COLLISION = Condition(
    "HALT_FOR_COLLISION",
    Level.ERROR,
    "Servo has halted the arm in a collision, in every direction: check the planning scene, then move "
    "the arm away by hand, or set Servo's check_collisions to false while the operator drives it away; "
    "MoveIt plans no reset that starts in a collision",
    holds=True,
)
_BOUND = Condition(
    "JOINT_BOUND",
    Level.ERROR,
    "Servo has halted the arm at a joint limit: take over and drive the joint back",
    holds=True,
)

TABLES: Mapping[Dialect, Mapping[int, Condition]] = {
    Dialect.JAZZY: {
        -1: _INVALID,
        0: _OK,
        1: _NEAR,
        2: _SINGULAR,
        3: _LEAVING,
        4: _CLOSE,
        5: _COLLISION,
        6: _BOUND,
    },
    Dialect.HUMBLE: {
        -1: _INVALID,
        0: _OK,
        1: _NEAR,
        2: _SINGULAR,
        3: _CLOSE,
        4: _COLLISION,
        5: _BOUND,
        6: _LEAVING,
    },
}


def condition(dialect: Dialect, code: int) -> Condition:
    """The meaning of a code. One that is in no table holds: what is not understood is not safe."""
    known = TABLES[dialect].get(code)
    if known is not None:
        return known
    return Condition(
        "UNKNOWN",
        Level.ERROR,
        f"Servo's status is {code}, which is not in the table of {dialect.value}: is the parameter "
        "servo_interface right for the installed MoveIt?",
        holds=True,
    )
