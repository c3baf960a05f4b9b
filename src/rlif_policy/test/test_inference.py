"""The forward pass in NumPy is that of the network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_policy.inference import NumpyActor, StateError
from rlif_policy.networks import Actor, PolicySpec


def trained(spec, seed=0):
    """An actor whose every weight, biases and norms too, is not what it was at the start."""
    actor = Actor(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return actor


@settings(max_examples=25, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
)
def test_numpy_and_torch_agree(layer_norm, scaled, seed, hidden):
    scales = {"state_offset": (0.1, -0.2, 3.0), "state_scale": (0.5, 2.0, 10.0)} if scaled else {}
    spec = PolicySpec(3, 2, tuple(hidden), layer_norm, **scales)
    actor = trained(spec, seed)
    numpy_actor = NumpyActor(spec, actor.state_dict())
    for state in np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32):
        np.testing.assert_allclose(numpy_actor.act(state), actor.act(state), atol=2e-5)


def test_the_noise_has_the_spread_of_the_network():
    spec = PolicySpec(3, 2, (16,))
    actor = trained(spec)
    state = np.array([0.3, -0.2, 0.1], np.float32)
    mean, log_std = actor(torch.from_numpy(state))
    numpy_actor, rng = NumpyActor(spec, actor.state_dict()), np.random.default_rng(0)
    raw = np.arctanh([numpy_actor.act(state, rng).astype(np.float64) for _ in range(4000)])
    np.testing.assert_allclose(raw.mean(0), mean.detach(), atol=0.1)
    np.testing.assert_allclose(raw.std(0), log_std.exp().detach(), rtol=0.1)


def test_later_training_does_not_change_an_actor_in_use():
    actor = trained(PolicySpec(3, 2, (16,)))
    numpy_actor = NumpyActor(actor.spec, actor.state_dict())
    state = np.ones(3, np.float32)
    before = numpy_actor.act(state)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    assert (numpy_actor.act(state) == before).all()


def test_a_state_of_another_length_and_one_that_is_not_finite_are_refused():
    numpy_actor = NumpyActor(PolicySpec(3, 2, (4,)), Actor(PolicySpec(3, 2, (4,))).state_dict())
    with pytest.raises(StateError, match="state of 4, expected 3"):
        numpy_actor.act(np.zeros(4, np.float32))
    with pytest.raises(StateError, match="not finite"):
        numpy_actor.act(np.array([0, np.nan, 0], np.float32))
