# SPDX-License-Identifier: Apache-2.0
"""The policy's spec and actor."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import seeing

from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import LEAST_SCALE, Actor, PolicySpec, camera_places, squash

SPEC = PolicySpec(state_dim=4, action_dim=2, hidden=(16, 16))

encoders = st.builds(
    EncoderSpec,
    name=st.sampled_from(["small", "resnet18"]),
    features=st.integers(1, 99),
    shared=st.booleans(),
    trunk=st.sampled_from(["", "0" * 64]),
)


@st.composite
def specs(draw):
    """With images and an encoder of them, or with neither."""
    images = draw(st.lists(st.tuples(*[st.integers(1, 256)] * 3), max_size=2))
    return PolicySpec(
        state_dim=draw(st.integers(1, 50)),
        action_dim=draw(st.integers(1, 7)),
        hidden=draw(st.lists(st.integers(1, 512), min_size=1, max_size=4)),
        layer_norm=draw(st.booleans()),
        images=images,
        encoder=draw(encoders) if images else None,
    )


@given(specs())
def test_spec_of_its_own_json_is_equal(spec):
    assert PolicySpec.from_json(spec.to_json()) == spec
    assert PolicySpec.from_json(spec.to_json()).hash() == spec.hash()


@given(specs(), specs())
def test_spec_hash_of_different_specs_differs(one, two):
    assert (one.hash() == two.hash()) == (one == two)


def test_spec_hash_is_the_same_in_every_process():
    """Both ends compute it on their own; this is what it is today."""
    assert len(SPEC.hash()) == 64
    assert json.loads(SPEC.to_json())["hidden"] == [16, 16]
    assert SPEC.hash() == PolicySpec(4, 2, [16, 16]).hash()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state_dim", 0), ("action_dim", 1.5), ("hidden", ()), ("hidden", (0,)),
        ("layer_norm", "yes"), ("images", ((64, 64),)), ("state_offset", (1.0,)),
        ("state_scale", (1.0, 0.0, 1.0, 1.0)), ("state_offset", (0.0, 0.0, 0.0, float("nan"))),
    ],
)  # fmt: skip
def test_spec_with_a_bad_field_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        PolicySpec(**{"state_dim": 4, "action_dim": 2, name: value})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"state_dim": 3}', '{"state_dim":1,"action_dim":1,"x":1}']
)
def test_spec_of_other_json_raises(text):
    with pytest.raises(ValueError, match="policy spec"):
        PolicySpec.from_json(text)


def test_actor_act_gives_float32_actions_in_range():
    actor = Actor(SPEC)
    state = np.random.default_rng(0).normal(size=4) * 100
    for deterministic in (True, False):
        action = actor.act(state, deterministic)
        assert action.shape == (2,)
        assert action.dtype == np.float32
        assert (np.abs(action) <= 1).all()
    assert np.array_equal(actor.act(state, True), actor.act(state, True))
    assert not np.array_equal(actor.act(state, False), actor.act(state, False))


@pytest.mark.parametrize(
    ("state", "message"), [(np.zeros(3), r"\(3,\)"), (np.array([0, np.inf, 0, 0]), r"\[1\]")]
)
def test_actor_act_with_a_bad_state_raises(state, message):
    with pytest.raises(ValueError, match=message):
        Actor(SPEC).act(state)


def test_actor_seed_alone_decides_weights_and_noise():
    states = np.zeros(4)
    torch.manual_seed(0)
    one = Actor(SPEC, seed=7)
    torch.manual_seed(1)
    two, other = Actor(SPEC, seed=7), Actor(SPEC, seed=8)
    assert np.array_equal(one.act(states, False), two.act(states, False))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_actor_with_a_normaliser_applies_it_to_the_state():
    plain = Actor(SPEC, seed=1)
    spec = PolicySpec(4, 2, (16, 16), state_offset=(1, 2, 3, 4), state_scale=(2, 2, 4, 4))
    scaled = Actor(spec, seed=1)
    state = np.array([3.0, 2.0, -1.0, 0.0])
    expected = plain.act((state - [1, 2, 3, 4]) / [2, 2, 4, 4])
    np.testing.assert_allclose(scaled.act(state), expected, atol=1e-6)


def test_normaliser_fitted_to_states_has_their_mean_and_a_scale_that_is_not_too_small():
    normaliser = seeing()[0].normaliser
    states = np.array([[1.0, 5.0, 0.0, -8.0], [7.0, 5.0, 0.004, -4.0]])  # the second never changes
    normaliser.fit(states)
    np.testing.assert_allclose(normaliser.offset[:4], [4.0, 5.0, 0.002, -6.0], atol=1e-6)
    np.testing.assert_allclose(normaliser.scale[:4], [3.0, 1.0, LEAST_SCALE, 2.0])
    features = slice(4, None)  # of the encoder, which stay as they are
    assert (normaliser.scale[features] == 1.0).all() and not normaliser.offset[features].any()


def test_squash_gives_the_log_probability_of_the_squashed_gaussian():
    mean, log_std = torch.tensor([0.3, -0.2]), torch.tensor([-0.5, 0.1])
    noise = torch.tensor([0.7, -1.1])
    action, log_prob = squash(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected = normal.log_prob(torch.atanh(action)) - torch.log(1 - action.square())
    assert log_prob.item() == pytest.approx(expected.sum().item(), abs=1e-5)


def test_squash_where_tanh_saturates_gives_a_finite_log_probability():
    action, log_prob = squash(torch.tensor([60.0]), torch.tensor([0.0]), torch.tensor([1.0]))
    assert action.item() == 1.0
    assert math.isfinite(log_prob.item())


def test_spec_with_images_or_an_encoder_alone_raises():
    images = ((64, 64, 3),)
    for fields in ({"images": images}, {"encoder": EncoderSpec()}):
        with pytest.raises(ValueError, match="expected both or neither"):
            PolicySpec(4, 2, **fields)
    with pytest.raises(ValueError, match="encoder: found 'small', expected its fields"):
        PolicySpec(4, 2, images=images, encoder="small")
    with pytest.raises(ValueError, match="unknown fields"):
        PolicySpec(4, 2, images=images, encoder={"kind": "small"})


def test_spec_without_images_is_written_as_before_there_were_encoders():
    """Their hashes are in weights messages and checkpoints."""
    assert "encoder" not in json.loads(SPEC.to_json())
    assert SPEC.hash() == "f03202a574533dcd917dd52978e8569b18b28a5880d1ddccabad227357ea8431"
    seeing = PolicySpec(4, 2, images=((64, 64, 3),) * 2, encoder=EncoderSpec(features=7))
    assert (SPEC.feature_dim, seeing.feature_dim) == (4, 4 + 2 * 7)


def test_actor_with_a_normaliser_leaves_the_image_features_as_they_are():
    images, offset, scale = ((8, 8, 3),), (1.0, -2.0), (4.0, 0.5)
    encoder = EncoderSpec(features=3)
    plain = Actor(PolicySpec(2, 1, (8,), images=images, encoder=encoder), seed=2)
    scaled = Actor(PolicySpec(2, 1, (8,), False, images, offset, scale, encoder), seed=2)
    image = np.random.default_rng(0).integers(0, 256, images[0], dtype=np.uint8)
    state = np.array([3.0, -1.0])
    expected = plain.act((state - offset) / scale, images=[image])
    np.testing.assert_allclose(scaled.act(state, images=[image]), expected, atol=1e-6)
    assert abs(scaled.act(state, images=[255 - image]) - expected).max() > 1e-4


def test_actor_with_images_acts_on_each_and_refuses_others():
    spec = PolicySpec(2, 3, (8,), images=((8, 12, 3), (9, 9, 3)), encoder=EncoderSpec(features=3))
    actor, rng = Actor(spec), np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in spec.images]
    action = actor.act(np.zeros(2), images=images)
    assert action.shape == (3,) and (abs(action) <= 1).all()
    for i in range(2):  # each camera counts
        other = [255 - image if i == j else image for j, image in enumerate(images)]
        assert not np.array_equal(actor.act(np.zeros(2), images=other), action)
    for bad in ([], images[:1], images[::-1], [*images, images[0]]):
        with pytest.raises(ValueError, match="images: found"):
            actor.act(np.zeros(2), images=bad)


def test_actor_decision_parameters_are_all_but_the_encoders():
    spec = PolicySpec(2, 1, (8,), images=((8, 8, 3),), encoder=EncoderSpec())
    actor = Actor(spec)
    names = {id(p): name for name, p in actor.named_parameters()}
    chosen = [names[id(p)] for p in actor.decision_parameters()]
    assert chosen == [name for name in names.values() if not name.startswith("encoder.")]
    blind = Actor(SPEC)
    assert list(blind.decision_parameters()) == list(blind.parameters())


def test_load_exported_of_a_part_or_of_more_names_the_tensor():
    actor, _ = seeing()
    for name in ("encoder.heads.1.norm.bias", "head.bias"):
        tensors = actor.export_state_dict()
        del tensors[name]
        with pytest.raises(ValueError, match=f"missing .*{name}"):
            Actor(actor.spec).load_exported(tensors)
    with pytest.raises(ValueError, match="unknown .*extra"):
        Actor(actor.spec).load_exported({**actor.export_state_dict(), "extra": torch.zeros(1)})


# ---- cameras by name


NAMES = st.lists(st.sampled_from(["wrist", "fixed", "top", "side"]), unique=True)


@given(NAMES, NAMES)
def test_camera_places_of_any_order_are_found_by_name(expected, found):
    if not set(expected) <= set(found) and found:
        with pytest.raises(ValueError, match="is missing"):
            camera_places(expected, found)
        return
    places = camera_places(expected, found)
    if expected and found:
        assert [found[place] for place in places] == expected
    else:
        assert places == tuple(range(len(found)))


def test_camera_places_without_names_are_in_order():
    assert camera_places(("wrist", "fixed"), ("", "")) == camera_places((), ("a", "b")) == (0, 1)


@pytest.mark.parametrize("names", [("wrist",), ("wrist", "wrist"), ("a", "b", "c")])
def test_spec_with_camera_names_that_do_not_fit_raises(names):
    images = ((8, 8, 3), (8, 8, 3))
    with pytest.raises(ValueError, match="cameras: found .*a name of its own for each"):
        PolicySpec(4, 2, images=images, encoder=EncoderSpec(), cameras=names)


def test_spec_without_camera_names_is_written_as_before_there_were_any():
    spec = PolicySpec(4, 2, images=((8, 8, 3),), encoder=EncoderSpec())
    assert "cameras" not in spec.to_json()
    named = PolicySpec(4, 2, images=((8, 8, 3),), encoder=EncoderSpec(), cameras=("wrist",))
    assert PolicySpec.from_json(named.to_json()) == named and named.hash() != spec.hash()
