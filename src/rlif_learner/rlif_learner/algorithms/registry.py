# SPDX-License-Identifier: Apache-2.0
"""The algorithms by name, with their settings and what they learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.hg_dagger import HGDAgger
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig, RLPDConfig
from rlif_learner.training import Algorithm
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
        return RLPD(chosen, spec, seed, device=find_device(device), trunk=trunk)
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
