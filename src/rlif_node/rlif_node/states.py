# SPDX-License-Identifier: Apache-2.0
"""Numbers of messages as enums: control states and sources, episodes, reasons to hold. Without ROS.

The numbers are those of the constants in rlif_msgs.
"""

from enum import IntEnum


class ControlState(IntEnum):
    """State of the arbiter: constants of rlif_msgs/ControlState."""

    DISARMED = 0
    HOLD = 1
    POLICY = 2
    OPERATOR = 3
    FAULT = 4


class Source(IntEnum):
    """Control source of a tick or a step: constants of rlif_msgs/Decision."""

    NONE = 0  # zeros were output
    POLICY = 1
    OPERATOR = 2


class Phase(IntEnum):
    """Phase of an episode: constants of rlif_msgs/Episode."""

    RESETTING = 0
    READY = 1
    RUNNING = 2
    ENDED = 3


class Outcome(IntEnum):
    """Outcome of an episode: constants OUTCOME_* of rlif_msgs/Episode."""

    RUNNING = 0
    SUCCESS = 1
    FAILURE = 2
    TRUNCATED = 3  # the time limit, or a fault of a machine
    DISCARDED = 4  # to be recorded again: not learned from, and not counted


class HoldReason(IntEnum):
    """Why the policy must not act: constants of rlif_msgs/PolicyHold."""

    NONE = 0  # it may
    SERVO_STATUS = 1
    SERVO_PAUSED = 2
    NOT_CONNECTED = 3
    PLANNING = 4
    NOT_MOVING = 5
    OTHER = 255
