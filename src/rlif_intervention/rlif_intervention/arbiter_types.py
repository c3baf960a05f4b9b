# SPDX-License-Identifier: Apache-2.0
"""Configuration, inputs and outputs of the arbiter's core."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from . import gripper
from .gripper import GripperConfig
from .interventions import InterventionConfig
from .joint_limits import JointLimitConfig
from .limits import LimitConfig, Vector
from .motion_check import MotionCheckConfig
from .ticks import InterventionChange, Source


@dataclass(frozen=True, kw_only=True)
class ArbiterConfig:
    """Time-outs in s, by receipt; the reaction to each is in docs/arbiter.md.

    limits: of the end effector's twist, or of joints
    gripper: the last entry of an action is the gripper's; None: there is none
    require_operator: without a live operator device the policy holds
    label_only: a take-over is marked in the data, and the policy keeps control
    hold_timeout: of `policy_hold`; 0: no messages are expected
    arm_dwell: s of zeros after arming
    """

    limits: LimitConfig | JointLimitConfig = field(default_factory=LimitConfig)
    gripper: GripperConfig | None = None
    interventions: InterventionConfig = field(default_factory=InterventionConfig)
    motion: MotionCheckConfig = field(default_factory=MotionCheckConfig)
    observation_timeout: float = 0.3
    policy_timeout: float = 0.3
    pose_timeout: float = 0.3
    require_operator: bool = True
    label_only: bool = False
    hold_timeout: float = 0.0
    arm_dwell: float = 0.0

    def __post_init__(self) -> None:
        for name in ("observation_timeout", "policy_timeout", "pose_timeout"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0.0:
                raise ValueError(f"{name} is {value}; expected seconds above 0")
        if not math.isfinite(self.arm_dwell) or self.arm_dwell < 0.0:
            raise ValueError(f"arm_dwell is {self.arm_dwell}; expected seconds, 0 or more")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the entries of an action."""
        return (*self.limits.axes, *((gripper.AXIS,) if self.gripper else ()))


@dataclass(frozen=True)
class Episode:
    """What the arbiter knows of the episode. `start`, `end` in ns; max_steps 0: no limit."""

    id: int
    running: bool
    start: int = 0
    end: int | None = None
    max_steps: int = 0


NO_EPISODE = Episode(0, False)


@dataclass(frozen=True)
class PolicyInput:
    tick: int
    stamp: int
    action: Vector
    version: int
    received: float


@dataclass(frozen=True)
class Command:
    """One output, and the interventions that began or ended.

    twist: (n,) m/s and rad/s, of the end effector or of the joints; action: (n,), with the gripper's
    gripper: 1 open, -1 closed, 0 as it is; reference: as in `Limited`
    """

    twist: Vector
    action: Vector
    source: Source
    changes: tuple[InterventionChange, ...]
    gripper: float = 0.0
    reference: Vector = ()
