"""A policy that sees: its weights on the wire, in a checkpoint and in NumPy, and the node over DDS."""

from __future__ import annotations

import array
import contextlib
import hashlib
import json

import numpy as np
import pytest
import torch
import trunks
from rclpy.qos import DurabilityPolicy, QoSProfile
from safetensors.torch import load, save
from sensor_msgs.msg import Image
from torch.nn.utils import parameters_to_vector

from rlif_msgs.msg import Observation, PolicyAction, PolicyWeights
from rlif_policy.encoders import ENCODERS, POOLINGS, EncoderSpec
from rlif_policy.inference import NumpyActor, StateError
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.policy_node import PolicyNode
from rlif_policy.stored_actor import read_actor
from rlif_policy.weights import WeightsError, pack_weights, unpack_weights

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
IMAGES = ((40, 33, 3), (40, 33, 3))
STATE = np.array([0.3, -0.2], np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return trunks.random_file(tmp_path_factory.mktemp("weights"))


def changed(spec, seed, trunk=None):
    """An actor of which all that is trained is no more what it was at the start."""
    actor, generator = Actor(spec, seed, trunk), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in actor.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * parameter.std(correction=0).clamp(0.1) * noise)
    return actor


def make_actor(file, seed=0, **fields):
    fields = {"features": 6, **fields}
    name, cameras = fields.pop("name", "small"), fields.pop("cameras", ())
    encoder, trunk = EncoderSpec(name, **fields), None
    if encoder.pretrained:
        encoder, trunk = trunks.random_trunk(file, name, **fields)
    spec = PolicySpec(2, 3, (16,), images=IMAGES, encoder=encoder, cameras=cameras)
    return changed(spec, seed, trunk), trunk


def pictures(seed=0, images=IMAGES):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in images]


def sent(actor):
    return unpack_weights(*pack_weights(actor, actor.spec), actor.spec)


# ---- weights


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fields", [{"name": "small"}, {"name": "resnet18", "frozen": True},
                                    {"name": "resnet18"}])  # fmt: skip
def test_a_seeing_policy_is_restored_exactly_on_the_other_side(file, fields, shared):
    actor, trunk = make_actor(file, seed=3, shared=shared, **fields)
    frozen = actor.spec.encoder.frozen
    spec = PolicySpec.from_json(actor.spec.to_json())
    tensors = unpack_weights(*pack_weights(actor, actor.spec), spec)
    seeing = {name for name in tensors if name.startswith("encoder.trunks.")}
    assert bool(seeing) == (not frozen)
    assert any(name.startswith("encoder.heads.") for name in tensors)
    # The receiver begins with other weights; of the trunk only where it is frozen it has the same.
    other = Actor(spec, seed=9, trunk=trunk if frozen else None)
    other.load_carried(tensors)
    for seed in range(3):
        found = other.act(STATE, images=pictures(seed))
        assert np.array_equal(found, actor.act(STATE, images=pictures(seed)))
        np.testing.assert_allclose(
            NumpyActor(spec, tensors, trunk if frozen else None).act(STATE, images=pictures(seed)),
            found, atol=2e-6,
        )  # fmt: skip


def test_a_fine_tuned_trunk_goes_with_its_statistics(file):
    """Regression: its counters, whole numbers, were sent as float32 and refused by the learner."""
    actor, trunk = make_actor(file, name="resnet18")
    tensors = sent(actor)
    counters = [v for n, v in tensors.items() if n.endswith("num_batches_tracked")]
    assert counters and all(v.dtype == torch.int64 for v in counters)
    means = {n: v for n, v in tensors.items() if n.endswith("running_mean")}
    for name, value in means.items():
        assert torch.equal(value, trunk[name.split(".", 3)[3]]), name
    assert len(means) == 2 * 20  # of two cameras


def test_a_frozen_trunk_costs_nothing_on_the_wire(file):
    actor, _ = make_actor(file, name="resnet18", frozen=True)
    assert len(pack_weights(actor, actor.spec)[0]) < 300_000 < file.stat().st_size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("encoder.heads.0.norm.bias"), "missing .*heads.0.norm.bias"),
        (lambda t: t.update({"encoder.trunks.2.0.bias": torch.zeros(3)}), "unknown .*trunks.2"),
        (lambda t: t["encoder.trunks.1.0.weight"].fill_(np.nan), "not finite: encoder.trunks.1"),
    ],
)
def test_other_weights_of_an_encoder_are_refused_by_name(file, change, words):
    actor, _ = make_actor(file)
    data, _ = pack_weights(actor, actor.spec)
    tensors = load(data)
    change(tensors)
    data = save(tensors)
    with pytest.raises(WeightsError, match=words):
        unpack_weights(data, hashlib.sha256(data).hexdigest(), actor.spec)


def test_part_of_the_weights_is_not_loaded(file):
    actor, _ = make_actor(file)
    for name in ("encoder.heads.1.norm.bias", "head.bias"):
        tensors = sent(actor)
        del tensors[name]
        with pytest.raises(ValueError, match=f"missing .*{name}"):
            Actor(actor.spec).load_carried(tensors)
    with pytest.raises(ValueError, match="unknown .*extra"):
        Actor(actor.spec).load_carried({**sent(actor), "extra": torch.zeros(1)})


# ---- NumPy


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ENCODERS)
def test_numpy_and_torch_agree_on_what_they_see(tmp_path, name, pooling):
    path = trunks.random_file(tmp_path, name) if ENCODERS[name].pretrained else None
    for frozen in (False, True) if path else (False,):
        actor, trunk = make_actor(path, 2, name=name, pooling=pooling, frozen=frozen, embeddings=2)
        numpy_actor = NumpyActor(actor.spec, sent(actor), trunk if frozen else None)
        again = NumpyActor(actor.spec, sent(actor), before=numpy_actor)  # the trunk from there
        actions = []
        for seed in range(2):
            actions.append(actor.act(STATE, images=pictures(seed)))
            for found in (numpy_actor, again):
                np.testing.assert_allclose(
                    found.act(STATE, images=pictures(seed)), actions[-1], atol=2e-5
                )
        assert abs(actions[0] - actions[1]).max() > 1e-4  # it does look


def test_images_that_are_missing_or_of_another_size_are_refused(file):
    actor, _ = make_actor(file)
    numpy_actor = NumpyActor(actor.spec, sent(actor))
    for bad, words in (
        ([], r"images of \(\), expected \(\(40, 33, 3\), \(40, 33, 3\)\)"),
        (pictures()[:1], r"images of \(\(40, 33, 3\),\)"),
        (pictures(images=((40, 33, 3), (33, 40, 3))), "image_width and image_height"),
    ):
        with pytest.raises(StateError, match=words):
            numpy_actor.act(STATE, images=bad)


def test_later_training_does_not_change_an_encoder_in_use(file):
    actor, _ = make_actor(file)
    numpy_actor = NumpyActor(actor.spec, actor.carried())  # not copied on the way
    before = numpy_actor.act(STATE, images=pictures())
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    assert np.array_equal(numpy_actor.act(STATE, images=pictures()), before)


# ---- checkpoints


@pytest.mark.parametrize("frozen", [False, True])
def test_a_stored_actor_sees_as_it_did(file, tmp_path, frozen):
    actor, trunk = make_actor(file, 4, name="resnet18", frozen=frozen)
    state = {"actor": parameters_to_vector(actor.decision_parameters()).detach()}
    state |= {n: v.contiguous() for n, v in actor.carried().items() if n.startswith("encoder.")}
    data = save(state)
    (tmp_path / "state.safetensors").write_bytes(data)
    text = json.dumps(
        {"spec": json.loads(actor.spec.to_json()), "state_sha256": hashlib.sha256(data).hexdigest()}
    ).encode()
    (tmp_path / "manifest.json").write_bytes(text)
    (tmp_path / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
    stored = read_actor(tmp_path)
    assert stored.spec == actor.spec
    found = NumpyActor(stored.spec, stored.tensors, trunk if frozen else None)
    np.testing.assert_allclose(
        found.act(STATE, images=pictures()), actor.act(STATE, images=pictures()), atol=2e-6
    )
    state.pop("encoder.heads.0.norm.bias")
    data = save(state)
    (tmp_path / "state.safetensors").write_bytes(data)
    text = text.replace(
        json.loads(text)["state_sha256"].encode(), hashlib.sha256(data).hexdigest().encode()
    )
    (tmp_path / "manifest.json").write_bytes(text)
    (tmp_path / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
    with pytest.raises(WeightsError, match="missing .*encoder.heads.0.norm.bias"):
        read_actor(tmp_path)


# ---- the node


def weights_message(version, actor):
    data, sha256 = pack_weights(actor, actor.spec)
    message = PolicyWeights(version=version, sha256=sha256)
    message.spec, message.spec_hash = actor.spec.to_json(), actor.spec.hash()
    message.data = array.array("B", data)
    return message


def image_message(pixels, encoding="rgb8", name=""):
    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    message.header.frame_id = name
    message.data = array.array("B", pixels.tobytes())
    return message


class Rig:
    """Shows the policy images and hears its answers."""

    def __init__(self, graph, **parameters):
        self.graph, self.tick = graph, 0
        self.node = graph.add(PolicyNode, deterministic=True, **parameters)
        self.answers = graph.collect(PolicyAction, "policy_action")
        self.observation = graph.publisher(Observation, "observation")
        self.weights = graph.publisher(PolicyWeights, "weights", LATCHED)
        graph.until(lambda: self.node.count_subscribers("policy_action"), "our own subscription")

    def send(self, images):
        self.tick += 1
        message = Observation(tick=self.tick, state=array.array("f", STATE))
        message.images = images
        self.observation.publish(message)

    def ask(self, images):
        self.send([image_message(image) for image in images])
        tick = self.tick
        self.graph.until(lambda: self.answers and self.answers[-1].tick == tick, f"answer {tick}")
        return self.answers[-1]

    def learn(self, version, actor):
        self.weights.publish(weights_message(version, actor))
        self.graph.until(
            lambda: self.ask(pictures()).policy_version == version, f"version {version}", 30.0
        )


@pytest.mark.ros
@pytest.mark.parametrize("fields", [{}, {"name": "resnet18", "frozen": True}])
def test_the_node_answers_what_it_sees(graph, file, fields):
    first, second = (make_actor(file, seed, **fields)[0] for seed in (1, 2))
    rig = Rig(graph, encoder_weights=str(file))
    assert list(rig.ask(pictures()).action) == [0.0] * 3  # before any weights: hold
    for version, actor in ((1, first), (2, second)):
        rig.learn(version, actor)
        for seed in (0, 1):
            expected = actor.act(STATE, images=pictures(seed))
            np.testing.assert_allclose(rig.ask(pictures(seed)).action, expected, atol=1e-5)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("images", "words"),
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
def test_other_images_are_not_answered_and_said(graph, file, capfd, images, words):
    actor, _ = make_actor(file)
    rig = Rig(graph)
    rig.learn(1, actor)
    rig.send(images)
    refused = rig.tick
    graph.hear(f"no action: the observation has {words}", capfd)
    rig.ask(pictures())  # the next one is
    assert refused not in {answer.tick for answer in rig.answers}


@pytest.mark.ros
def test_cameras_are_told_apart_by_name(graph, file, capfd):
    """Regression: of two of one size the policy took the other one's image, and drove the arm by it."""
    actor, _ = make_actor(file, cameras=("wrist", "fixed"))
    rig, (wrist, fixed) = Rig(graph), pictures()
    rig.learn(1, actor)
    expected = actor.act(STATE, images=[wrist, fixed])
    named = {"fixed": fixed, "top": fixed[::-1].copy(), "wrist": wrist}
    for names in (("wrist", "fixed"), ("fixed", "wrist"), ("fixed", "top", "wrist")):
        rig.send([image_message(named[name], name=name) for name in names])
        graph.until(lambda: rig.answers[-1].tick == rig.tick, f"an answer to {names}")
        np.testing.assert_allclose(rig.answers[-1].action, expected, atol=1e-5)
    rig.send([image_message(named[name], name=name) for name in ("top", "wrist")])
    refused = rig.tick
    graph.hear("found cameras top, wrist, expected wrist, fixed", capfd)
    rig.ask(pictures())  # whose names nobody knows
    assert refused not in {answer.tick for answer in rig.answers}


@pytest.mark.ros
def test_another_trunk_than_the_learners_refuses_its_weights(graph, file, tmp_path, capfd):
    actor, _ = make_actor(file, name="resnet18", frozen=True)
    rig = Rig(graph, encoder_weights=str(trunks.random_file(tmp_path, seed=1)))
    rig.weights.publish(weights_message(1, actor))
    graph.hear("weights of version 1 refused, version 0 stays: encoder_weights: ", capfd)
    answer = rig.ask(pictures())
    assert (answer.policy_version, list(answer.action)) == (0, [0.0] * 3)


@pytest.mark.ros
def test_a_policy_that_sees_nothing_ignores_images(graph):
    actor = Actor(PolicySpec(2, 3, (16,)), 3)
    rig = Rig(graph)
    rig.learn(1, actor)
    for images in ([], pictures(), pictures()[:1]):
        np.testing.assert_allclose(rig.ask(images).action, actor.act(STATE), atol=1e-5)


@pytest.mark.ros
@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "small"}, {"encoder": {"name": "vit"}}, {"images": [[2, 2, 3]]},
        {"encoder": {"name": "small", "frozen": True}}, {"images": []},
    ],
)  # fmt: skip
def test_a_spec_that_nothing_can_be_built_of_ends_no_node(graph, file, capfd, change):
    """Regression: of an image of 2 x 2 pixels torch made a RuntimeError, which ended the policy."""
    actor, _ = make_actor(file)
    rig = Rig(graph)
    message = weights_message(2, actor)
    message.spec = json.dumps({**json.loads(message.spec), **change})
    with contextlib.suppress(ValueError):
        message.spec_hash = PolicySpec.from_json(message.spec).hash()
    rig.weights.publish(message)
    graph.hear("weights of version 2 refused, version 0 stays", capfd)
    rig.learn(3, actor)
