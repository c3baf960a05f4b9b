# SPDX-License-Identifier: Apache-2.0
"""Layouts of common devices, as joy_node and spacenav_node report them.

Axes point as a person in front of the robot expects: stick up is +x (away from the base), stick to
the left is +y, right stick up is +z. Check yours once with a look at the topic: drivers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .limits import Vector

# s; of pads that may be wireless. A stick at its stop gives the same numbers for as long as it is
# held: at the 0.04 m/s of these presets (`slow` of a linear_scale of 0.1 m/s) for 0.4 m.
WIRELESS = 10.0


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults of a device's parameters; -1: not on this device."""

    axes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    scales: Vector = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    triggers: tuple[int, ...] = ()
    deadzone: float = 0.0
    slow: float = 1.0
    repeat_limit: float = 0.0
    deadman: int = -1
    turbo: int = -1
    start: int = -1
    success: int = -1
    failure: int = -1
    discard: int = -1
    arm: int = -1
    stop: int = -1
    gripper_open: int = -1
    gripper_close: int = -1
    topic: str = ""  # empty: the device's name
    timeout: float = 0.0  # s; 0: the arbiter's device_timeout


PRESETS: Mapping[str, Preset] = {
    # The scripted operator, and any pad after a look at its numbers.
    "generic": Preset(deadman=0, success=1, failure=2, arm=3),
    # Sticks x y z yaw; RB deadman, LB turbo, A success, B failure, guide discard, start arm, back stop;
    # Y opens and X closes the gripper.
    "xbox": Preset(
        axes=(1, 0, 4, -1, -1, 3),
        triggers=(2, 5),
        deadzone=0.1,
        slow=0.4,
        repeat_limit=WIRELESS,
        deadman=5,
        turbo=4,
        success=0,
        failure=1,
        discard=8,
        arm=7,
        stop=6,
        gripper_open=3,
        gripper_close=2,
    ),
    # Sticks x y z yaw; R1 deadman, L1 turbo, cross success, circle failure, PS discard, options arm,
    # create stop; triangle opens and square closes the gripper.
    "ps5": Preset(
        axes=(1, 0, 4, -1, -1, 3),
        triggers=(2, 5),
        deadzone=0.1,
        slow=0.4,
        repeat_limit=WIRELESS,
        deadman=5,
        turbo=4,
        success=0,
        failure=1,
        discard=10,
        arm=9,
        stop=8,
        gripper_open=2,
        gripper_close=3,
    ),
    # spacenav/joy: all six axes, two buttons; it takes over by motion.
    "spacemouse": Preset(success=0, failure=1),
    # The page of rlif_console, which lets go by itself when input of the page is late. Its other
    # buttons are services; it repeats at 20 Hz and more, so silence means that the console is gone.
    "console": Preset(
        deadman=0,
        stop=1,
        gripper_open=2,
        gripper_close=3,
        topic="console/joy",
        timeout=0.3,
    ),
    # geometry_msgs/Twist of a keyboard or a 3D mouse: no buttons at all.
    "twist": Preset(),
}
