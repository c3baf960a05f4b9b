"""A recorder for a learner in a process of its own, over DDS."""

from __future__ import annotations

import signal

from learner_graph import SMALL as SMALL
from learner_graph import START, step_message
from rlif_node.qos import LATCHED, REPLAY
from waiting import scaled

from rlif_msgs.msg import LearnerStatus, PolicyWeights, Step
from rlif_policy.networks import PolicySpec
from rlif_policy.weights import unpack_weights


class ReplayRig:
    """`statuses` and `weights` are what the learner published so far."""

    def __init__(self, node, start_node, spin_until, **parameters):
        self.node, self.spin_until = node, spin_until
        self.statuses, self.weights = [], []
        node.create_subscription(LearnerStatus, "learner_status", self.statuses.append, LATCHED)
        node.create_subscription(PolicyWeights, "weights", self.weights.append, LATCHED)
        self.replay = node.create_publisher(Step, "replay", REPLAY)
        self.learner = start_node("rlif_learner", "learner", **parameters)
        spin_until(lambda: self.statuses, "the first status", START)
        spin_until(self.replay.get_subscription_count, "the learner's subscription")

    def send(self, steps):
        for step in steps:
            self.replay.publish(step_message(step))

    def wait_for(self, steps):
        """The status in which that many steps were worked through; its weights have come."""
        self.spin_until(
            lambda: self.statuses[-1].steps == steps and self.statuses[-1].caught_up,
            f"{steps} steps worked through", 60.0,
        )  # fmt: skip
        version = self.statuses[-1].policy_version
        self.spin_until(
            lambda: not version or (self.weights and self.weights[-1].version >= version),
            "the newest weights",
        )
        return self.statuses[-1]

    def newest(self):
        """Spec and tensors of the weights received last."""
        message = self.weights[-1]
        spec = PolicySpec.from_json(message.spec)
        return spec, unpack_weights(bytes(message.data), message.sha256, spec)

    def end(self, process=None):
        """Interrupt the learner, or another process; its exit code and output."""
        process = process or self.learner
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=scaled(60))
        return process.returncode, output
