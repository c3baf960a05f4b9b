# SPDX-License-Identifier: Apache-2.0
"""The algorithms by name, and a Trainer out of settings, online and offline alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.hg_dagger import HGDAgger
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig, RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import Labeller
from rlif_learner.data.sampling import Buffers
from rlif_learner.engines.select import accelerate
from rlif_learner.training import Algorithm, Trainer, TrainingConfig
from rlif_learner.vision import Vision, make_buffer
from rlif_policy.encoders import Shape
from rlif_policy.networks import PolicySpec

ALGORITHMS = ("rlpd", "bc", "hg_dagger")
# What each draws from, see training.SOURCES.
DATA: dict[str, tuple[str, ...]] = {
    "rlpd": ("prior", "online"),
    "bc": ("driven_prior",),
    "hg_dagger": ("driven_prior", "operator"),
}
DEVICES = ("cpu", "cuda", "auto")
_IMITATION: dict[str, type[BC]] = {"bc": BC, "hg_dagger": HGDAgger}


def make_algorithm(
    name: str,
    settings: Mapping[str, Any],
    preset: str,
    spec: PolicySpec,
    seed: int,
    device: str = "cpu",
    trunk: Mapping[str, Tensor] | None = None,
) -> Algorithm:
    """The algorithm of this name with `settings`. ValueError names what does not exist.

    `device`: one of DEVICES. `trunk`: pretrained weights of the image encoder's trunk, if it has
    some.

    DAgger is not among them: it needs an expert that is asked in every state, which no graph has.
    """
    if name == "rlpd":
        chosen = RLPDConfig.from_mapping(settings, preset)
        return accelerate(RLPD(chosen, spec, seed, find_device(device), trunk))
    if name in _IMITATION:
        wanted = ImitationConfig.from_mapping(settings)
        return _IMITATION[name](wanted, spec, seed, trunk, find_device(device))
    if name == "dagger":
        raise ValueError(
            "algorithm: found 'dagger', which asks an expert in every state and so cannot run from "
            "Steps alone; use hg_dagger, or rlif_learner.algorithms.dagger.DAgger in a program of yours"
        )
    raise ValueError(f"algorithm: found {name!r}, expected one of {', '.join(ALGORITHMS)}")


def find_device(name: str) -> str:
    """ "cpu" or "cuda"; "auto" is a GPU where PyTorch finds one. ValueError where there is none."""
    if name not in DEVICES:
        raise ValueError(f"device: found {name!r}, expected one of {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device: found 'cuda', but PyTorch finds no GPU here; use cpu or auto")
    return "cuda" if there and name == "auto" else name.replace("auto", "cpu")


@dataclass(frozen=True)
class TrainerSettings:
    """The parameters of the learner node, by the same names, that say what is trained and on what.

    ValueError for labels that do not exist.
    """

    algorithm: str = "rlpd"
    preset: str = "rlpd"
    label_scheme: str = "onset"
    failure_reward: float = 0.0
    state_offset: tuple[float, ...] = ()
    state_scale: tuple[float, ...] = ()
    hidden: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    seed: int = 0
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)  # rlpd.* or imitation.*

    def __post_init__(self) -> None:
        Labeller(self.label_scheme, self.failure_reward)


@dataclass(frozen=True)
class BufferSettings:
    """Sizes of the buffers in steps, and where images go.

    Attributes:
        kept_images: shapes of images that are kept though the policy has no encoder.
        directory: of files for the images, one folder for each buffer; empty: in memory.
        interleaved: steps of several robots come in any order.
        evenly: each robot is as likely in a batch as any other.
    """

    capacity: int
    prior_capacity: int
    kept_images: tuple[Shape, ...] = ()
    directory: str = ""
    interleaved: bool = False
    evenly: bool = False


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
            capacity, algorithm.actor, sizes.kept_images, directory, settings.label_scheme,
            sizes.interleaved, sizes.evenly, settings.failure_reward,
        )  # fmt: skip

    buffers = Buffers(buffer("online", sizes.capacity), buffer("prior", sizes.prior_capacity))
    return Trainer(algorithm, buffers, training, DATA[settings.algorithm])
