# SPDX-License-Identifier: Apache-2.0
"""The arbiter's core in simulated time, with its inputs: what the tests of the arbiter share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from rlif_node.states import ControlState, HoldReason

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.devices import Device, DeviceRack, Reading
from rlif_intervention.interventions import InterventionConfig
from rlif_intervention.limits import LimitConfig, norm
from rlif_intervention.ticks import Source

MS = 1_000_000
PUSH, REST = (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)
POLICY = (0.5, 0.0, 0.0)


class Bench:
    """Real time at 50 Hz commands, 10 Hz ticks, 50 Hz device; every input can be switched off."""

    def __init__(self, dwell=0.2, minimum=0.0, devices=("joy",), limits=None, **config):
        self.arbiter = Arbiter(
            ArbiterConfig(
                limits=limits or LimitConfig(),
                interventions=InterventionConfig(release_dwell=dwell, minimum_length=minimum),
                **config,
            ),
            DeviceRack([Device(name) for name in devices]),
        )
        self.ms = 0
        self.tick = 0
        self.action = POLICY
        self.pose = None  # what ee_pose says with every command; None: nothing
        self.measured = None  # the position of the arm, for the check that it follows
        self.orientation = ()
        self.observing = self.thinking = self.holding = True
        self.decisions, self.changes, self.outputs = [], [], []

    @property
    def now(self):
        return self.ms / 1000

    def run(self, ms, hand=False):
        """`ms` further; `hand`: the deadman, or a function of the time in ms, None: unplugged."""
        for _ in range(ms // 20):
            pressed = hand(self.ms) if callable(hand) else hand
            if pressed is not None:
                reading = Reading(pressed, PUSH if pressed else REST)
                self.arbiter.device_reading("joy", reading, self.now)
            if self.ms % 100 == 0:
                self._tick()
            if self.pose is not None:
                self.arbiter.pose(self.pose, self.now, orientation=self.orientation)
            if self.measured is not None:
                self.arbiter.motion(self.measured, self.now)
            command = self.arbiter.output(self.now)
            self.outputs.append((self.ms, command.twist, command.source))
            self.changes += command.changes
            self.ms += 20
        return self

    def _tick(self):
        self.tick += 1
        if self.observing:
            decision = self.arbiter.observe(self.tick, self.ms * MS, self.now)
            self.decisions += [decision] if decision else []
        if self.thinking:
            self.arbiter.policy_action(self.tick, self.ms * MS, self.action, 1, self.now)

    def driving(self, **kwargs):
        """Armed and in episode 1, the policy drives."""
        self.run(100)
        assert self.arbiter.arm(True)[0]
        self.arbiter.begin_episode(1, self.ms * MS, 0)
        return self.run(200, **kwargs)


def ids(bench):
    return {d.intervention_id for d in bench.decisions} - {0}


# ---- an arm within its limits, with everything around the arbiter that can break

PERIOD = 0.02
DRIVING = (ControlState.POLICY, ControlState.OPERATOR)
LOW, HIGH = (-0.05, -0.05, -0.02), (0.05, 0.03, 0.02)
SIZE = 4


def make_config(jerk, latency, dwell, label_only):
    return ArbiterConfig(
        limits=LimitConfig(
            axes=("x", "y", "z", "yaw"),
            linear_scale=0.2,
            angular_scale=0.8,
            period=PERIOD,
            max_linear_speed=0.15,
            max_angular_speed=0.5,
            max_linear_acceleration=0.5,
            max_angular_acceleration=2.0,
            max_linear_deceleration=1.0,
            max_angular_deceleration=4.0,
            max_linear_jerk=jerk,
            workspace_min=LOW,
            workspace_max=HIGH,
            pose_latency=latency,
        ),
        interventions=InterventionConfig(release_dwell=0.1),
        arm_dwell=dwell,
        label_only=label_only,
    )


@dataclass
class Rig:
    """An arm that follows its commands, and everything around the arbiter, each of it breakable."""

    config: ArbiterConfig
    now: float = 100.0  # of the arbiter's clock, which may jump
    time: int = 0  # commands so far
    stamp: int = 0
    episode: int = 0
    action: tuple = (1.0, 0.0, 0.0, 0.0)
    hand: tuple | None = None  # what the device says; None: let go
    plugged: bool = True
    observing: bool = True
    thinking: bool = True
    pose_lag: int | None = 0  # commands that a pose is old; None: none comes
    pose: str = ""  # what is wrong with it
    version: int = 1
    sent: list = field(default_factory=list)  # in the open tick
    track: list = field(default_factory=lambda: [(0.0, 0.0, 0.0)])
    before: tuple = (0.0,) * SIZE
    idle: int = 0  # commands in a row that nobody drove

    def __post_init__(self):
        self.arbiter = Arbiter(self.config, DeviceRack([Device("joy", timeout=0.2)]))
        self.stops = math.ceil(max(0.15 / 1.0, 0.5 / 4.0) / PERIOD)

    def inputs(self):
        a, c = self.arbiter, self.config.limits
        if self.plugged:
            reading = Reading(self.hand is not None, self.hand or (0.0,) * SIZE)
            a.device_reading("joy", reading, self.now)
        if self.pose_lag is not None:
            lag = min(self.pose_lag, int(c.pose_latency / PERIOD + 1e-9))
            where = self.track[max(0, len(self.track) - 1 - lag)]
            if self.pose == "frame":
                a.refuse_pose("ee_pose is in frame 'world'", self.now)
            else:
                a.pose((math.nan, 0.0, 0.0) if self.pose else where, self.now)
        if self.time % 5 == 0:
            self.tick()

    def tick(self):
        self.stamp += 1
        if self.observing:
            sent, last = self.sent, self.before_action
            self.sent = []
            decision = self.arbiter.observe(self.stamp, self.stamp * 10**8, self.now)
            if decision:
                self.check_decision(decision, sent, last)
        if self.thinking:
            self.arbiter.policy_action(
                self.stamp, self.stamp * 10**8, self.action, self.version, self.now
            )

    @property
    def before_action(self):
        c = self.config.limits
        return tuple(v / s for v, s in zip(self.before, c.scales, strict=True))

    def check_decision(self, decision, sent, last):
        executed = [sum(column) / len(sent) for column in zip(*(a for a, _ in sent), strict=True)]
        assert decision.executed_action == pytest.approx(tuple(executed or last), abs=1e-12)
        assert decision.source == max((s for _, s in sent), default=Source.NONE)
        assert decision.source is not Source.OPERATOR or decision.intervention_id > 0

    def command(self):
        self.inputs()
        command, c = self.arbiter.output(self.now), self.config.limits
        twist, state = command.twist, self.arbiter.state
        self.sent.append((command.action, command.source))
        assert all(map(math.isfinite, twist))
        assert norm(twist[:3]) <= 0.15 * (1 + 1e-9) and abs(twist[3]) <= 0.5 * (1 + 1e-9)
        assert (command.source is Source.NONE) or state in DRIVING
        for part, up, down in ((slice(0, 3), 0.5, 1.0), (slice(3, 4), 2.0, 4.0)):
            change = norm([v - u for u, v in zip(self.before[part], twist[part], strict=True)])
            # The box may slow the arm down as hard as a stop; nothing turns it around harder.
            assert change <= max(up, down) * PERIOD * (1 + 1e-6)
            if norm(twist[part]) > norm(self.before[part]) + 1e-12:
                assert norm(twist[part]) - norm(self.before[part]) <= up * PERIOD * (1 + 1e-6)
        self.idle = self.idle + 1 if command.source is Source.NONE else 0
        assert self.idle < self.stops or not any(twist), "the longest stop is over"
        self.before = twist
        self.track.append(
            tuple(x + v * PERIOD for x, v in zip(self.track[-1], twist[:3], strict=True))
        )
        for low, x, high in zip(LOW, self.track[-1], HIGH, strict=True):
            assert low - 1e-9 <= x <= high + 1e-9
        assert c.velocity(twist) == twist[:3]
        self.now += PERIOD
        self.time += 1

    def happen(self, event, action, number):
        a = self.arbiter
        {
            "arm": lambda: a.arm(True),
            "disarm": lambda: a.arm(False),
            "stop": lambda: a.stop(True, publishers=1 + number % 2),
            "go": lambda: a.stop(False, publishers=1 + number % 3),
            "fault": lambda: a.fault("", "something"),
            "hold": lambda: a.hold("lock-step", "nothing comes"),
            "unhold": lambda: a.hold("lock-step", ""),
            "halt": lambda: a.hold_policy("adapter", HALTS[number % 2], "halted", self.now),
            "run": lambda: a.hold_policy("adapter", HoldReason.NONE, "", self.now),
            "begin": lambda: self.begin(number % 30),
            "end": lambda: a.end_episode(self.stamp * 10**8),
            "good": lambda: vars(self).update(action=action),
            "bad": lambda: vars(self).update(action=BAD[number % len(BAD)]),
            "old": lambda: vars(self).update(version=number % 3),
            "push": lambda: vars(self).update(hand=action, plugged=True),
            "rest": lambda: vars(self).update(hand=None, plugged=True),
            "broken": lambda: a.device_reading(
                "joy", Reading(True, BAD[number % len(BAD)]), self.now
            ),
            "unplug": lambda: vars(self).update(plugged=False),
            "blind": lambda: vars(self).update(pose_lag=None),
            "pose": lambda: vars(self).update(pose_lag=number % 4, pose=""),
            "bad pose": lambda: vars(self).update(pose_lag=0, pose=("frame", "nan")[number % 2]),
            "no observer": lambda: vars(self).update(observing=False),
            "no policy": lambda: vars(self).update(thinking=False),
            "nodes": lambda: vars(self).update(observing=True, thinking=True),
            "slow": lambda: setattr(a.limiter, "speed_scale", (1 + number % 10) / 10),
            "back": lambda: vars(self).update(now=self.now - 0.1 - number / 50),
            "forward": lambda: vars(self).update(now=self.now + 0.5 + number / 50),
        }[event]()

    def begin(self, steps):
        self.episode += 1
        self.arbiter.begin_episode(self.episode, self.stamp * 10**8, steps if steps > 20 else 0)

    def restore(self):
        """All as it should be, as a person would see to it."""
        for event in ("rest", "nodes", "unhold", "run", "pose"):
            self.happen(event, (), 0)
        self.action = (1.0, 0.3, 0.0, 1.0)
        for _ in range(20):
            self.command()
        self.arbiter.stop(False)
        assert self.arbiter.arm(True)[0], "no cause is left for ever"
        self.begin(0)
        for _ in range(30):
            self.command()
        assert self.arbiter.state is ControlState.POLICY, self.arbiter.reason


HALTS = (HoldReason.SERVO_STATUS, HoldReason.SERVO_PAUSED)
BAD = (
    (math.nan,) * SIZE,
    (0.0, math.inf, 0.0, 0.0),
    (0.0, 0.0, 0.0, -math.inf),
    (),
    (1.0,) * (SIZE - 1),
    (1.0,) * (SIZE + 3),
)
# What makes it drive comes more often than what stops it, else nothing ever moves.
EVENTS = ["arm", "begin", "good", "push", "rest", "pose", "nodes", "go", "run", "unhold"] * 3 + [
    "disarm", "stop", "fault", "hold", "halt", "end", "bad", "old", "broken", "unplug", "blind",
    "bad pose", "no observer", "no policy", "slow", "back", "forward",
]  # fmt: skip
ENTRY = st.sampled_from([-3.0, -1.0, -0.2, 0.0, 0.5, 1.0])
ACTION = st.tuples(ENTRY, ENTRY, ENTRY, ENTRY)
HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(EVENTS), ACTION, st.integers(0, 100), st.integers(1, 15)),
    max_size=40,
)
CONFIGS = st.builds(
    make_config,
    jerk=st.sampled_from([0.0, 10.0]),
    latency=st.sampled_from([0.0, 0.02, 0.06]),
    dwell=st.sampled_from([0.0, 0.1]),
    label_only=st.booleans(),
)
