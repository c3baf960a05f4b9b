# SPDX-License-Identifier: Apache-2.0
"""The forward pass in NumPy is that of the network, with images and without."""

import numpy as np
import pytest
import torch
import trunks
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policies import STATE, pictures, seeing, trained, transferred

from rlif_policy.encoders import POOLINGS
from rlif_policy.inference import NumpyActor, StateError
from rlif_policy.networks import Actor, PolicySpec


@settings(max_examples=25, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
)
@example(True, True, 1, [34, 2, 7])
def test_numpy_actor_gives_the_actions_of_torch(layer_norm, scaled, seed, hidden):
    if layer_norm:  # of two nearly equal values it would enlarge their rounding a hundredfold
        hidden = [max(8, width) for width in hidden]
    scales = {"state_offset": (0.1, -0.2, 3.0), "state_scale": (0.5, 2.0, 10.0)} if scaled else {}
    spec = PolicySpec(3, 2, tuple(hidden), layer_norm, **scales)
    actor = trained(spec, seed)
    numpy_actor = NumpyActor(spec, actor.state_dict())
    for state in np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32):
        np.testing.assert_allclose(numpy_actor.act(state), actor.act(state), atol=2e-5)


def test_numpy_actor_noise_has_the_spread_of_the_network():
    spec = PolicySpec(3, 2, (16,))
    actor = trained(spec)
    state = np.array([0.3, -0.2, 0.1], np.float32)
    mean, log_std = actor(torch.from_numpy(state))
    numpy_actor, rng = NumpyActor(spec, actor.state_dict()), np.random.default_rng(0)
    raw = np.arctanh([numpy_actor.act(state, rng).astype(np.float64) for _ in range(4000)])
    np.testing.assert_allclose(raw.mean(0), mean.detach(), atol=0.1)
    np.testing.assert_allclose(raw.std(0), log_std.exp().detach(), rtol=0.1)


@pytest.mark.parametrize("actor", [trained(PolicySpec(4, 2, (16,))), seeing()[0]])
def test_numpy_actor_in_use_is_not_changed_by_later_training(actor):
    images = pictures() if actor.spec.images else ()
    numpy_actor = NumpyActor(actor.spec, actor.export_state_dict())  # not copied on the way
    before = numpy_actor.act(STATE, images=images)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    assert np.array_equal(numpy_actor.act(STATE, images=images), before)


def test_numpy_actor_with_a_wrong_state_raises():
    numpy_actor = NumpyActor(PolicySpec(3, 2, (4,)), Actor(PolicySpec(3, 2, (4,))).state_dict())
    with pytest.raises(StateError, match="state of 4, expected 3"):
        numpy_actor.act(np.zeros(4, np.float32))
    with pytest.raises(StateError, match="not finite"):
        numpy_actor.act(np.array([0, np.nan, 0], np.float32))


# ---- with images


def check_images_agree(actor, trunk):
    frozen = trunk if actor.spec.encoder.frozen else None
    numpy_actor = NumpyActor(actor.spec, transferred(actor), frozen)
    again = NumpyActor(actor.spec, transferred(actor), before=numpy_actor)  # the trunk from there
    actions = []
    for seed in range(2):
        actions.append(actor.act(STATE, images=pictures(seed)))
        for found in (numpy_actor, again):
            np.testing.assert_allclose(
                found.act(STATE, images=pictures(seed)), actions[-1], atol=2e-5
            )
    assert abs(actions[0] - actions[1]).max() > 1e-4  # the images count


@pytest.mark.parametrize("pooling", POOLINGS)
def test_numpy_actor_with_each_pooling_gives_the_actions_of_torch(pooling):
    check_images_agree(*seeing(2, pooling=pooling, embeddings=2))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        pytest.param("resnet18", "spatial_embedding", marks=pytest.mark.slow),
        pytest.param("efficientnet_b3", "spatial_softmax", marks=pytest.mark.slow),
    ],
)
def test_numpy_actor_with_each_trunk_gives_the_actions_of_torch(tmp_path, name, pooling):
    file = trunks.random_file(tmp_path, name)
    for frozen in (False, True):
        check_images_agree(*seeing(2, file, name, pooling=pooling, frozen=frozen, embeddings=2))


def test_numpy_actor_with_missing_or_other_images_raises():
    actor, _ = seeing()
    numpy_actor = NumpyActor(actor.spec, transferred(actor))
    for bad, text in (
        ([], r"images of \(\), expected \(\(40, 33, 3\), \(40, 33, 3\)\)"),
        (pictures()[:1], r"images of \(\(40, 33, 3\),\)"),
        (pictures(images=((40, 33, 3), (33, 40, 3))), "image_width and image_height"),
    ):
        with pytest.raises(StateError, match=text):
            numpy_actor.act(STATE, images=bad)
