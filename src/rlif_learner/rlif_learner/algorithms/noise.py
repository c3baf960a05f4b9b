# SPDX-License-Identifier: Apache-2.0
"""All that is random in an update of RLPD, drawn before it: what follows is arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlif_learner.config import RLPDConfig
from rlif_policy.networks import PolicySpec


@dataclass(frozen=True)
class CriticNoise:
    """All that is random in a critic step; in `UpdateNoise` with a leading dimension of `utd`."""

    next_action: Tensor  # [batch, action_dim], standard normal
    subset: Tensor  # int64 [subset_size], the target critics of this step
    target_masks: list[Tensor] | None = None  # dropout, see EnsembleCritic
    masks: list[Tensor] | None = None

    def step(self, i: int) -> CriticNoise:
        """That of critic step `i` of an update."""
        masks = [m and [layer[i] for layer in m] for m in (self.target_masks, self.masks)]
        return CriticNoise(self.next_action[i], self.subset[i], *masks)


@dataclass(frozen=True)
class UpdateNoise:
    """All that is random in an update."""

    critics: CriticNoise
    action: Tensor  # [batch, action_dim], standard normal, of the actor's step
    masks: list[Tensor] | None = None  # dropout of the critics in the actor's step
    # int64 [utd, 2, cameras, batch, 2]: by how much the images before and after the action move
    shifts: Tensor | None = None


def independent_seeds(seed: int, count: int) -> list[int]:
    """Seeds of generators whose streams have nothing in common, all out of one number."""
    children = np.random.SeedSequence(seed).spawn(count)
    return [int(child.generate_state(1, np.uint64)[0]) for child in children]


def draw_noise(config: RLPDConfig, spec: PolicySpec, generator: torch.Generator) -> UpdateNoise:
    """The randomness of one update of a policy of `spec`, on the generator's device."""
    utd, subset, ensemble = config.utd, config.subset_size, config.ensemble_size
    actions = (utd, config.batch_size, spec.action_dim)
    keys = _uniform((utd, ensemble), generator)
    return UpdateNoise(
        CriticNoise(
            _normal(actions, generator),
            keys.argsort(dim=1)[:, :subset].contiguous(),  # none of them twice
            _masks(config, (utd, subset), generator),
            _masks(config, (utd, ensemble), generator),
        ),
        _normal(actions[1:], generator),
        _masks(config, (ensemble,), generator),
        _shifts(config, spec, generator),
    )


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _masks(
    config: RLPDConfig, leading: tuple[int, ...], generator: torch.Generator
) -> list[Tensor] | None:
    """Of each hidden layer [*leading, batch, width]: 0 or 1 / (1 - dropout)."""
    dropout = config.dropout
    if not dropout:
        return None
    masks = (_uniform((*leading, config.batch_size, width), generator) for width in config.hidden)
    return [(mask >= dropout).float() / (1.0 - dropout) for mask in masks]


def _shifts(config: RLPDConfig, spec: PolicySpec, generator: torch.Generator) -> Tensor | None:
    """Of the images of an update; None where nothing is shifted."""
    most = config.random_shift
    if spec.encoder is None or spec.encoder.frozen or not most:
        return None
    size = (config.utd, 2, len(spec.images), config.batch_size, 2)
    shifts = torch.randint(-most, most + 1, size, generator=generator, device=generator.device)
    if config.same_shift:
        shifts[:, 1] = shifts[:, 0]
    return shifts
