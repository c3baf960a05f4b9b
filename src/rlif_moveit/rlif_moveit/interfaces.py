# SPDX-License-Identifier: Apache-2.0
"""The interfaces of MoveIt that the nodes use. Imported here only, and only when a node asks.

moveit_msgs and control_msgs are optional: without them this package builds and installs; a node that needs one
names it. Tests hand in stand-ins of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlif_node.optional import MissingInterfacesError, require
from std_msgs.msg import Int8

from .servo_status import Dialect

__all__ = [
    "COMMAND_TYPES",
    "MissingInterfacesError",
    "ServoInterfaces",
    "require",
    "servo_interfaces",
]

# Values of moveit_msgs/srv/ServoCommandType.
COMMAND_TYPES = {"joint_jog": 0, "twist": 1}


@dataclass(frozen=True)
class ServoInterfaces:
    """status_type, read_code: Servo's status, and the code in it

    select_service, select_request: to select the command type; None: Servo has no such service
    joint_jog_type: control_msgs/JointJog; None: not used
    """

    status_type: type
    read_code: Callable[[Any], int]
    select_service: type | None = None
    select_request: Callable[[int], Any] | None = None
    joint_jog_type: type | None = None


def servo_interfaces(dialect: Dialect, joint_jog: bool) -> ServoInterfaces:
    """The real ones. Raises MissingInterfacesError."""
    jog = require("control_msgs", "msg", "command_type joint_jog").JointJog if joint_jog else None
    if dialect is Dialect.HUMBLE:
        return ServoInterfaces(Int8, lambda m: int(m.data), joint_jog_type=jog)
    needed_for = "the node servo_adapter with servo_interface jazzy"
    status = require("moveit_msgs", "msg", needed_for).ServoStatus
    service = require("moveit_msgs", "srv", needed_for).ServoCommandType
    return ServoInterfaces(
        status_type=status,
        read_code=lambda m: int(m.code),
        select_service=service,
        select_request=lambda kind: service.Request(command_type=kind),
        joint_jog_type=jog,
    )
