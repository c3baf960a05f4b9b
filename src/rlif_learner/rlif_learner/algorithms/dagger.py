# SPDX-License-Identifier: Apache-2.0
"""DAgger: imitate what an expert would have done in every state that was visited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rlif_learner.algorithms.bc import BC
from rlif_learner.config import ImitationConfig
from rlif_learner.data.batch import Batch
from rlif_learner.data.sampling import Buffers, sample_union
from rlif_learner.data.steps import Source
from rlif_policy.networks import PolicySpec

Expert = Callable[[np.ndarray], np.ndarray]
"""States [n, state_dim] to the expert's actions [n, action_dim] in [-1, 1]."""


class DAgger(BC):
    """BC on all visited states, whoever drove, with the actions of `expert` there."""

    def __init__(
        self,
        config: ImitationConfig,
        spec: PolicySpec,
        expert: Expert,
        seed: int = 0,
        trunk: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(config, spec, seed, trunk)
        self.expert = expert

    def draw(self, buffers: Buffers) -> Batch:
        """A batch out of prior and online states, uniformly, relabelled by the expert."""
        parts = ((buffers.prior, tuple(Source)), (buffers.online, tuple(Source)))
        batch = sample_union(parts, self.config.batch_size, self.rng, images=self.uses_images)
        actions = np.asarray(self.expert(batch.states.numpy()), np.float32)
        if actions.shape != tuple(batch.actions.shape):
            raise ValueError(
                f"DAgger: the expert gave actions of shape {actions.shape}, expected "
                f"{tuple(batch.actions.shape)}"
            )
        return replace(batch, actions=torch.from_numpy(actions))
