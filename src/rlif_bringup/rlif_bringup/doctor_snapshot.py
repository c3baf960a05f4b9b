# SPDX-License-Identifier: Apache-2.0
"""What the doctor has seen of a graph. No ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlif_node.states import ControlState

from rlif_bringup.image_transport import ImageSender


@dataclass(frozen=True)
class Traffic:
    """One topic: messages received, over how many seconds, and which nodes are connected."""

    name: str = ""
    count: int = 0
    span: float = 0.0  # s between the first and the last
    publishers: int = 0
    subscribers: int = 0

    @property
    def rate(self) -> float:
        """Hz; 0 with fewer than two messages."""
        return (self.count - 1) / self.span if self.count > 1 and self.span > 0.0 else 0.0


# Keys of Snapshot.parameters for nodes that are not ours.
SERVO, CONTROLLER = "servo_node", "controller of Servo"


@dataclass(frozen=True)
class Diagnostic:
    name: str
    level: int
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


def image_problem(width: int, height: int, encoding: str, data: Sequence[int]) -> str:
    """Why an image of an observation is none that can be learned from; empty: nothing is wrong."""
    if encoding != "rgb8":
        return f"encoding {encoding!r}, expected rgb8"
    if len(data) != 3 * width * height:
        return f"{len(data)} bytes, expected {3 * width * height}"
    if len(data) and min(data) == max(data):
        return "all pixels are the same: a lens cap, or a camera that is not running"
    return ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was seen of a graph in `seconds`. Ages in s: receipt by the middleware minus stamp.

    parameters: by node; a node that did not answer is not in it
    weights: version and spec of the last set that was published; None: none
    images: (width, height) of those in an observation
    ee_pose: position in m and frame_id; hold: of servo_adapter; None: no message
    pose, holds, alive: the traffic on ee_pose, policy_hold and arbiter_heartbeat
    image_problems: what is wrong with those of an observation, besides their size
    command: of the arbiter's output; command_publishers: names of the nodes on its topic
    moveit: the robot configuration has a moveit.yaml
    learned: updates that the learner did meanwhile
    weights_age: s since the last set of weights was published; None: none was
    image_senders: the publishers of the raw cameras, with Fast DDS
    """

    seconds: float
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    observation: Traffic = field(default_factory=Traffic)
    observation_age: tuple[float, float] | None = None  # least, greatest
    state_size: int = 0
    images: tuple[tuple[int, int], ...] = ()
    image_problems: tuple[str, ...] = ()
    policy_action: Traffic = field(default_factory=Traffic)
    action_size: int = 0
    policy_version: int = 0
    weights: tuple[int, Mapping[str, Any]] | None = None
    weights_age: float | None = None
    learned: int = 0
    command: Traffic = field(default_factory=Traffic)
    command_frames: frozenset[str] = frozenset()
    command_moves: bool = False  # one of them was not zero
    control: tuple[int, str] | None = None
    stop: bool = False
    command_publishers: frozenset[str] = frozenset()
    hold: str | None = None
    holds: Traffic = field(default_factory=Traffic)
    alive: Traffic = field(default_factory=Traffic)
    moveit: bool = False
    ee_pose: tuple[tuple[float, ...], str] | None = None
    pose: Traffic = field(default_factory=Traffic)
    pose_age: tuple[float, float] | None = None  # least, greatest
    diagnostics: tuple[Diagnostic, ...] = ()
    image_senders: tuple[ImageSender, ...] = ()

    @property
    def lock_step(self) -> bool:
        """A simulation that waits for answers: rates mean nothing there."""
        return bool(self.parameters.get("arbiter", {}).get("lock_step"))

    @property
    def sim_time(self) -> bool:
        """Time is that of a simulation, whose /clock comes after what it stamps."""
        return any(p.get("use_sim_time") for p in self.parameters.values())

    @property
    def state(self) -> str:
        """Of the arbiter; empty: it has published nothing."""
        return ControlState(self.control[0]).name if self.control else ""

    @property
    def boxed(self) -> bool:
        return bool(self.parameter("arbiter", "workspace_min", []))

    @property
    def needs_pose(self) -> bool:
        """The arbiter moves nothing without ee_pose, in command_frame."""
        return self.boxed or self.parameter("arbiter", "action_frame", "base") == "tool"

    @property
    def waits_for_arm(self) -> bool:
        """Servo is paused because the arbiter is not armed."""
        return self.hold is not None and "not armed" in self.hold

    def parameter(self, node: str, name: str, default: Any) -> Any:
        value = self.parameters.get(node, {}).get(name)
        return default if value is None else value
