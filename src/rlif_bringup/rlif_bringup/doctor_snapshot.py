"""What the doctor has seen of a graph. No ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Traffic:
    """One topic: messages heard, over how many seconds, and who is connected."""

    name: str = ""
    count: int = 0
    span: float = 0.0  # s between the first and the last
    publishers: int = 0
    subscribers: int = 0

    @property
    def rate(self) -> float:
        """Hz; 0 where it cannot be said."""
        return (self.count - 1) / self.span if self.count > 1 and self.span > 0.0 else 0.0


@dataclass(frozen=True)
class Diagnostic:
    name: str
    level: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was seen of a graph in `seconds`. Ages in s: receipt minus stamp, in ROS time.

    parameters: by node; a node that did not answer is not in it
    weights: version and spec of the last set that was published; None: none
    images: (width, height) of those in an observation
    ee_pose: position in m and frame_id; hold: of servo_adapter; None: nothing was said
    """

    seconds: float
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    observation: Traffic = field(default_factory=Traffic)
    observation_age: tuple[float, float] | None = None  # least, greatest
    state_size: int = 0
    images: tuple[tuple[int, int], ...] = ()
    policy_action: Traffic = field(default_factory=Traffic)
    action_size: int = 0
    policy_version: int = 0
    weights: tuple[int, Mapping[str, Any]] | None = None
    command: Traffic = field(default_factory=Traffic)
    command_frames: frozenset[str] = frozenset()
    command_moves: bool = False  # one of them was not zero
    control: tuple[int, str] | None = None
    stop: bool = False
    hold: str | None = None
    ee_pose: tuple[tuple[float, ...], str] | None = None
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def lock_step(self) -> bool:
        """A simulation that waits for answers: rates say nothing there."""
        return bool(self.parameters.get("arbiter", {}).get("lock_step"))

    @property
    def sim_time(self) -> bool:
        """Time is that of a simulation, whose /clock comes after what it stamps."""
        return any(p.get("use_sim_time") for p in self.parameters.values())

    def parameter(self, node: str, name: str, default: Any) -> Any:
        value = self.parameters.get(node, {}).get(name)
        return default if value is None else value
