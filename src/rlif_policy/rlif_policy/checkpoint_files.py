# SPDX-License-Identifier: Apache-2.0
"""The files of a checkpoint that hold the networks: read, and verified by their hashes.

    manifest.json      format, network, settings, and the sha256 of every other file
    manifest.sha256    of the manifest itself, for `sha256sum -c`
    state.safetensors  networks, optimisers, random state

The learner writes them (rlif_learner.data.checkpoint); learner, policy and bag tools read them here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

FORMAT = 1
MANIFEST, MANIFEST_DIGEST, STATE = "manifest.json", "manifest.sha256", "state.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message says which, why, and what to do."""


class DamagedError(CheckpointError):
    """A file is missing, cut off or altered."""


class MismatchError(CheckpointError):
    """It is intact, but of another network, configuration or format."""


def numbered(root: Path) -> list[Path]:
    """The checkpoints in `root`, intact or not, oldest first."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and p.name.isdecimal())


def read_checked(path: Path, sha256: str) -> bytes:
    """The content of a file. DamagedError if it cannot be read or has another hash."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(
            f"{path}: its content ({len(data)} bytes) does not match its hash: cut off or altered"
        )
    return data


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`.

    DamagedError if it is not as it was written; MismatchError if it is of another format.
    """
    digest = folder / MANIFEST_DIGEST
    try:
        expected = digest.read_text(encoding="ascii").split()  # as sha256sum writes: hash first
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{digest}: cannot be read: {error}") from error
    manifest = json.loads(read_checked(folder / MANIFEST, expected[0] if expected else ""))
    if manifest.get("format") != FORMAT:
        raise MismatchError(
            f"{folder}: found format {manifest.get('format')}, expected {FORMAT}; use the version "
            "of this package that wrote it"
        )
    if missing := sorted({"spec", "state_sha256"} - set(manifest)):
        raise DamagedError(
            f"{folder / MANIFEST}: found no {', '.join(missing)}; expected a learner's checkpoint"
        )
    return manifest


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Manifest and tensors of the checkpoint in `folder`; its replay buffers are not read.

    DamagedError names the file; MismatchError if it is of another format.
    """
    manifest = read_manifest(folder)
    state = folder / STATE
    try:
        return manifest, safetensors.torch.load(read_checked(state, manifest["state_sha256"]))
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{state}: is not safetensors: {error}") from error
