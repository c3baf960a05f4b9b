# SPDX-License-Identifier: Apache-2.0
"""Behavioural cloning: the policy imitates the prior data, and nothing else.

Each step: states and the actions taken there, and the mean squared error of the policy's own
deterministic action. HG-DAgger and DAgger differ from this in `draw` alone. Steps that nobody
drove, as while a person reaches for the device, are not imitated: doing nothing is no example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlif_learner.algorithms.critics import FlatParameters
from rlif_learner.algorithms.optim import FlatAdam, refuse_non_finite
from rlif_learner.config import ImitationConfig
from rlif_learner.data.augmentation import shift_cameras
from rlif_learner.data.batch import Batch
from rlif_learner.data.sampling import DRIVEN, Buffers
from rlif_learner.data.steps import StepRecord
from rlif_policy.networks import Actor, PolicySpec, encoder_part


class BC:
    """Supervised learning on prior data. All randomness comes from a generator seeded by `seed`.

    The spread of the policy is not trained: let it act deterministically.
    """

    def __init__(
        self,
        config: ImitationConfig,
        spec: PolicySpec,
        seed: int = 0,
        trunk: Mapping[str, Tensor] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """`trunk`: pretrained weights of the image encoder's trunk, where it has some."""
        self.config, self.spec, self.device = config, spec, torch.device(device)
        self.rng = np.random.default_rng(seed)
        self.actor = Actor(spec, seed, trunk).to(self.device)
        decision = self.actor.decision_parameters()
        self._decision_size = sum(parameter.numel() for parameter in decision)
        encoder = self.actor.encoder
        self.flat = FlatParameters([*decision, *(encoder.trained() if encoder else ())])
        self.optimiser = FlatAdam(
            self.flat.values,
            config.learning_rate,
            config.weight_decay,
            torch.ones_like(self.flat.values) if config.weight_decay else None,
        )
        # Several processes (distributed.py): replaces gradients by their mean over all of them.
        self.average_gradients: Callable[[Tensor], None] | None = None
        self.updates = 0

    @property
    def critic_steps(self) -> int:
        """There are no critics; here for the common interface."""
        return 0

    def value(self, step: StepRecord) -> None:
        """None: there is no critic."""

    @property
    def policy(self) -> Actor:
        """What drives the robot: the actor itself; here for the common interface."""
        return self.actor

    @property
    def uses_images(self) -> bool:
        """Whether the policy has an image encoder."""
        return self.actor.encoder is not None

    def draw(self, buffers: Buffers) -> Batch:
        """A batch of what is to be imitated. ValueError if there is nothing."""
        if buffers.prior is None or not buffers.prior.count(DRIVEN):
            raise ValueError(
                "BC: found no prior data with a control source, expected demonstrations to imitate"
            )
        batch_size = self.config.batch_size
        return buffers.prior.sample(batch_size, self.rng, sources=DRIVEN, images=self.uses_images)

    def update(self, buffers: Buffers) -> dict[str, float]:
        """`utd` gradient steps. NonFiniteError names the quantity; that step is not taken."""
        metrics: dict[str, float] = {}
        for _ in range(self.config.utd):
            metrics = self.imitate(self.draw(buffers))
        self.updates += 1
        return metrics

    def imitate(self, batch: Batch) -> dict[str, float]:
        """One step towards batch.actions in batch.states."""
        if self.device.type != "cpu":
            batch = Batch.from_tensors(tensor.to(self.device) for tensor in batch.tensors())
        mean, _ = self.actor(self.actor.encode(batch.states, self._shifted(batch)))
        loss = (torch.tanh(mean) - batch.actions).square().mean()
        self.flat.gradients.zero_()
        loss.backward()
        metrics = {"imitation_loss": loss.item()}
        if self.average_gradients is not None:
            if not math.isfinite(metrics["imitation_loss"]):
                self.flat.gradients.fill_(math.nan)  # so that no process takes this step
            self.average_gradients(self.flat.gradients)
        quantities = {**metrics, "actor_grad_norm": float(self.flat.gradients.norm())}
        refuse_non_finite(quantities, batch, f"update {self.updates}")
        self.optimiser.step(self.flat.gradients)
        return metrics

    def _shifted(self, batch: Batch) -> tuple[Tensor, ...]:
        """The images, each moved at random; what a frozen trunk has seen already stays as it is."""
        most = self.config.random_shift
        if not most or not self.uses_images or batch.images[0].is_floating_point():
            return batch.images
        moves = self.rng.integers(-most, most + 1, (len(batch.images), len(batch.states), 2))
        return shift_cameras(batch.images, torch.from_numpy(moves).to(self.device))

    def state_tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name, shared (not copied)."""
        return {
            **encoder_part(self.actor.export_state_dict()),
            **self.actor.normaliser_part(),
            "actor": self.flat.values[: self._decision_size],
            "first": self.optimiser.first,
            "second": self.optimiser.second,
            "actor_generator": self.actor.generator.get_state(),
        }

    def state_values(self) -> dict[str, Any]:
        """Counters and random state, as JSON holds them."""
        return {
            "updates": self.updates,
            "optimiser_steps": self.optimiser.steps,
            "rng": self.rng.bit_generator.state,
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """The inverse of `state_tensors` and `state_values`, in place."""
        tensors = {**self.actor.normaliser_part(), **tensors}  # not in those of earlier versions
        for name, tensor in self.state_tensors().items():
            tensor.copy_(tensors[name])
        self.actor.generator.set_state(tensors["actor_generator"])
        self.optimiser.steps, self.updates = values["optimiser_steps"], values["updates"]
        self.rng.bit_generator.state = values["rng"]
