# SPDX-License-Identifier: Apache-2.0
"""Weights on the wire: nothing but a complete, intact set of the right network gets through."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import STATE, pictures, seeing, transferred
from safetensors.torch import load, save

from rlif_policy.inference import NumpyActor
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.weights import WeightsError, pack_weights, unpack_weights

SPEC = PolicySpec(state_dim=4, action_dim=2, hidden=(8, 8))
DATA, SHA = pack_weights(Actor(SPEC, seed=1), SPEC)


def repacked(change, data=DATA):
    """The good weights with `change` applied, and the right hash of the result."""
    tensors = load(data)
    change(tensors)
    data = save(tensors)
    return data, hashlib.sha256(data).hexdigest()


def test_weights_packed_and_unpacked_are_the_same():
    sender, receiver = Actor(SPEC, seed=1), Actor(SPEC, seed=2)
    receiver.load_state_dict(unpack_weights(DATA, SHA, SPEC))
    state = np.ones(4)
    assert np.array_equal(sender.act(state), receiver.act(state))


def test_packed_weights_are_not_changed_by_later_training():
    actor = Actor(SPEC, seed=1)
    data, sha = pack_weights(actor, SPEC)
    with torch.no_grad():
        actor.head.bias.add_(1.0)
    assert unpack_weights(data, sha, SPEC)["head.bias"].abs().max() == 0.0


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_unpack_weights_with_any_byte_changed_raises(position, flip):
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    with pytest.raises(WeightsError, match="damaged"):
        unpack_weights(bytes(damaged), SHA, SPEC)


@given(st.integers(0, len(DATA) - 1))
def test_unpack_weights_of_part_of_the_bytes_raises(length):
    with pytest.raises(WeightsError, match="damaged"):
        unpack_weights(DATA[:length], SHA, SPEC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), r"missing \['head.bias'\]"),
        (lambda t: t.update(extra=torch.zeros(1)), r"unknown \['extra'\]"),
        (lambda t: t.update({"head.bias": torch.zeros(5)}), r"head.bias is \(5,\)"),
        (lambda t: t.update({"head.bias": torch.zeros(4).double()}), "float64"),
        (lambda t: t["head.bias"].fill_(float("nan")), "not finite: head.bias"),
    ],
)
def test_unpack_weights_with_other_tensors_names_them(change, message):
    with pytest.raises(WeightsError, match=message):
        unpack_weights(*repacked(change), SPEC)


def test_unpack_weights_of_another_network_raises():
    with pytest.raises(WeightsError, match="another network"):
        unpack_weights(DATA, SHA, PolicySpec(4, 3, (8, 8)))


def test_unpack_weights_of_arbitrary_bytes_with_their_hash_raises():
    junk = b"\x80\x04not safetensors" * 10
    with pytest.raises(WeightsError, match="not safetensors"):
        unpack_weights(junk, hashlib.sha256(junk).hexdigest(), SPEC)


def test_pack_weights_that_are_not_finite_raises():
    actor = Actor(SPEC)
    with torch.no_grad():
        actor.head.bias.fill_(float("inf"))
    with pytest.raises(WeightsError, match="head.bias"):
        pack_weights(actor, SPEC)


# ---- of policies with images


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "trunk_is", ["small", "frozen", pytest.param("fine-tuned", marks=pytest.mark.slow)]
)
def test_weights_with_an_encoder_are_restored_exactly(resnet_file, trunk_is, shared):
    frozen = trunk_is == "frozen"
    file = None if trunk_is == "small" else resnet_file
    actor, trunk = seeing(3, file, shared=shared, frozen=frozen)
    spec = PolicySpec.from_json(actor.spec.to_json())
    tensors = unpack_weights(*pack_weights(actor, actor.spec), spec)
    assert any(name.startswith("encoder.trunks.") for name in tensors) == (not frozen)
    assert any(name.startswith("encoder.heads.") for name in tensors)
    # The receiver begins with other weights; of the trunk only where it is frozen it has the same.
    other = Actor(spec, seed=9, trunk=trunk if frozen else None)
    other.load_exported(tensors)
    numpy_actor = NumpyActor(spec, tensors, trunk if frozen else None)
    for seed in range(3):
        found = other.act(STATE, images=pictures(seed))
        assert np.array_equal(found, actor.act(STATE, images=pictures(seed)))
        np.testing.assert_allclose(numpy_actor.act(STATE, images=pictures(seed)), found, atol=2e-6)


@pytest.mark.slow
def test_weights_of_a_fine_tuned_trunk_have_its_statistics(resnet_file):
    """Regression: its counters, whole numbers, were sent as float32 and refused by the learner."""
    actor, trunk = seeing(file=resnet_file)
    tensors = transferred(actor)
    counters = [v for n, v in tensors.items() if n.endswith("num_batches_tracked")]
    assert counters and all(v.dtype == torch.int64 for v in counters)
    means = {n: v for n, v in tensors.items() if n.endswith("running_mean")}
    for name, value in means.items():
        assert torch.equal(value, trunk[name.split(".", 3)[3]]), name
    assert len(means) == 2 * 20  # of two cameras


def test_weights_of_a_frozen_trunk_are_not_packed(resnet_file):
    actor, _ = seeing(file=resnet_file, frozen=True)
    assert len(pack_weights(actor, actor.spec)[0]) < 300_000 < resnet_file.stat().st_size


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("encoder.heads.0.norm.bias"), "missing .*heads.0.norm.bias"),
        (lambda t: t.update({"encoder.trunks.2.0.bias": torch.zeros(3)}), "unknown .*trunks.2"),
        (lambda t: t["encoder.trunks.1.0.weight"].fill_(np.nan), "not finite: encoder.trunks.1"),
    ],
)
def test_unpack_weights_with_another_encoder_names_the_tensor(change, text):
    actor, _ = seeing()
    data, _ = pack_weights(actor, actor.spec)
    with pytest.raises(WeightsError, match=text):
        unpack_weights(*repacked(change, data), actor.spec)
