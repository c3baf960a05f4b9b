# SPDX-License-Identifier: Apache-2.0
"""MoveIt Servo's rules for an incoming twist. No ROS.

Servo takes a twist only with a frame and a fresh stamp: a stamp of zero is always stale, and a command
older than `incoming_command_timeout` is dropped. Unitless commands are scaled and must lie in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ServoConfig:
    """Named as Servo names them."""

    frames: tuple[str, ...] = ("base",)  # in which twists are understood; all aligned with the base
    command_in_type: str = "speed_units"  # or "unitless"
    incoming_command_timeout: float = 0.1  # s
    scale_linear: float = 0.4  # m/s of a unitless 1
    scale_rotational: float = 0.8  # rad/s of a unitless 1

    def __post_init__(self) -> None:
        if self.command_in_type not in ("speed_units", "unitless"):
            raise ValueError(
                f"command_in_type: found {self.command_in_type!r}, "
                "expected 'speed_units' or 'unitless'"
            )
        if not self.incoming_command_timeout > 0.0:
            raise ValueError(
                f"incoming_command_timeout: found {self.incoming_command_timeout}, "
                "expected more than 0 s"
            )


@dataclass(frozen=True)
class Command:
    """A twist as it came in: [6] m/s and rad/s or unitless, its frame and its stamp (s)."""

    twist: Array
    frame: str
    stamp: float


@dataclass(frozen=True)
class Answer:
    """The twist [6] (m/s, rad/s) to move with, and why it is zero if it was refused."""

    twist: Array
    refused: str = ""


def _refuse(reason: str) -> Answer:
    return Answer(np.zeros(6), reason)


def follow(command: Command | None, now: float, config: ServoConfig) -> Answer:
    """What Servo does at `now` (s) with the newest command."""
    if command is None:
        return _refuse("no command yet")
    if not command.frame:
        return _refuse("header.frame_id is empty")
    if command.frame not in config.frames:
        return _refuse(
            f"frame {command.frame!r} is unknown, expected one of {', '.join(config.frames)}"
        )
    if command.stamp == 0.0:
        return _refuse("a stamp of 0 is always stale")
    age = now - command.stamp
    if age > config.incoming_command_timeout:
        return _refuse(
            f"command is {age:.3f} s old, allowed are {config.incoming_command_timeout} s"
        )
    if not np.isfinite(command.twist).all():
        return _refuse(f"not finite: {command.twist}")
    if config.command_in_type == "speed_units":
        return Answer(command.twist)
    if np.abs(command.twist).max() > 1.0:
        return _refuse(f"unitless command beyond [-1, 1]: {command.twist}")
    scale = np.repeat([config.scale_linear, config.scale_rotational], 3)
    return Answer(command.twist * scale)
