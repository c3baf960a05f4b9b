"""The policy's spec and actor."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlif_policy.networks import Actor, PolicySpec, squash

SPEC = PolicySpec(state_dim=4, action_dim=2, hidden=(16, 16))

specs = st.builds(
    PolicySpec,
    state_dim=st.integers(1, 50),
    action_dim=st.integers(1, 7),
    hidden=st.lists(st.integers(1, 512), min_size=1, max_size=4),
    layer_norm=st.booleans(),
    images=st.lists(st.tuples(*[st.integers(1, 256)] * 3), max_size=2),
)


@given(specs)
def test_spec_survives_json(spec):
    assert PolicySpec.from_json(spec.to_json()) == spec
    assert PolicySpec.from_json(spec.to_json()).hash() == spec.hash()


@given(specs, specs)
def test_hash_tells_specs_apart(one, two):
    assert (one.hash() == two.hash()) == (one == two)


def test_hash_is_the_same_in_every_process():
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
def test_bad_field_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        PolicySpec(**{"state_dim": 4, "action_dim": 2, name: value})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"state_dim": 3}', '{"state_dim":1,"action_dim":1,"x":1}']
)
def test_json_of_something_else_is_refused(text):
    with pytest.raises(ValueError, match="policy spec"):
        PolicySpec.from_json(text)


def test_act_gives_float32_actions_in_range():
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
def test_bad_state_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        Actor(SPEC).act(state)


def test_seed_decides_weights_and_noise_alone():
    states = np.zeros(4)
    torch.manual_seed(0)
    one = Actor(SPEC, seed=7)
    torch.manual_seed(1)
    two, other = Actor(SPEC, seed=7), Actor(SPEC, seed=8)
    assert np.array_equal(one.act(states, False), two.act(states, False))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_state_is_normalised_with_the_spec():
    plain = Actor(SPEC, seed=1)
    spec = PolicySpec(4, 2, (16, 16), state_offset=(1, 2, 3, 4), state_scale=(2, 2, 4, 4))
    scaled = Actor(spec, seed=1)
    state = np.array([3.0, 2.0, -1.0, 0.0])
    expected = plain.act((state - [1, 2, 3, 4]) / [2, 2, 4, 4])
    np.testing.assert_allclose(scaled.act(state), expected, atol=1e-6)


def test_log_probability_is_that_of_the_squashed_gaussian():
    mean, log_std = torch.tensor([0.3, -0.2]), torch.tensor([-0.5, 0.1])
    noise = torch.tensor([0.7, -1.1])
    action, log_prob = squash(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected = normal.log_prob(torch.atanh(action)) - torch.log(1 - action.square())
    assert log_prob.item() == pytest.approx(expected.sum().item(), abs=1e-5)


def test_log_probability_is_finite_where_tanh_saturates():
    action, log_prob = squash(torch.tensor([60.0]), torch.tensor([0.0]), torch.tensor([1.0]))
    assert action.item() == 1.0
    assert math.isfinite(log_prob.item())


def test_images_have_no_encoder_yet():
    with pytest.raises(ValueError, match="encoder"):
        Actor(PolicySpec(4, 2, images=((64, 64, 3),)))
