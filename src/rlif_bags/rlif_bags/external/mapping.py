# SPDX-License-Identifier: Apache-2.0
"""What the topics of an external recording mean: a YAML file, checked in full before anything is read.

control_rate: 10.0                      # Hz of the Steps
features: [ee_position, wrench_force]   # as the observer's
joints: []                              # as the observer's
base_frame: base                        # of poses; empty: any, and poses that name none
max_age: 0.2                            # s that a sample may be old
sources: {ee_pose: /arm/pose, wrench: /arm/wrench}   # what the features need: topic
cameras: {wrist: /camera/image_raw}     # name: topic; in this order
rois: {wrist: [80, 0, 480, 480]}        # of a camera, as the observer's roi; left out: all of it
depth_ranges: {}                        # of a depth camera, as the observer's depth_range: [0.2, 1.5]
max_camera_skew: 0.2                    # s that their images may be apart, by their headers; 0: any
image_width: 128
image_height: 128
command: /arm/twist                     # TwistStamped, Twist, or a Float32/64MultiArray
output: twist                           # as the arbiter's; with joint_velocity or joint_trajectory
                                        # JointTrajectory, JointJog, JointState or a MultiArray
axes: [x, y, z]                         # entries of an action; or names of joints, in the order of
                                        # a MultiArray; the last may be gripper
linear_scale: 0.1                       # m/s of an action of 1; a MultiArray is divided by it
angular_scale: 0.5                      # rad/s of an action of 1
joint_scale: 0.5                        # rad/s of an action of 1, with joints
gripper: {topic: /grip, open: 0.08, closed: 0.0}   # of the axis gripper: what its positions mean in
                                        # a number, a flag or a GripperCommand; with `joint: NAME`
                                        # in a JointState or JointTrajectory
gripper_threshold: 0.5                  # as the arbiter's
driver: {joy: /joy, button: 4}          # the control source: a deadman button, or
  # {motion: /spacenav/joy, motion_on: 0.15, motion_off: 0.05}   take-over by motion of a Joy or
  #                                     twist, as the arbiter's; axes: [0, 1, 2] counts only these
  # {flag: /manual}                     a Bool; or of text or whole numbers, with
  #                                     operator_values: [teleop] (all others are the policy's, or
  #                                     with policy_values: [auto] refused); field: mode, if the
  #                                     message holds it under another name than data
  # {policy: /policy/twist, threshold: 0.05}    a command that differs from the policy's
  # {always: operator}                  or policy
  # timeout: 0.5                        s that its newest message may be old, 0: any; left out: 0.5
  #                                     of joy and motion, 0 of the others
release_dwell: 0.2                      # s, as the arbiter's
episode_gap: 2.0                        # s without a command that end an episode
success: ""                             # topic; a message ends the episode in success: a Bool that is
                                        # true, or one without data
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from rlif_intervention.devices import MotionGate
from rlif_intervention.gripper import AXIS as GRIPPER
from rlif_intervention.gripper import GripperConfig
from rlif_intervention.limits import AXES, LINEAR
from rlif_policy.features import StateLayout

OUTPUTS = ("twist", "joint_velocity", "joint_trajectory")  # of the arbiter


def _is_number(value: Any) -> bool:
    """A finite one; YAML's `true` and text are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


class Kind(NamedTuple):
    """What a value must be."""

    fits: Callable[[Any], bool]
    expected: str


_NAME = Kind(lambda v: isinstance(v, str), "a name")
_TOPIC = Kind(lambda v: isinstance(v, str) and v != "", "a topic")
_OPTIONAL_TOPIC = Kind(lambda v: isinstance(v, str), "a topic")
_NAMES = Kind(lambda v: all(isinstance(name, str) for name in v), "names")
_MAPPING = Kind(lambda v: isinstance(v, Mapping) and _NAMES.fits(v), "{name: value}")
_POSITIVE = Kind(lambda v: _is_number(v) and v > 0, "a number above 0")
_AMOUNT = Kind(lambda v: _is_number(v) and v >= 0, "a number, 0 or more")
_SIZE = Kind(lambda v: _is_index(v) and v > 0, "a whole number above 0")
_INDEX = Kind(_is_index, "0 or a whole number above")
_INDICES = Kind(lambda v: _is_list(v) and all(map(_is_index, v)), "indices, 0 or more")
_VALUES = Kind(_is_list, "a list of values")
_OUTPUT = Kind(lambda v: v in OUTPUTS, f"one of {list(OUTPUTS)}")
_SOURCE = Kind(lambda v: v in ("operator", "policy"), "operator or policy")


def _numbers(count: int) -> Kind:
    return Kind(
        lambda v: _is_list(v) and len(v) == count and all(map(_is_number, v)), f"{count} numbers"
    )


_ENTRIES: Mapping[str, Kind] = {
    "sources": _TOPIC, "cameras": _TOPIC, "rois": _numbers(4), "depth_ranges": _numbers(2),
}  # fmt: skip
_DRIVER_ENTRIES: Mapping[str, Kind] = {
    **dict.fromkeys(("joy", "motion", "flag", "policy"), _TOPIC),
    **dict.fromkeys(("threshold", "timeout", "motion_on", "motion_off"), _AMOUNT),
    **dict.fromkeys(("operator_values", "policy_values"), _VALUES),
    "always": _SOURCE, "button": _INDEX, "axes": _INDICES, "field": _NAME,
}  # fmt: skip


class DriverKind(NamedTuple):
    """What a kind of driver needs besides its own name, and may have; timeout in s."""

    needed: frozenset[str]
    optional: frozenset[str]
    timeout: float


# A joystick is sent at a rate, as the arbiter's device_timeout expects it; a flag may be sent only
# when it changes.
_DRIVERS: Mapping[str, DriverKind] = {
    "joy": DriverKind(frozenset({"button"}), frozenset({"timeout"}), 0.5),
    "motion": DriverKind(
        frozenset(), frozenset({"timeout", "motion_on", "motion_off", "axes"}), 0.5
    ),
    "flag": DriverKind(
        frozenset(), frozenset({"timeout", "field", "operator_values", "policy_values"}), 0.0
    ),
    "policy": DriverKind(frozenset({"threshold"}), frozenset({"timeout"}), 0.0),
    "always": DriverKind(frozenset(), frozenset(), 0.0),
}
_WITH_TOPIC = ("joy", "motion", "flag", "policy")


def _field(kind: Kind, default: Any = MISSING) -> Any:
    """A field of TopicMapping, whose value must be of this kind."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"kind": kind})
    return field(default=default, metadata={"kind": kind})


def _check(where: str, value: Any, kind: Kind) -> None:
    if not kind.fits(value):
        raise ValueError(f"{where}: found {value!r}, expected {kind.expected}")


@dataclass(frozen=True)
class TopicMapping:
    """See the module. ValueError names the field, what was found and what was expected."""

    features: tuple[str, ...] = _field(_NAMES)
    sources: Mapping[str, str] = _field(_MAPPING)
    command: str = _field(_TOPIC)
    axes: tuple[str, ...] = _field(_NAMES)
    driver: Mapping[str, Any] = _field(_MAPPING)
    control_rate: float = _field(_POSITIVE, 10.0)
    joints: tuple[str, ...] = _field(_NAMES, ())
    base_frame: str = _field(_NAME, "base")
    max_age: float = _field(_POSITIVE, 0.2)
    cameras: Mapping[str, str] = _field(_MAPPING, {})
    rois: Mapping[str, Sequence[int]] = _field(_MAPPING, {})
    depth_ranges: Mapping[str, Sequence[float]] = _field(_MAPPING, {})
    max_camera_skew: float = _field(_AMOUNT, 0.2)
    image_width: int = _field(_SIZE, 128)
    image_height: int = _field(_SIZE, 128)
    output: str = _field(_OUTPUT, "twist")
    linear_scale: float = _field(_POSITIVE, 0.1)
    angular_scale: float = _field(_POSITIVE, 0.5)
    joint_scale: float = _field(_POSITIVE, 0.5)
    gripper: Mapping[str, Any] = _field(_MAPPING, {})
    gripper_threshold: float = _field(_POSITIVE, 0.5)
    release_dwell: float = _field(_AMOUNT, 0.2)
    episode_gap: float = _field(_POSITIVE, 2.0)
    success: str = _field(_OPTIONAL_TOPIC, "")

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check(entry.name, getattr(self, entry.name), entry.metadata["kind"])
        for name, kind in _ENTRIES.items():
            for key, value in getattr(self, name).items():
                _check(f"{name}: {key}", value, kind)
        for name in ("rois", "depth_ranges"):
            if wrong := sorted(set(getattr(self, name)) - set(self.cameras)):
                raise ValueError(
                    f"{name}: found {wrong}, expected some of the cameras {list(self.cameras)}"
                )
        needed = set(self.layout.sources)
        if needed != set(self.sources):
            raise ValueError(
                f"sources: found topics for {sorted(self.sources)}, expected them for "
                f"{sorted(needed)}, which the features need"
            )
        self._check_axes()
        self._check_gripper()
        self._check_driver()

    def _check_driver(self) -> None:
        driver = self.driver
        kind = next((kind for kind in _DRIVERS if kind in driver), "")
        if not kind or set(driver) - _DRIVERS[kind].optional != {kind, *_DRIVERS[kind].needed}:
            expected = " or ".join(
                f"{{{', '.join([name, *sorted(k.needed)])}}}"
                + f" (and {', '.join(sorted(k.optional))})" * bool(k.optional)
                for name, k in _DRIVERS.items()
            )
            raise ValueError(f"driver: found {sorted(driver)}, expected {expected}")
        for name, value in driver.items():
            _check(f"driver: {name}", value, _DRIVER_ENTRIES[name])
        try:
            MotionGate(driver.get("motion_on", 0.15), driver.get("motion_off", 0.05))
        except ValueError as error:
            raise ValueError(f"driver: {error}") from error
        if "policy_values" in driver and "operator_values" not in driver:
            raise ValueError("driver: found policy_values, expected operator_values with them")
        values = [*driver.get("operator_values", ()), *driver.get("policy_values", ())]
        kinds = {type(value) for value in values}
        if len(kinds) > 1 or not kinds <= {bool, int, str}:
            raise ValueError(
                f"driver: found values {values}, expected all text, all whole numbers or all flags"
            )
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"driver: found {twice[0]!r} more than once, expected each value once")

    def _check_axes(self) -> None:
        axes = list(self.axes)
        if not self.motion or len(set(axes)) < len(axes):
            raise ValueError(f"axes: found {axes}, expected one or more, each once")
        if GRIPPER in self.motion:
            raise ValueError(f"axes: found {axes}, expected {GRIPPER} as the last of them")
        twists = [axis for axis in self.motion if axis in AXES]
        if self.output == "twist" and len(twists) < len(self.motion):
            raise ValueError(
                f"axes: found {axes}, expected some of {list(AXES)}, or with output "
                "joint_velocity names of joints"
            )
        if self.output != "twist" and twists:
            raise ValueError(f"axes: found {axes}, expected joints with output {self.output}")

    def _check_gripper(self) -> None:
        GripperConfig(threshold=self.gripper_threshold)
        if bool(self.gripper) != (self.axes[-1] == GRIPPER):
            raise ValueError(
                f"gripper: found {dict(self.gripper)} and axes {list(self.axes)}, expected both "
                f"`gripper` and {GRIPPER} as the last of the axes, or neither"
            )
        if not self.gripper:
            return
        if set(self.gripper) - {"joint"} != {"topic", "open", "closed"}:
            raise ValueError(
                f"gripper: found {sorted(self.gripper)}, expected topic, open and closed, and "
                "joint where it is one of several"
            )
        _check("gripper: topic", self.gripper["topic"], _TOPIC)
        ends = [self.gripper["open"], self.gripper["closed"]]
        if not all(map(_is_number, ends)) or ends[0] == ends[1]:
            raise ValueError(f"gripper: found open and closed {ends}, expected two numbers")

    @property
    def motion(self) -> tuple[str, ...]:
        """The axes without the gripper."""
        return self.axes[:-1] if self.axes and self.axes[-1] == GRIPPER else self.axes

    @property
    def layout(self) -> StateLayout:
        return StateLayout(tuple(self.features), tuple(self.joints))

    @property
    def driver_topic(self) -> str:
        """That of the control source; empty: it is always the same."""
        return next((self.driver[k] for k in _WITH_TOPIC if k in self.driver), "")

    @property
    def driver_timeout(self) -> float:
        """s that the newest message of the driver may be old; 0: any."""
        kind = next(kind for kind in _DRIVERS if kind in self.driver)
        return float(self.driver.get("timeout", _DRIVERS[kind].timeout))

    @property
    def topics(self) -> dict[str, str]:
        """All topics that are read, and what each of them is for."""
        used = {topic: name for name, topic in self.sources.items()}
        used |= {topic: f"camera {name}" for name, topic in self.cameras.items()}
        used[self.command] = "command"
        others = ((self.gripper.get("topic", ""), "gripper"), (self.driver_topic, "driver"),
                  (self.success, "success"))  # fmt: skip
        for topic, name in others:
            if topic:
                used[topic] = name
        return used

    @property
    def scales(self) -> np.ndarray:
        """Of the entries of an action, without the gripper, [motion_dim]."""
        if self.output != "twist":
            return np.full(len(self.motion), self.joint_scale)
        return np.array(
            [self.linear_scale if a in LINEAR else self.angular_scale for a in self.motion]
        )

    @classmethod
    def read(cls, path: Path) -> TopicMapping:
        """From a YAML file. ValueError names it."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("found no mapping of names to values")
            known = {f.name for f in fields(cls)}
            unknown = sorted(set(content) - known)
            missing = sorted({"features", "sources", "command", "axes", "driver"} - set(content))
            if unknown or missing:
                raise ValueError(f"unknown {unknown}, missing {missing}; known: {sorted(known)}")
            for name in ("features", "joints", "axes"):
                content[name] = tuple(content.get(name) or ())
            return cls(**content)
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise ValueError(f"mapping {path}: {error}") from error
