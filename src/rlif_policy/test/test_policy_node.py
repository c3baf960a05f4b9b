"""The policy over DDS: one answer per observation, weights whole or not at all."""

import array
import hashlib

import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rlif_node.stamps import to_msg, to_ns

from rlif_msgs.msg import Observation, PolicyAction, PolicyWeights
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.policy_node import PolicyNode
from rlif_policy.weights import pack_weights

pytestmark = pytest.mark.ros

SPEC = PolicySpec(4, 3, (16, 16))
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATE = [0.1, -0.2, 0.3, 0.4]


def weights_message(version, actor, **changes):
    data, sha256 = pack_weights(actor, actor.spec)
    message = PolicyWeights(version=version, sha256=sha256)
    message.spec, message.spec_hash = actor.spec.to_json(), actor.spec.hash()
    message.data = array.array("B", data)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


class Rig:
    """Asks the policy and hears its answers."""

    def __init__(self, graph, **parameters):
        self.graph, self.tick = graph, 0
        self.node = graph.add(PolicyNode, **parameters)
        self.answers = graph.collect(PolicyAction, "policy_action")
        self.observation = graph.publisher(Observation, "observation")
        graph.until(lambda: self.node.count_subscribers("policy_action"), "our own subscription")

    def send(self, state=STATE):
        self.tick += 1
        message = Observation(tick=self.tick, state=state)
        message.header.stamp = to_msg(self.tick * 100_000_000)
        self.observation.publish(message)

    def ask(self, state=STATE):
        self.send(state)
        tick = self.tick
        self.graph.until(lambda: self.answers and self.answers[-1].tick == tick, f"answer {tick}")
        return self.answers[-1]

    def learn(self, message):
        if not hasattr(self, "weights"):
            self.weights = self.graph.publisher(PolicyWeights, "weights", LATCHED)
        self.weights.publish(message)

    def ask_until_version(self, version):
        self.graph.until(lambda: self.ask().policy_version == version, f"version {version}")
        return self.answers[-1]


def test_it_answers_with_tick_stamp_and_the_action_of_the_network(graph):
    rig = Rig(graph, deterministic=True)
    before = rig.ask()
    assert before.policy_version == 0 and before.action.tolist() == [0.0, 0.0, 0.0]
    actor = Actor(SPEC, 3)
    rig.learn(weights_message(7, actor))
    answer = rig.ask_until_version(7)
    assert to_ns(answer.header.stamp) == answer.tick * 100_000_000
    np.testing.assert_allclose(answer.action, actor.act(np.float32(STATE)), atol=1e-5)


def test_it_explores_unless_deterministic_which_can_be_set_at_any_time(graph):
    rig = Rig(graph, seed=1)
    rig.learn(weights_message(1, Actor(SPEC)))
    rig.ask_until_version(1)
    first, second = list(rig.ask().action), list(rig.ask().action)
    assert first != second
    (result,) = rig.node.set_parameters([Parameter("deterministic", value=True)])
    assert result.successful
    assert list(rig.ask().action) == list(rig.ask().action)


def test_random_before_any_weights_stays_within_its_scale(graph):
    rig = Rig(graph, initial="random", initial_scale=0.2)
    actions = np.array([rig.ask().action for _ in range(20)])
    assert np.abs(actions).max() <= 0.2 and np.abs(actions).max() > 0.02
    assert len(np.unique(actions)) == actions.size


def not_finite():
    message = weights_message(2, Actor(SPEC, 3))
    data = bytearray(message.data)
    data[-4:] = np.float32(np.nan).tobytes()
    message.data, message.sha256 = array.array("B", data), hashlib.sha256(data).hexdigest()
    return message


BAD = {
    "not finite": not_finite,
    "damaged": lambda: weights_message(2, Actor(SPEC, 5), sha256="0" * 64),
    "other spec hash": lambda: weights_message(2, Actor(SPEC, 5), spec_hash="0" * 64),
    "other state": lambda: weights_message(2, Actor(PolicySpec(5, 3, (16, 16)))),
    "other action": lambda: weights_message(2, Actor(PolicySpec(4, 2, (16, 16)))),
    "other hidden": lambda: weights_message(2, Actor(PolicySpec(4, 3, (16,)))),
    "no spec": lambda: weights_message(2, Actor(SPEC), spec="{}", spec_hash=""),
    "pickle": lambda: weights_message(
        2,
        Actor(SPEC),
        data=array.array("B", b"\x80\x04."),
        sha256=hashlib.sha256(b"\x80\x04.").hexdigest(),
    ),  # fmt: skip
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_set_is_refused_with_an_error_and_the_old_one_stays(graph, what, capfd):
    rig = Rig(graph, deterministic=True)
    good = Actor(SPEC, 3)
    rig.learn(weights_message(1, good))
    expected = list(rig.ask_until_version(1).action)
    rig.learn(BAD[what]())
    graph.hear("weights of version 2 refused, version 1 stays", capfd)
    answer = rig.ask()
    assert (answer.policy_version, list(answer.action)) == (1, expected)
    rig.learn(weights_message(3, Actor(SPEC, 4)))
    assert list(rig.ask_until_version(3).action) != expected


def test_a_state_of_another_length_is_not_answered(graph, capfd):
    rig = Rig(graph, deterministic=True)
    rig.learn(weights_message(1, Actor(SPEC, 3)))
    rig.ask_until_version(1)
    rig.send([0.0] * 6)
    refused = rig.tick
    graph.hear("state of 6, expected 4", capfd)
    rig.ask()
    assert refused not in {m.tick for m in rig.answers}


def test_a_policy_that_is_behind_answers_the_newest_observation_alone(graph):
    """Regression: it answered ten old ones first, one after the other, and never caught up."""
    rig = Rig(graph, deterministic=True)
    rig.ask()
    before = len(rig.answers)
    for _ in range(8):
        rig.send([0.0] * 4)
    graph.until(lambda: rig.answers[-1].tick == rig.tick, "the newest answer")
    assert len(rig.answers) - before <= 2  # one may have been on its way


def test_late_weights_reach_a_policy_that_starts_after_them(graph):
    publisher = graph.node.create_publisher(PolicyWeights, "weights", LATCHED)
    publisher.publish(weights_message(9, Actor(SPEC)))
    rig = Rig(graph)
    rig.ask_until_version(9)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"checkpoint": "/nowhere"}, "found none at /nowhere"),
        ({"initial": "dance"}, "hold, random"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_moves(graph, parameters, words):
    with pytest.raises(ValueError, match=words):
        graph.add(PolicyNode, **parameters)
