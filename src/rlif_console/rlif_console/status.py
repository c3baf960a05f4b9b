# SPDX-License-Identifier: Apache-2.0
"""What is known of a robot's graph, as a page shows it: one object of plain values. No ROS."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlif_node.states import ControlState, Outcome, Phase, Source

STATES = tuple(state.name for state in ControlState)
PHASES, OUTCOMES, SOURCES = (
    tuple(entry.name.lower() for entry in kind) for kind in (Phase, Outcome, Source)
)
WINDOW = 20  # episodes over which rates are taken
KEPT = 2000  # entries of the history
VALUES = 3000  # values of the critic: five minutes
CURVE_PERIOD = 5.0  # s between two points of a curve
FORGET = 5.0  # s after which a diagnostics status that is not repeated is forgotten
OK_LEVEL = 0

# What to do about a diagnostics status, by what its name ends with or contains.
ADVICE = (
    ("device console", "Nobody operates from a page. Take the controls, or use another device."),
    ("device ", "Start the driver of the device, move it once, and look at its topic."),
    ("observation", "See the sources of the observer: one of them is missing or late."),
    ("policy", "The policy answers observations only. Mend these first, then look at its log."),
    ("ee_pose", "Is the robot's driver running, and is ee_pose remapped to its topic?"),
    ("joint_states", "Is the robot's driver running, and is joint_states remapped to its topic?"),
    ("camera", "Look at the cable and the driver of the camera."),
    ("commands", "The processor is overloaded: end other programs, or lower command_rate."),
    ("control", "Read the reason. Remove its cause, then arm."),
    ("recorder", "Look at the free space of the disk and at the log of the recorder."),
    ("learner", "Look at the log of the learner. The robot does not need it to be safe."),
    ("watchdog", "Look at the log of the arbiter. Do not arm before this is gone."),
    ("servo", "Look at MoveIt Servo's log. The operator can still drive out of a halt."),
)


def advice(name: str) -> str:
    """What a person does about a diagnostics status."""
    return next((words for part, words in ADVICE if part in name), "Look at the log of this node.")


def finite(values: Sequence[float]) -> list[float]:
    """Rounded numbers that JSON can carry."""
    return [round(float(v), 4) if math.isfinite(v) else 0.0 for v in values]


def _rate(outcomes: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of successes of the last episodes; None: there are none."""
    recent = outcomes[-WINDOW:]
    return sum(e["outcome"] == "success" for e in recent) / len(recent) if recent else None


@dataclass
class AxisDirections:
    """Whether the end effector moves the way in which the operator pushes, axis by axis."""

    ENOUGH = 0.01  # m in the pushed direction, or against it
    PUSHED = 0.3  # of an action, from which an axis counts
    moved: dict[str, float] = field(default_factory=dict)
    _before: Sequence[float] | None = None

    def update(self, axes: Sequence[str], action: Sequence[float], at: Sequence[float]) -> None:
        """A step of the operator, and where the end effector is after it."""
        before, self._before = self._before, at
        if before is None:
            return
        for name, pushed in zip(axes, action, strict=False):
            if name in ("x", "y", "z") and abs(pushed) > self.PUSHED:
                way = "xyz".index(name)
                step = math.copysign(at[way] - before[way], pushed * (at[way] - before[way]))
                self.moved[name] = self.moved.get(name, 0.0) + step

    def forget(self) -> None:
        """The next step follows no step of the operator."""
        self._before = None

    def findings(self) -> list[dict[str, str]]:
        """As of the doctor, one for each axis."""
        found = []
        for name in "xyz":
            moved = self.moved.get(name, 0.0)
            verdict = "pass" if moved > self.ENOUGH else "FAIL" if moved < -self.ENOUGH else "warn"
            words = {
                "pass": ("moves the way it is pushed", ""),
                "FAIL": (
                    "moves against the push",
                    "turn the sign of the axis in the robot's driver",
                ),
                "warn": ("not pushed yet", f"take over and push {name} by a centimetre or two"),
            }[verdict]
            row = {"check": f"direction {name}", "verdict": verdict}
            found.append(row | {"found": words[0], "advice": words[1]})
        return found


@dataclass
class RobotStatus:
    """Fed with what is received; `snapshot` is what stands now, `history` what has happened."""

    started: float = 0.0
    control: dict[str, Any] | None = None
    episode: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    learner: dict[str, Any] | None = None
    detector: dict[str, Any] | None = None  # of success: its confidence in the newest observation
    poses: dict[str, list[float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    guide: str = ""
    checks: list[dict[str, str]] = field(default_factory=list)  # of `rlif doctor`
    directions: AxisDirections = field(default_factory=AxisDirections)
    cameras: tuple[str, ...] = ()  # of the observation
    streams: tuple[str, ...] = ()  # raw ones that can be asked for
    consoles: int = 0  # publishers of console/joy, ours among them
    history: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    values: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=VALUES))
    _policy_step: int | None = None  # the last one of this episode that the policy drove
    _before: int | None = None  # the one before that
    _episodes: list[dict[str, Any]] = field(default_factory=list)
    _times: dict[str, float] = field(default_factory=dict)
    _problems: dict[str, tuple[float, int, str]] = field(default_factory=dict)
    _new: list[dict[str, Any]] = field(default_factory=list)

    # ---- inputs; `now` is of a steady clock, in s

    def on_control(self, state: int, reason: str, device: str, now: float) -> None:
        name = STATES[state] if state < len(STATES) else str(state)
        if self.control is None or self.control["state"] != name:
            self._add(now, "control", state=name, reason=reason)
        self.control = {"state": name, "reason": reason, "device": device}

    def on_episode(self, episode: Mapping[str, Any], now: float) -> None:
        """`episode`: the fields of the message, with phase and outcome as numbers."""
        found = dict(episode)
        found["phase"] = PHASES[found["phase"]]
        found["outcome"] = OUTCOMES[found["outcome"]]
        found["policy_drove"] = self._policy_step is not None
        ended = found["phase"] == "ended"
        if ended and (not self._episodes or self._episodes[-1]["id"] != found["id"]):
            if found["outcome"] != "discarded":
                self._episodes.append(found)
            self._add(now, "episode", **found)
        self.episode = found

    def on_decision(
        self, source: int, step: int, action: Sequence[float], limits: str, now: float
    ) -> None:
        self.decision = {
            "source": SOURCES[source],
            "step": step,
            "action": finite(action),
            "limits": limits,
        }
        self._times["decision"] = now
        if step == 0:
            self._policy_step = self._before = None
        if SOURCES[source] == "policy":
            self._before, self._policy_step = self._policy_step, step
        if SOURCES[source] == "operator" and "ee_pose" in self.poses:
            self.directions.update(self.settings.get("axes") or (), action, self.poses["ee_pose"])
        else:
            self.directions.forget()

    def on_take_over(self, number: int, step: int, now: float) -> None:
        """After the decision of its first step. The label falls on the policy's last step before it."""
        device = (self.control or {}).get("device", "")
        # With label_only the policy drives on, at the take-over's own step too.
        label = self._before if self._policy_step == step else self._policy_step
        self._add(now, "take_over", id=number, step=step, label=label, device=device)

    def on_value(self, value: float, now: float) -> None:
        """Of the critic, of what was executed."""
        if math.isfinite(value):
            self._add(now, "value", self.values, value=round(value, 3))

    def on_confidence(self, confidence: float, threshold: float, off: bool, now: float) -> None:
        """Of the success detector. `off`: nothing counts at present, as the operator drives."""
        confidence, threshold = finite([confidence, threshold])
        self.detector = {"confidence": confidence, "threshold": threshold, "off": off}
        self._times["detector"] = now

    def on_learner(
        self, status: Mapping[str, Any], metrics: Mapping[str, float], now: float
    ) -> None:
        shown = {name: finite([value])[0] for name, value in metrics.items()}
        self.learner = dict(status) | {"metrics": shown}
        if now - self._times.get("learner", -math.inf) >= CURVE_PERIOD:
            self._times["learner"] = now
            self._add(now, "learner", updates=status["updates"], metrics=shown)

    def on_pose(self, name: str, position: Sequence[float]) -> None:
        self.poses[name] = finite(position)

    def on_observation(self, now: float) -> None:
        self._times["observation"] = now

    def on_diagnostic(self, name: str, level: int, message: str, now: float) -> None:
        self._problems.pop(name, None)
        if level != OK_LEVEL:
            self._problems[name] = (now, level, message)

    # ---- outputs

    def take_new(self) -> list[dict[str, Any]]:
        """The entries of the history since the last call."""
        found, self._new = self._new, []
        return found

    def snapshot(self, now: float) -> dict[str, Any]:
        """Everything but the history. An age is in s, null where nothing came."""
        trained = [e for e in self._episodes if not e["evaluation"]]
        judged = [e for e in self._episodes if e["evaluation"]]
        alone = [e for e in judged if not e["operator_steps"]]
        driven = [e for e in judged if e["operator_steps"] and not e["policy_drove"]]
        recent = trained[-WINDOW:]
        steps = sum(e["steps"] for e in recent)
        return {
            "time": round(now - self.started, 2),
            "control": self.control,
            "episode": self.episode,
            "decision": self.decision,
            "learner": self.learner,
            "detector": self.detector,
            "poses": self.poses,
            "settings": self.settings,
            "guide": self.guide,
            "checks": self.checks and [*self.checks, *self.directions.findings()],
            "cameras": self.cameras,
            "streams": self.streams,
            "ages": {name: round(now - at, 3) for name, at in self._times.items()},
            "success": _rate(trained),
            "evaluated": {
                name: (_rate(found), len(found[-WINDOW:]))
                for name, found in (("policy", alone), ("operator", driven))
            },
            "interventions": sum(e["interventions"] for e in recent) / steps if steps else None,
            "outcomes": {
                name: sum(e["outcome"] == name for e in self._episodes) for name in OUTCOMES[1:4]
            },
            "problems": [
                {"name": name, "level": level, "message": message, "advice": advice(name)}
                for name, (at, level, message) in sorted(self._problems.items())
                if now - at <= FORGET
            ],
        }

    def _add(
        self, now: float, kind: str, kept: deque[dict[str, Any]] | None = None, **values: Any
    ) -> None:
        entry = {"kind": kind, "time": round(now - self.started, 2), **values}
        (self.history if kept is None else kept).append(entry)
        self._new.append(entry)
