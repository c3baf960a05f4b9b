"""RLPD: off-policy reinforcement learning from prior and online data, line by line.

For each update: `utd` times, a batch (partly from prior data), a target from the minimum of a
random subset of the target critics, one step of all critics, and the target moves along; then
one step of the actor up the mean of the critics, and one of the temperature.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlif_learner.buffer import Batch, Buffers, sample_mixed
from rlif_learner.config import RLPDConfig
from rlif_learner.critic_kernel import CriticKernel, KernelUnavailableError
from rlif_learner.networks import EnsembleCritic, FlatParameters
from rlif_learner.optim import FlatAdam, NonFiniteError, refuse_non_finite
from rlif_policy.networks import Actor, PolicySpec

__all__ = ["RLPD", "CriticNoise", "NonFiniteError"]


@dataclass(frozen=True)
class CriticNoise:
    """All that is random in a critic step."""

    next_action: Tensor  # [batch, action_dim], standard normal
    subset: Tensor  # [subset_size], the target critics of this step
    target_masks: list[Tensor] | None = None  # dropout, see EnsembleCritic
    masks: list[Tensor] | None = None


def critic_kernel(critic: EnsembleCritic, config: RLPDConfig) -> CriticKernel | None:
    """The compiled passes, or None, with a warning that says why and what it costs."""
    try:
        kernel = CriticKernel(critic, config)
    except KernelUnavailableError as error:
        warnings.warn(
            f"no compiled critics: {error}. PyTorch does the same more slowly: "
            f"{1e3 * measured_step(critic, config):.0f} ms for the gradients of one critic step",
            stacklevel=3,
        )
        return None
    if config.precision == "bfloat16" and not kernel.low:
        warnings.warn("this processor has no bfloat16 products; float32 is used", stacklevel=3)
    return kernel


def measured_step(critic: EnsembleCritic, config: RLPDConfig) -> float:
    """Seconds that PyTorch takes on this machine for the gradients of a critic step, the best of
    three."""
    actions = torch.zeros(config.batch_size, critic.action_dim)
    states = torch.zeros(config.batch_size, critic.weights[0].shape[1] - critic.action_dim)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        critic(states, actions).sum().backward()
        times.append(time.perf_counter() - start)
    critic.flat.gradients.zero_()
    return min(times)


class RLPD:
    """The algorithm and its state. All randomness comes from generators seeded by `seed`.

    `accelerate`: compiled passes of the critics where there can be some (see critic_kernel.py);
    they are compiled here, so that no update ever waits for a compiler.
    """

    def __init__(
        self, config: RLPDConfig, spec: PolicySpec, seed: int = 0, accelerate: bool = True
    ) -> None:
        self.config, self.spec = config, spec
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.actor = Actor(spec, seed)
        self.critic = EnsembleCritic(spec, config, self.generator)
        self.target = EnsembleCritic(spec, config, self.generator)
        self.target.flat.values.copy_(self.critic.flat.values)
        self.target.requires_grad_(False)
        self.log_temperature = torch.tensor([math.log(config.initial_temperature)])
        self.target_entropy = (
            -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        )
        self.actor_flat = FlatParameters(self.actor.parameters())
        self.actor_optimiser = FlatAdam(self.actor_flat.values, config.actor_learning_rate)
        self.critic_optimiser = FlatAdam(
            self.critic.flat.values,
            config.critic_learning_rate,
            config.critic_weight_decay,
            self.critic.decayed() if config.critic_weight_decay else None,
        )
        self.temperature_optimiser = FlatAdam(
            self.log_temperature, config.temperature_learning_rate
        )
        self.kernel = critic_kernel(self.critic, config) if accelerate else None
        # Several processes (distributed.py): replaces gradients by their mean over all of them.
        self.average_gradients: Callable[[Tensor], None] | None = None
        self.updates = 0
        self.critic_steps = 0

    @property
    def temperature(self) -> float:
        """The weight of the entropy."""
        return math.exp(float(self.log_temperature))

    def update(self, buffers: Buffers) -> dict[str, float]:
        """`utd` critic steps, one actor step, one temperature step. Returns their metrics.

        NonFiniteError names the quantity and the batch; no weight was changed by that batch.
        """
        config = self.config
        batches = sample_mixed(
            buffers.online, buffers.prior, config.batch_size, config.prior_ratio, self.rng,
            count=config.utd,
        )  # fmt: skip
        noise = [self.draw_critic_noise() for _ in range(config.utd)]
        # The actor stands still during the critic steps: one pass for all of them.
        next_actions = self.next_actions(
            batches.next_states, torch.stack([n.next_action for n in noise])
        )
        metrics: dict[str, float] = {}
        for i in range(config.utd):
            batch = Batch.from_tensors(tensor[i] for tensor in batches.tensors())
            metrics = self.critic_step(batch, (next_actions[0][i], next_actions[1][i]), noise[i])
        metrics.update(self.actor_step(batch, *self.draw_actor_noise()))
        self.updates += 1
        return metrics

    @torch.no_grad()
    def next_actions(self, next_states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's actions in the next states, and their log probabilities."""
        return self.actor.sample(next_states, noise)

    def critic_step(
        self, batch: Batch, next_actions: tuple[Tensor, Tensor], noise: CriticNoise
    ) -> dict[str, float]:
        """One gradient step of all critics on one batch; the target critics follow."""
        target = self.critic_target(batch, next_actions, noise)
        gradients = self.critic.flat.gradients
        metrics = self._critic_loss(batch, target, noise)
        self._average(gradients)
        self._check(metrics, gradients, "critic", batch)
        if self.kernel is None:
            self.critic_optimiser.step(gradients)
            self.target.flat.values.lerp_(self.critic.flat.values, self.config.tau)
        else:
            self.kernel.adam_and_average(
                self.critic_optimiser, gradients, self.target.flat.values, self.config.tau
            )
        self.critic_steps += 1
        return metrics

    @torch.no_grad()
    def critic_target(
        self, batch: Batch, next_actions: tuple[Tensor, Tensor], noise: CriticNoise
    ) -> Tensor:
        """r + discount * (1 - terminal) * (min over the subset of Q'(s', a') - entropy): [batch]"""
        action, log_prob = next_actions
        if self.kernel is None:
            values = self.target(batch.next_states, action, noise.subset, noise.target_masks)
        else:
            inputs = self.target.inputs(batch.next_states, action)
            values = self.kernel.values(self.target.flat.values, inputs, noise.subset)
        value = values.amin(dim=0)
        if self.config.entropy_in_target:
            value = value - self.temperature * log_prob
        return batch.rewards + self.config.discount * (1.0 - batch.terminals) * value

    def _critic_loss(self, batch: Batch, target: Tensor, noise: CriticNoise) -> dict[str, float]:
        """Mean over critics and batch of (Q - target)^2; its gradients go to the flat vector."""
        flat = self.critic.flat
        if self.kernel is not None:
            inputs = self.critic.inputs(batch.states, batch.actions)
            loss, value = self.kernel.loss_gradients(flat.values, inputs, target, flat.gradients)
            return {"critic_loss": loss, "value": value}
        values = self.critic(batch.states, batch.actions, masks=noise.masks)
        squared = (values - target).square().mean()
        flat.gradients.zero_()
        squared.backward()
        return {"critic_loss": squared.item(), "value": values.mean().item()}

    def actor_step(
        self, batch: Batch, noise: Tensor, masks: list[Tensor] | None = None
    ) -> dict[str, float]:
        """One step of the actor up the mean of all critics, then one of the temperature."""
        action, log_prob = self.actor.sample(batch.states, noise)
        value = self._mean_value(batch.states, action, masks)
        loss = (self.temperature * log_prob - value).mean()
        entropy = -log_prob.mean().item()
        self.actor_flat.gradients.zero_()
        loss.backward(inputs=self.actor_flat.parameters)
        temperature_loss = self.temperature * (entropy - self.target_entropy)
        # d/d(log temperature) of temperature * (entropy - target) is that product itself.
        temperature_gradient = torch.tensor([temperature_loss])
        metrics = {
            "actor_loss": loss.item(),
            "entropy": entropy,
            "temperature": self.temperature,
            "temperature_loss": temperature_loss,
        }
        self._average(self.actor_flat.gradients, temperature_gradient)
        self._check(metrics, self.actor_flat.gradients, "actor", batch)
        self.actor_optimiser.step(self.actor_flat.gradients)
        self.temperature_optimiser.step(temperature_gradient)
        return metrics

    def _mean_value(self, states: Tensor, action: Tensor, masks: list[Tensor] | None) -> Tensor:
        """Mean of all critics [batch], with its derivative by the action."""
        if self.kernel is None:
            return self.critic(states, action, masks=masks).mean(dim=0)
        inputs = self.critic.inputs(states, action.detach())
        value, slope = self.kernel.input_gradients(self.critic.flat.values, inputs)
        # Same value, same derivative: the second term is zero, its derivative is the slope.
        return value + (slope[:, states.shape[1] :] * (action - action.detach())).sum(dim=-1)

    def draw_critic_noise(self) -> CriticNoise:
        """The randomness of one critic step, from the own generator."""
        config = self.config
        shape = (config.batch_size, self.spec.action_dim)
        subset = torch.randperm(config.ensemble_size, generator=self.generator)
        return CriticNoise(
            torch.randn(shape, generator=self.generator),
            subset[: config.subset_size],
            self._masks(config.subset_size),
            self._masks(config.ensemble_size),
        )

    def draw_actor_noise(self) -> tuple[Tensor, list[Tensor] | None]:
        """The randomness of an actor step: noise of the actions and dropout of the critics."""
        shape = (self.config.batch_size, self.spec.action_dim)
        noise = torch.randn(shape, generator=self.generator)
        return noise, self._masks(self.config.ensemble_size)

    def _masks(self, critics: int) -> list[Tensor] | None:
        dropout = self.config.dropout
        if not dropout:
            return None
        masks = (
            torch.rand(critics, self.config.batch_size, width, generator=self.generator)
            for width in self.config.hidden
        )
        return [(mask >= dropout).float() / (1.0 - dropout) for mask in masks]

    def _average(self, *gradients: Tensor) -> None:
        if self.average_gradients is not None:
            for vector in gradients:
                self.average_gradients(vector)

    def _check(self, metrics: dict[str, float], gradients: Tensor, name: str, batch: Batch) -> None:
        quantities = {**metrics, f"{name} gradient norm": float(gradients.norm())}
        where = f"critic step {self.critic_steps} of update {self.updates}"
        refuse_non_finite(quantities, batch, where)

    def state_tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name, shared (not copied)."""
        state = {
            "critic": self.critic.flat.values,
            "target": self.target.flat.values,
            "actor": self.actor_flat.values,
            "log_temperature": self.log_temperature,
            "generator": self.generator.get_state(),
            "actor_generator": self.actor.generator.get_state(),
        }
        for name, optimiser in self._optimisers().items():
            state[f"{name}_first"], state[f"{name}_second"] = optimiser.first, optimiser.second
        return state

    def state_values(self) -> dict[str, object]:
        """The rest of the state: counters and random state, as JSON holds them."""
        return {
            "updates": self.updates,
            "critic_steps": self.critic_steps,
            "optimiser_steps": {name: o.steps for name, o in self._optimisers().items()},
            "rng": self.rng.bit_generator.state,
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict) -> None:
        """The inverse of `state_tensors` and `state_values`, in place."""
        own = self.state_tensors()
        for name, tensor in own.items():
            found = tensors[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise ValueError(
                    f"state {name}: found {tuple(found.shape)} {found.dtype}, expected "
                    f"{tuple(tensor.shape)} {tensor.dtype}"
                )
            tensor.copy_(found)
        self.generator.set_state(tensors["generator"])
        self.actor.generator.set_state(tensors["actor_generator"])
        for name, optimiser in self._optimisers().items():
            optimiser.steps = int(values["optimiser_steps"][name])
        self.rng.bit_generator.state = values["rng"]
        self.updates, self.critic_steps = int(values["updates"]), int(values["critic_steps"])

    def _optimisers(self) -> dict[str, FlatAdam]:
        return {
            "critic_optimiser": self.critic_optimiser,
            "actor_optimiser": self.actor_optimiser,
            "temperature_optimiser": self.temperature_optimiser,
        }
