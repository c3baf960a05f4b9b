# SPDX-License-Identifier: Apache-2.0
"""Updates in PyTorch, each as it is written in algorithms/rlpd.py, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlif_learner.config import RLPDConfig

if TYPE_CHECKING:  # which import the engines
    from rlif_learner.algorithms.critics import EnsembleCritic
    from rlif_learner.algorithms.noise import CriticNoise, UpdateNoise
    from rlif_learner.algorithms.rlpd import RLPD
    from rlif_learner.data.buffer import Batch, Buffers


def device_precision(config: RLPDConfig, device: torch.device) -> bool:
    """Whether products on a GPU are in bfloat16. ValueError for formats that are not offered there."""
    if device.type == "cpu":
        return False
    if config.precision == "float16":
        raise ValueError(
            f"precision: found 'float16' on {device}, expected float32, bfloat16 or auto there"
        )
    return config.precision != "float32"


class TorchEngine:
    """An `Engine` (engine.py). The others derive from it and replace what they do faster."""

    def __init__(self, learner: RLPD) -> None:
        self.learner = learner
        # With images the convolutions alone are in 16 bits, on every device.
        low = device_precision(learner.config, learner.device)
        self.autocast = low and learner.spec.encoder is None

    def prepare(self) -> None:
        return

    def update(self, buffers: Buffers) -> dict[str, float]:
        learner = self.learner
        batches = learner.draw_batches(buffers)
        begun = learner.count()
        return learner.report(learner.learn(batches, learner.draw_noise()), batches, begun)

    def finish(self) -> dict[str, float]:
        return {}

    def rng_state(self) -> Mapping[str, Any]:
        return self.learner.rng.bit_generator.state

    def forget(self) -> None:
        return

    def step_critics(self, batches: Batch, noise: UpdateNoise) -> tuple[Batch, Tensor]:
        return self.learner.step_critics(batches, noise)

    def critic_gradients(self, batch: Batch, target: Tensor, masks: list[Tensor] | None) -> Tensor:
        loss, value = self.learner.critic_loss(batch, target, masks)
        self.learner.critic.flat.gradients.zero_()
        loss.backward()
        return torch.stack([loss.detach(), value.detach()])

    def target_values(self, batch: Batch, actions: Tensor, noise: CriticNoise) -> Tensor:
        target, masks = self.learner.target, noise.target_masks
        return self.values(target, batch.next_states, actions, noise.subset, masks)

    def mean_value(self, states: Tensor, actions: Tensor, masks: list[Tensor] | None) -> Tensor:
        return self.values(self.learner.critic, states, actions, masks=masks).mean(dim=0)

    def values(
        self,
        critic: EnsembleCritic,
        states: Tensor,
        actions: Tensor,
        subset: Tensor | None = None,
        masks: list[Tensor] | None = None,
    ) -> Tensor:
        device = self.learner.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast, cache_enabled=False):
            return critic(states, actions, subset, masks).float()
