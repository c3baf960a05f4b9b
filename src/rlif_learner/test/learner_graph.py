# SPDX-License-Identifier: Apache-2.0
"""A recorder and an observer for a learner and a policy, all nodes in the test's own process."""

from __future__ import annotations

import array
import functools
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.qos import LATCHED, RELIABLE, REPLAY
from rlif_node.stamps import to_msg
from waiting import wait_until

from rlif_learner.learner_node import LearnerNode
from rlif_msgs.msg import LearnerStatus, Observation, PolicyAction, PolicyWeights, Step
from rlif_policy.networks import PolicySpec
from rlif_policy.observer_messages import image_message
from rlif_policy.policy_node import PolicyNode
from rlif_policy.weights import unpack_weights

START = 90.0  # s; a process that imports torch takes a while where other tests run beside this one
ASK_AGAIN = 0.3  # s; an answer may be lost before the policy has discovered who listens
SMALL = {  # a learner that is quick
    "axes": ["a", "b"], "hidden": [8], "rlpd.hidden": [8], "rlpd.batch_size": 8,
    "rlpd.ensemble_size": 2, "rlpd.utd": 2, "warmup_steps": 10,
}  # fmt: skip


def parameters(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


def image_messages(images):
    return [image_message(image, Step().header) for image in images]


def step_message(step):
    """The message of a StepRecord."""
    message = Step(
        sequence=step.sequence, episode_id=step.episode_id, step_index=step.step_index,
        is_first=step.is_first, is_last=step.is_last, outcome=int(step.outcome),
        source=int(step.source), onset=step.onset, intervention_id=step.intervention_id,
        evaluation=step.evaluation,
    )  # fmt: skip
    message.header.stamp = to_msg(step.stamp)
    message.state = array.array("f", step.state.tobytes())
    message.executed_action = array.array("f", step.action.tobytes())
    message.images = image_messages(step.images)
    return message


class LearnerGraph:
    """`statuses` and `weights`: what the learner started last has published so far.

    robots: of a learner of several. `weights` are then those of the last one, `rows` the newest
    learner_status of each by its namespace.
    """

    def __init__(self, robots=()):
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.node, self.nodes, self.subscriptions = Node("test"), [], []
        self.executor.add_node(self.node)
        self.statuses, self.weights, self.answers, self.tick = [], [], [], 0
        self.robots, self.rows = robots or ("",), {}
        self.replays = {
            name: self.node.create_publisher(Step, self.topic(name, "replay"), REPLAY)
            for name in self.robots
        }
        self.observation = self.node.create_publisher(Observation, "observation", RELIABLE)
        self.node.create_subscription(PolicyAction, "policy_action", self.answers.append, RELIABLE)

    def topic(self, robot, name):
        return f"/{robot}/{name}" if robot else name

    @property
    def replay(self):
        return self.replays[self.robots[-1]]

    def until(self, condition, what, deadline=30.0):
        return wait_until(condition, what, deadline, lambda: self.executor.spin_once(0.02))

    def add(self, node):
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def remove(self, node):
        """End a node as its process would."""
        if isinstance(node, LearnerNode):
            node.close()
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def close(self):
        for node in list(self.nodes):
            self.remove(node)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    # ---- the learner

    def start_learner(self, **values):
        """In this process; returns when it is ready for Steps."""
        self.until(lambda: not self.replay.get_subscription_count(), "the end of the one before")
        learner = self.add(LearnerNode(parameters(**{**SMALL, **values})))
        self.listen()
        return learner

    def listen(self):
        """To a learner that was just started."""
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
        self.statuses, self.weights = [], []
        weights = self.topic(self.robots[-1], "weights")
        self.subscriptions = [
            self.node.create_subscription(LearnerStatus, "learner_status", self.statuses.append, LATCHED),
            self.node.create_subscription(PolicyWeights, weights, self.weights.append, LATCHED),
        ]  # fmt: skip
        for name in filter(None, self.robots):
            keep = functools.partial(self.rows.__setitem__, name)
            topic = self.topic(name, "learner_status")
            self.subscriptions.append(
                self.node.create_subscription(LearnerStatus, topic, keep, LATCHED)
            )
        self.until(lambda: self.statuses, "the first status", START)
        self.until(self.replay.get_subscription_count, "the learner's subscription")

    def restart_recorder(self):
        """It repeats nothing of what it sent before."""
        name = self.robots[-1]
        self.node.destroy_publisher(self.replays[name])
        self.replays[name] = self.node.create_publisher(Step, self.topic(name, "replay"), REPLAY)

    def send(self, steps):
        for step in steps:
            self.replays[step.robot].publish(step_message(step))

    def wait_for(self, steps):
        """The status in which that many steps were worked through; its weights have come."""
        self.until(
            lambda: self.statuses[-1].steps == steps and self.statuses[-1].caught_up,
            lambda: f"{steps} steps worked through; the last status: {self.statuses[-1]}", 60.0,
        )  # fmt: skip
        self.until(
            lambda: (
                not self.statuses[-1].policy_version
                or (self.weights and self.weights[-1].version >= self.statuses[-1].policy_version)
            ),
            "the newest weights",
        )
        return self.statuses[-1]

    def wait_for_message(self, words):
        """The message of the first status from now on in which these words are."""
        self.until(
            lambda: words in self.statuses[-1].message,
            lambda: f"{words!r}; the last message: {self.statuses[-1].message!r}",
        )
        return self.statuses[-1].message

    def newest(self):
        """Spec and tensors of the weights received last."""
        message = self.weights[-1]
        spec = PolicySpec.from_json(message.spec)
        return spec, unpack_weights(bytes(message.data), message.sha256, spec)

    # ---- the policy

    def start_policy(self, **values):
        policy = self.add(PolicyNode(parameters(axes=["a", "b"], deterministic=True, **values)))
        self.until(self.observation.get_subscription_count, "the policy")
        self.until(lambda: self.node.count_publishers("policy_action"), "its answers")
        return policy

    def show(self, step):
        self.tick += 1
        message = Observation(tick=self.tick, state=array.array("f", step.state))
        message.images = image_messages(step.images)
        self.observation.publish(message)
        return self.tick

    def ask(self, step, version):
        """The answer of weights of this version to what is shown again and again."""
        first, again = self.tick + 1, 0.0

        def answered():
            nonlocal again
            if time.monotonic() >= again:
                self.show(step)
                again = time.monotonic() + ASK_AGAIN
            return [a for a in self.answers if a.tick >= first and a.policy_version == version]

        return self.until(answered, f"an answer of version {version}", 40.0)[0]
