"""Weights on the wire: nothing but a complete, intact set of the right network gets through."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.weights import WeightsError, pack_weights, unpack_weights

SPEC = PolicySpec(state_dim=4, action_dim=2, hidden=(8, 8))
DATA, SHA = pack_weights(Actor(SPEC, seed=1), SPEC)


def repacked(change):
    """The good weights with `change` applied, and the right hash of the result."""
    tensors = load(DATA)
    change(tensors)
    data = save(tensors)
    return data, hashlib.sha256(data).hexdigest()


def test_weights_arrive_as_they_were():
    sender, receiver = Actor(SPEC, seed=1), Actor(SPEC, seed=2)
    receiver.load_state_dict(unpack_weights(DATA, SHA, SPEC))
    state = np.ones(4)
    assert np.array_equal(sender.act(state), receiver.act(state))


def test_later_training_does_not_change_what_was_packed():
    actor = Actor(SPEC, seed=1)
    data, sha = pack_weights(actor, SPEC)
    with torch.no_grad():
        actor.head.bias.add_(1.0)
    assert unpack_weights(data, sha, SPEC)["head.bias"].abs().max() == 0.0


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(position, flip):
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    with pytest.raises(WeightsError, match="damaged"):
        unpack_weights(bytes(damaged), SHA, SPEC)


@given(st.integers(0, len(DATA) - 1))
def test_half_a_set_is_refused(length):
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
def test_other_contents_are_refused_by_name(change, message):
    with pytest.raises(WeightsError, match=message):
        unpack_weights(*repacked(change), SPEC)


def test_other_network_is_refused():
    with pytest.raises(WeightsError, match="another network"):
        unpack_weights(DATA, SHA, PolicySpec(4, 3, (8, 8)))


def test_arbitrary_bytes_are_refused_even_with_their_hash():
    junk = b"\x80\x04not safetensors" * 10
    with pytest.raises(WeightsError, match="not safetensors"):
        unpack_weights(junk, hashlib.sha256(junk).hexdigest(), SPEC)


def test_broken_weights_are_not_even_packed():
    actor = Actor(SPEC)
    with torch.no_grad():
        actor.head.bias.fill_(float("inf"))
    with pytest.raises(WeightsError, match="head.bias"):
        pack_weights(actor, SPEC)
