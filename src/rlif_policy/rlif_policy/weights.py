# SPDX-License-Identifier: Apache-2.0
"""Policy weights as bytes: safetensors with a hash, checked in full before a network takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from rlif_policy.networks import Actor, PolicySpec


class WeightsError(ValueError):
    """Weights that must not be used; the message has the reason and names the tensor."""


@lru_cache(maxsize=8)
def expected_tensors(spec: PolicySpec) -> Mapping[str, Tensor]:
    """Name to tensor, with the shapes and dtypes of an actor of this spec; a frozen trunk, which is
    never sent, left out."""
    return {name: value.detach() for name, value in Actor(spec).export_state_dict().items()}


def pack_weights(actor: Actor, spec: PolicySpec) -> tuple[bytes, str]:
    """The actor's weights as safetensors, and the sha256 of these bytes as hex.

    WeightsError if the actor is not one of `spec`, or a weight is not finite: a broken set is
    refused where it is made, not only where it is used.
    """
    tensors = {
        name: value.detach().to("cpu", _packed(value.dtype)).contiguous().clone()
        for name, value in actor.export_state_dict().items()
    }
    check_tensors(tensors, spec)
    data = save(tensors, metadata={"spec_hash": spec.hash()})
    return data, hashlib.sha256(data).hexdigest()


def _packed(dtype: torch.dtype) -> torch.dtype:
    """Batch normalisation counts in whole numbers; all else is float32."""
    return torch.float32 if dtype.is_floating_point else dtype


def unpack_weights(data: bytes, sha256: str, spec: PolicySpec) -> dict[str, Tensor]:
    """The inverse of `pack_weights`, for `Actor.load_exported`.

    WeightsError if the bytes are damaged, or if names, shapes, dtypes or values are not those of
    a network of `spec`.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256.lower():
        raise WeightsError(
            f"weights are damaged: sha256 of the {len(data)} bytes is {found}, expected {sha256}"
        )
    try:
        tensors = load(bytes(data))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"weights are not safetensors: {error}") from error
    check_tensors(tensors, spec)
    return tensors


def check_tensors(tensors: dict[str, Tensor], spec: PolicySpec) -> None:
    """WeightsError, naming the tensor, unless these are the finite weights of a `spec` network."""
    expected = expected_tensors(spec)
    missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unknown:
        raise WeightsError(
            f"weights of another network: missing {missing}, unknown {unknown}; "
            f"expected those of {spec.to_json()}"
        )
    for name, value in tensors.items():
        want = expected[name]
        if value.shape != want.shape or value.dtype != want.dtype:
            raise WeightsError(
                f"weights of another network: {name} is {tuple(value.shape)} {value.dtype}, "
                f"expected {tuple(want.shape)} {want.dtype}"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"weights are not finite: {name}")
