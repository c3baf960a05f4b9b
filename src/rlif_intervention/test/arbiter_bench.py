"""The arbiter's core in simulated time, with its inputs: what the tests of the arbiter share."""

from __future__ import annotations

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.devices import Device, DeviceRack, Reading
from rlif_intervention.interventions import InterventionConfig
from rlif_intervention.limits import LimitConfig

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
                self.arbiter.pose(self.pose, self.now)
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
