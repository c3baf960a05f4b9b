# SPDX-License-Identifier: Apache-2.0
"""The actor out of a checkpoint of the learner, without the learner: for a policy that only acts.

Of a checkpoint (rlif_learner.data.checkpoint) it reads and checks the manifest and the state; the
replay buffer beside them is of no use to a policy.
"""

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

from rlif_policy.networks import ENCODER, Actor, PolicySpec, encoder_part
from rlif_policy.weights import WeightsError, check_tensors


@dataclass(frozen=True)
class StoredActor:
    """spec and weights of a policy; version: that it was published under, 0 if it never was."""

    spec: PolicySpec
    tensors: dict[str, Tensor]
    version: int
    path: Path


FILES = ("manifest.json", "manifest.sha256", "state.safetensors")  # any of them: a checkpoint


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the newest one in it. WeightsError if none.

    Intact or not: an older one in place of a damaged one would be found out by nobody.
    """
    if _is_checkpoint(path):
        return path
    for root in (path / "checkpoints", path):
        if found := _numbered(root):
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
    except WeightsError as error:
        others = [p for p in _numbered(folder.parent) if p != folder]
        raise WeightsError(f"{error}. The last good checkpoint: {_last_good(others)}") from error


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).is_file() for name in FILES)


def _numbered(root: Path) -> list[Path]:
    """The checkpoints in `root`, oldest first, whatever is left of them."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and p.name.isdecimal())


def _last_good(folders: list[Path]) -> str:
    for folder in reversed(folders):
        try:
            _read_checkpoint(folder)
        except ValueError:  # a WeightsError, or a spec of another version
            continue
        return str(folder)
    return "none"


def _read_checkpoint(folder: Path) -> StoredActor:
    manifest = _read_manifest(folder)
    spec = PolicySpec.from_json(json.dumps(manifest["spec"]))
    state_file = folder / "state.safetensors"
    data = _read_checked(state_file, manifest["state_sha256"])
    try:
        state = load(data)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{state_file} is not safetensors: {error}") from error
    if "actor" not in state:
        raise WeightsError(f"{state_file}: found no tensor `actor`, expected the policy's weights")
    tensors = _unflatten(state, spec, state_file)
    version = int(manifest.get("extra", {}).get("policy_version", 0))
    return StoredActor(spec, tensors, version, folder)


def _unflatten(state: dict[str, Tensor], spec: PolicySpec, file: Path) -> dict[str, Tensor]:
    """The perceptron lies in one vector, the encoder under the names of its tensors."""
    actor, flat = Actor(spec), state["actor"]
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
        for name, value in actor.carried().items()
        if not name.startswith(ENCODER)
    }
    check_tensors(tensors, spec)
    return tensors


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error


def _read_checked(path: Path, sha256: str) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsError(
            f"{path} is damaged: its content ({len(data)} bytes) does not match its hash"
        )
    return data


def _read_manifest(folder: Path) -> dict[str, Any]:
    path, digest = folder / "manifest.json", folder / "manifest.sha256"
    expected = _read(digest).split()  # as sha256sum writes it: the hash first
    text = _read_checked(path, expected[0].decode("ascii", "replace") if expected else "")
    try:
        manifest = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    missing = sorted({"spec", "state_sha256"} - set(manifest))
    if missing:
        raise WeightsError(f"{path}: found no {', '.join(missing)}; is it a learner's checkpoint?")
    return manifest
