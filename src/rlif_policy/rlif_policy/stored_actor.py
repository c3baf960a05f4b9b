"""The actor out of a checkpoint of the learner, without the learner: for a policy that only acts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.weights import WeightsError, check_tensors


@dataclass(frozen=True)
class StoredActor:
    """spec and weights of a policy; version: that it was published under, 0 if it never was."""

    spec: PolicySpec
    tensors: dict[str, Tensor]
    version: int
    path: Path


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the newest one in it. WeightsError if none."""
    if (path / "manifest.json").is_file():
        return path
    for root in (path / "checkpoints", path):
        if root.is_dir():
            found = sorted(p for p in root.iterdir() if (p / "manifest.json").is_file())
            found = [p for p in found if p.name.isdecimal()]
            if found:
                return found[-1]
    raise WeightsError(
        f"checkpoint: found none at {path}, expected a folder with a manifest.json, such as "
        "RUN/checkpoints/000001, or the folder of a run"
    )


def read_actor(path: Path | str) -> StoredActor:
    """Read and check everything before anything is used.

    WeightsError names the file that is missing, damaged or of another network.
    """
    folder = find_checkpoint(Path(path))
    manifest = _read_manifest(folder / "manifest.json")
    spec = PolicySpec.from_json(json.dumps(manifest["spec"]))
    state_file = folder / "state.safetensors"
    data = _read(state_file)
    if hashlib.sha256(data).hexdigest() != manifest["state_sha256"]:
        raise WeightsError(f"{state_file} is damaged: its sha256 is not that of its manifest")
    try:
        flat = load(data).get("actor")
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{state_file} is not safetensors: {error}") from error
    if flat is None:
        raise WeightsError(f"{state_file}: found no tensor `actor`, expected the policy's weights")
    tensors = _unflatten(flat, spec, state_file)
    version = int(manifest.get("extra", {}).get("policy_version", 0))
    return StoredActor(spec, tensors, version, folder)


def _unflatten(flat: Tensor, spec: PolicySpec, file: Path) -> dict[str, Tensor]:
    actor = Actor(spec)
    size = sum(p.numel() for p in actor.parameters())
    if flat.shape != (size,):
        raise WeightsError(
            f"{file}: the actor has {flat.numel()} weights, expected {size} of {spec.to_json()}"
        )
    with torch.no_grad():
        vector_to_parameters(flat, actor.parameters())
    tensors = {name: value.detach() for name, value in actor.state_dict().items()}
    check_tensors(tensors, spec)
    return tensors


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    missing = sorted({"spec", "state_sha256"} - set(manifest))
    if missing:
        raise WeightsError(f"{path}: found no {', '.join(missing)}; is it a learner's checkpoint?")
    return manifest
