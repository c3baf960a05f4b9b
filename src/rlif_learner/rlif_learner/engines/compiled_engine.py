# SPDX-License-Identifier: Apache-2.0
"""Updates on the processor with compiled critics: the rest of RLPD stays in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from rlif_learner.algorithms.noise import CriticNoise, UpdateNoise
from rlif_learner.algorithms.rlpd import RLPD, Engine
from rlif_learner.data.batch import Batch
from rlif_learner.engines.critic_kernel import CriticKernel, StepData


class CompiledCriticEngine(Engine):
    """The critics' passes by `kernel`. Of a state without images: it gives no encoder gradients."""

    def __init__(self, learner: RLPD, kernel: CriticKernel) -> None:
        super().__init__(learner)
        self.kernel = kernel

    def step_critics(self, batches: Batch, noise: UpdateNoise) -> tuple[Batch, Tensor]:
        """All of an update in one call, unless gradients are averaged over processes in between."""
        learner = self.learner
        if learner.average_gradients is not None:
            return super().step_critics(batches, noise)
        actions, log_probs = learner.next_actions(batches.next_states, noise.critics.next_action)
        data = StepData(
            learner.critic.inputs(batches.states, batches.actions),
            learner.critic.inputs(batches.next_states, actions),
            *learner.target_terms(batches, log_probs),
            noise.critics.subset,
            learner.max_next_value,
        )
        done, metrics = self.kernel.critic_steps(
            learner.critic_optimiser, learner.critic.flat.gradients, learner.target.flat.values,
            learner.config.tau, data,
        )  # fmt: skip
        learner.healthy.fill_(done == len(metrics))
        return batches[-1], metrics

    def critic_gradients(self, batch: Batch, target: Tensor, masks: list[Tensor] | None) -> Tensor:
        critic = self.learner.critic
        inputs = critic.inputs(batch.states, batch.actions)
        flat = critic.flat
        return torch.tensor(self.kernel.loss_gradients(flat.values, inputs, target, flat.gradients))

    def target_values(self, batch: Batch, actions: Tensor, noise: CriticNoise) -> Tensor:
        target = self.learner.target
        inputs = target.inputs(batch.next_states, actions)
        return self.kernel.values(target.flat.values, inputs, noise.subset)

    def mean_value(self, states: Tensor, actions: Tensor, masks: list[Tensor] | None) -> Tensor:
        critic = self.learner.critic
        inputs = critic.inputs(states, actions.detach())
        value, slope = self.kernel.input_gradients(critic.flat.values, inputs)
        # Same value, same derivative: the second term is zero, its derivative is the slope.
        return value + (slope[:, states.shape[1] :] * (actions - actions.detach())).sum(dim=-1)
