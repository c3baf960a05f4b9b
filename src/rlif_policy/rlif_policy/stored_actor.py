# SPDX-License-Identifier: Apache-2.0
"""The actor out of a checkpoint of the learner, without the learner: for a policy that only acts.

Of a checkpoint (rlif_learner.data.checkpoint) it reads and checks the manifest and the state; the
replay buffer beside them is of no use to a policy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from rlif_policy.checkpoint_files import (
    MANIFEST,
    MANIFEST_DIGEST,
    STATE,
    CheckpointError,
    numbered,
    read_state,
)
from rlif_policy.networks import ENCODER, Actor, PolicySpec, encoder_part
from rlif_policy.weights import WeightsError, check_tensors


@dataclass(frozen=True)
class StoredActor:
    """spec and weights of a policy; version: that it was published under, 0 if it never was."""

    spec: PolicySpec
    tensors: dict[str, Tensor]
    version: int
    path: Path


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the newest one in it. WeightsError if none.

    Intact or not: an older one must not silently replace a damaged one.
    """
    if _is_checkpoint(path):
        return path
    for root in (path / "checkpoints", path):
        if found := numbered(root):
            return found[-1]
    raise WeightsError(
        f"checkpoint: found none at {path}, expected a folder with a manifest.json, such as "
        "RUN/checkpoints/000001, or the folder of a run"
    )


def read_actor(path: Path | str) -> StoredActor:
    """Read and check everything before anything is used.

    WeightsError names the file that is missing, damaged or of another network, and the last good
    checkpoint beside it.
    """
    folder = find_checkpoint(Path(path))
    try:
        return _read_checkpoint(folder)
    except (WeightsError, CheckpointError) as error:
        others = [p for p in numbered(folder.parent) if p != folder]
        raise WeightsError(f"{error}. The last good checkpoint: {_last_good(others)}") from error


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).is_file() for name in (MANIFEST, MANIFEST_DIGEST, STATE))


def _last_good(folders: list[Path]) -> str:
    for folder in reversed(folders):
        try:
            _read_checkpoint(folder)
        except (ValueError, CheckpointError):  # ValueError: a spec of another version
            continue
        return str(folder)
    return "none"


def _read_checkpoint(folder: Path) -> StoredActor:
    manifest, state = read_state(folder)
    spec = PolicySpec.from_json(json.dumps(manifest["spec"]))
    if "actor" not in state:
        raise WeightsError(
            f"{folder / STATE}: found no tensor `actor`, expected the policy's weights"
        )
    tensors = _unflatten(state, spec, folder / STATE)
    version = int(manifest.get("extra", {}).get("policy_version", 0))
    return StoredActor(spec, tensors, version, folder)


def _unflatten(state: dict[str, Tensor], spec: PolicySpec, file: Path) -> dict[str, Tensor]:
    """The perceptron lies in one vector, the encoder under the names of its tensors."""
    actor = Actor(spec)
    flat = state.get("policy", state["actor"])  # the average, where there is one
    parameters = actor.decision_parameters()
    size = sum(p.numel() for p in parameters)
    if flat.shape != (size,):
        raise WeightsError(
            f"{file}: the actor has {flat.numel()} weights, expected {size} of {spec.to_json()}"
        )
    with torch.no_grad():
        vector_to_parameters(flat, parameters)
    for name, value in actor.normaliser_part().items():
        value.copy_(state.get(name, value))  # not in those of earlier versions
    tensors = encoder_part(state) | {
        name: value.detach()
        for name, value in actor.export_state_dict().items()
        if not name.startswith(ENCODER)
    }
    check_tensors(tensors, spec)
    return tensors
