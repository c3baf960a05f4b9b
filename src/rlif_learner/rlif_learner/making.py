# SPDX-License-Identifier: Apache-2.0
"""A Trainer out of settings: the networks, the buffers and the algorithm, online and offline alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlif_learner.algorithms.registry import DATA, make_algorithm
from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.training import Trainer, TrainingConfig
from rlif_learner.vision import Vision, make_buffer
from rlif_policy.encoders import Shape
from rlif_policy.networks import PolicySpec


@dataclass(frozen=True)
class TrainerSettings:
    """The parameters of the learner node, by the same names, that say what is trained and on what."""

    algorithm: str = "rlpd"
    preset: str = "rlpd"
    label_scheme: str = "onset"
    state_offset: tuple[float, ...] = ()
    state_scale: tuple[float, ...] = ()
    hidden: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    seed: int = 0
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)  # rlpd.* or imitation.*


@dataclass(frozen=True)
class BufferSettings:
    """Sizes of the buffers in steps, and where images go.

    Attributes:
        kept_images: shapes of images that are kept though the policy has no encoder.
        directory: of files for the images, one folder for each buffer; empty: in memory.
    """

    capacity: int
    prior_capacity: int
    kept_images: tuple[Shape, ...] = ()
    directory: str = ""


def make_trainer(
    settings: TrainerSettings,
    vision: Vision,
    state_dim: int,
    action_dim: int,
    sizes: BufferSettings,
    training: TrainingConfig,
) -> Trainer:
    """A Trainer with empty buffers. ValueError names a wrong setting; OSError: no room for images."""
    spec = PolicySpec(
        state_dim, action_dim, tuple(settings.hidden), settings.layer_norm, vision.images,
        tuple(settings.state_offset), tuple(settings.state_scale), vision.encoder, vision.cameras,
    )  # fmt: skip
    algorithm = make_algorithm(
        settings.algorithm, settings.settings, settings.preset, spec, settings.seed,
        settings.device, vision.trunk,
    )  # fmt: skip

    def buffer(name: str, capacity: int) -> ReplayBuffer:
        directory = str(Path(sizes.directory, name)) if sizes.directory else None
        return make_buffer(
            capacity, algorithm.actor, sizes.kept_images, directory, settings.label_scheme
        )

    buffers = Buffers(buffer("online", sizes.capacity), buffer("prior", sizes.prior_capacity))
    return Trainer(algorithm, buffers, training, DATA[settings.algorithm])
