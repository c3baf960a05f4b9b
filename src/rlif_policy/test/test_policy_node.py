# SPDX-License-Identifier: Apache-2.0
"""The policy over DDS: one answer per observation, weights whole or not at all, cameras by name."""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import trunks
from policies import (
    LATCHED,
    PERIOD,
    STATE,
    PolicyRig,
    image_message,
    pictures,
    seeing,
    transferred,
    weights_message,
)
from rclpy.parameter import Parameter
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Image

from rlif_msgs.msg import PolicyHold, PolicyWeights
from rlif_policy import policy_node
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.policy_node import PolicyNode
from rlif_policy.stored_actor import StoredActor

pytestmark = pytest.mark.ros

SPEC = PolicySpec(4, 3, (16, 16))


def test_policy_answers_with_tick_stamp_and_action_of_the_network(graph):
    rig = PolicyRig(graph, deterministic=True)
    before = rig.ask()
    assert before.policy_version == 0 and before.action.tolist() == [0.0, 0.0, 0.0]
    actor = Actor(SPEC, 3)
    answer = rig.load(7, actor)
    assert to_ns(answer.header.stamp) == answer.tick * PERIOD
    np.testing.assert_allclose(answer.action, actor.act(STATE), atol=1e-5)


def test_policy_explores_unless_deterministic_which_is_set_at_any_time(graph):
    rig = PolicyRig(graph, seed=1)
    rig.load(1, Actor(SPEC))
    first, second = list(rig.ask().action), list(rig.ask().action)
    assert first != second
    (result,) = rig.node.set_parameters([Parameter("deterministic", value=True)])
    assert result.successful
    assert list(rig.ask().action) == list(rig.ask().action)


def test_policy_random_before_any_weights_stays_within_its_scale(graph):
    rig = PolicyRig(graph, initial="random", initial_scale=0.2)
    actions = np.array([rig.ask().action for _ in range(20)])
    assert np.abs(actions).max() <= 0.2 and np.abs(actions).max() > 0.02
    assert len(np.unique(actions)) == actions.size


# ---- weights


def with_data(data):
    data = bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return weights_message(2, Actor(SPEC, 3), data=array.array("B", data), sha256=sha256)


def not_finite():
    data = bytearray(weights_message(2, Actor(SPEC, 3)).data)
    data[-4:] = np.float32(np.nan).tobytes()
    return with_data(data)


BAD = {
    "not finite": not_finite,
    "damaged": lambda: weights_message(2, Actor(SPEC, 5), sha256="0" * 64),
    "other spec hash": lambda: weights_message(2, Actor(SPEC, 5), spec_hash="0" * 64),
    "other state": lambda: weights_message(2, Actor(PolicySpec(5, 3, (16, 16)))),
    "other action": lambda: weights_message(2, Actor(PolicySpec(4, 2, (16, 16)))),
    "other hidden": lambda: weights_message(2, Actor(PolicySpec(4, 3, (16,)))),
    "no spec": lambda: weights_message(2, Actor(SPEC), spec="{}", spec_hash=""),
    "pickle": lambda: with_data(b"\x80\x04."),
}


@pytest.mark.parametrize("what", BAD)
def test_policy_with_a_bad_set_logs_an_error_and_keeps_the_old_one(graph, what, capfd):
    rig = PolicyRig(graph, deterministic=True)
    expected = list(rig.load(1, Actor(SPEC, 3)).action)
    rig.weights.publish(BAD[what]())
    graph.until_logged("weights of version 2 refused, version 1 stays", capfd)
    answer = rig.ask()
    assert (answer.policy_version, list(answer.action)) == (1, expected)
    assert list(rig.load(3, Actor(SPEC, 4)).action) != expected


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "small"}, {"encoder": {"name": "vit"}}, {"images": [[2, 2, 3]]},
        {"encoder": {"name": "small", "frozen": True}}, {"images": []},
    ],
)  # fmt: skip
def test_policy_with_a_spec_that_cannot_be_built_goes_on(graph, capfd, change):
    """Regression: of an image of 2 x 2 pixels torch made a RuntimeError, which ended the policy."""
    actor, _ = seeing()
    rig = PolicyRig(graph)
    message = weights_message(2, actor)
    message.spec = json.dumps({**json.loads(message.spec), **change})
    with contextlib.suppress(ValueError):
        message.spec_hash = PolicySpec.from_json(message.spec).hash()
    rig.weights.publish(message)
    graph.until_logged("weights of version 2 refused, version 0 stays", capfd)
    rig.load(3, actor)


def test_policy_that_starts_after_the_weights_receives_them(graph):
    publisher = graph.node.create_publisher(PolicyWeights, "weights", LATCHED)
    publisher.publish(weights_message(9, Actor(SPEC)))
    PolicyRig(graph).ask_until(9)


def test_policy_changes_to_a_checkpoint_and_back_to_the_newest_weights(graph, monkeypatch):
    stored = StoredActor(SPEC, transferred(Actor(SPEC, 1)), 3, Path("checkpoints/000003"))
    monkeypatch.setattr(policy_node, "read_actor", lambda path: stored)
    rig = PolicyRig(graph, deterministic=True)
    rig.load(7, Actor(SPEC, 2))

    def change(**values):
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        return rig.node.set_parameters_atomically(parameters)

    assert change(learn=False, checkpoint="checkpoints/000003").successful
    rig.weights.publish(weights_message(8, Actor(SPEC, 2)))
    answer = rig.ask_until(3)
    np.testing.assert_allclose(answer.action, Actor(SPEC, 1).act(STATE), atol=1e-5)
    graph.until(lambda: rig.node._newest, "the weights that are not taken")
    assert rig.ask().policy_version == 3
    assert change(learn=True).successful
    rig.ask_until(8)


def test_policy_keeps_its_weights_where_a_checkpoint_cannot_be_read(graph):
    rig = PolicyRig(graph)
    rig.load(7, Actor(SPEC))
    (result,) = rig.node.set_parameters([Parameter("checkpoint", value="/nowhere")])
    assert not result.successful and "/nowhere" in result.reason
    assert rig.ask().policy_version == 7


# ---- observations


def test_policy_with_a_state_of_another_length_does_not_answer(graph, capfd):
    rig = PolicyRig(graph, deterministic=True)
    holds = graph.collect(PolicyHold, "policy_hold", of=rig.node)
    rig.load(1, Actor(SPEC, 3))
    rig.send([0.0] * 6)
    refused = rig.tick
    graph.until_logged("state of 6, expected 4", capfd)
    graph.until(lambda: holds and "state of 6" in holds[-1].reason, "the reason on policy_hold")
    assert (holds[-1].reason_code, holds[-1].source) == (PolicyHold.OTHER, "/policy")
    rig.ask()
    assert refused not in {m.tick for m in rig.answers}
    graph.until(lambda: holds[-1].reason_code == PolicyHold.NONE, "the end of the hold")


def test_policy_that_is_started_again_withdraws_its_hold(graph):
    rig = PolicyRig(graph)
    holds = []
    rig.node.create_subscription(PolicyHold, "policy_hold", holds.append, LATCHED)
    graph.until(lambda: holds, "a message without any observation")
    assert (holds[0].source, holds[0].reason_code) == ("/policy", PolicyHold.NONE)


def test_policy_that_is_behind_answers_the_newest_observation_alone(graph):
    """Regression: it answered ten old ones first, one after the other, and never caught up."""
    rig = PolicyRig(graph, deterministic=True)
    rig.ask()
    before = len(rig.answers)
    for _ in range(8):
        rig.send()
    graph.until(lambda: rig.answers[-1].tick == rig.tick, "the newest answer")
    assert len(rig.answers) - before <= 2  # one may have been on its way


@pytest.mark.parametrize("frozen", [None, True])
def test_policy_with_images_answers_what_the_network_does(graph, resnet_file, frozen):
    fields = {} if frozen is None else {"file": resnet_file, "frozen": True}
    rig = PolicyRig(graph, deterministic=True, encoder_weights=str(resnet_file))
    assert list(rig.ask(images=pictures()).action) == [0.0] * 3  # before any weights: hold
    for version in (1, 2):
        actor, _ = seeing(version, **fields)
        rig.load(version, actor)
        for seed in (0, 1):
            expected = actor.act(STATE, images=pictures(seed))
            np.testing.assert_allclose(rig.ask(images=pictures(seed)).action, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([], "images of (), expected ((40, 33, 3), (40, 33, 3))"),
        (
            [image_message(image) for image in pictures(images=((40, 33, 3), (20, 33, 3)))],
            "images of ((40, 33, 3), (20, 33, 3)), expected",
        ),
        (
            [image_message(image, "bgr8") for image in pictures()],
            "an image of 3960 bytes of bgr8, expected 33x40 of rgb8",
        ),
        (
            [Image(height=40, width=33, encoding="rgb8", data=array.array("B", bytes(30)))] * 2,
            "an image of 30 bytes of rgb8",
        ),
    ],
)
def test_policy_with_other_images_logs_why_and_does_not_answer(graph, capfd, images, text):
    rig = PolicyRig(graph)
    rig.load(1, seeing()[0])
    rig.send(images=images)
    refused = rig.tick
    graph.until_logged(f"no action: the observation has {text}", capfd)
    rig.ask(images=pictures())  # the next one is answered
    assert refused not in {answer.tick for answer in rig.answers}


def test_policy_with_cameras_in_another_order_finds_them_by_name(graph, capfd):
    """Regression: of two of one size the policy took the other one's image, and drove the arm by it."""
    actor, _ = seeing(cameras=("wrist", "fixed"))
    rig, (wrist, fixed) = PolicyRig(graph, deterministic=True), pictures()
    rig.load(1, actor)
    expected = actor.act(STATE, images=[wrist, fixed])
    named = {"fixed": fixed, "top": fixed[::-1].copy(), "wrist": wrist}
    for names in (("wrist", "fixed"), ("fixed", "wrist"), ("fixed", "top", "wrist")):
        rig.send(images=[image_message(named[name]) for name in names], names=names)
        graph.until(lambda: rig.answers[-1].tick == rig.tick, f"an answer to {names}")
        np.testing.assert_allclose(rig.answers[-1].action, expected, atol=1e-5)
    names = ("top", "wrist")
    rig.send(images=[image_message(named[name]) for name in names], names=names)
    refused = rig.tick
    graph.until_logged("found cameras top, wrist, expected wrist, fixed", capfd)
    rig.ask(images=pictures())  # without names they are taken in order
    assert refused not in {answer.tick for answer in rig.answers}


def test_policy_with_another_trunk_than_the_learners_refuses_its_weights(
    graph, resnet_file, tmp_path, capfd
):
    actor, _ = seeing(file=resnet_file, frozen=True)
    rig = PolicyRig(graph, encoder_weights=str(trunks.random_file(tmp_path, seed=1)))
    rig.weights.publish(weights_message(1, actor))
    graph.until_logged("weights of version 1 refused, version 0 stays: encoder_weights: ", capfd)
    answer = rig.ask(images=pictures())
    assert (answer.policy_version, list(answer.action)) == (0, [0.0] * 3)


def test_policy_without_an_encoder_ignores_images(graph):
    actor = Actor(SPEC, 3)
    rig = PolicyRig(graph, deterministic=True)
    rig.load(1, actor)
    for images in ([], pictures(), pictures()[:1]):
        np.testing.assert_allclose(rig.ask(images=images).action, actor.act(STATE), atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"checkpoint": "/nowhere"}, "found none at /nowhere"),
        ({"initial": "dance"}, "hold, random"),
    ],
)
def test_policy_with_a_wrong_configuration_is_refused_at_start(graph, parameters, text):
    with pytest.raises(ValueError, match=text):
        graph.add(PolicyNode, **parameters)
