# SPDX-License-Identifier: Apache-2.0
"""RLPD: off-policy reinforcement learning from prior and online data (Ball et al., 2023).

For each update: `utd` times, a batch (partly from prior data), a target from the minimum of a
random subset of the target critics, one step of all critics, and the target moves along; then
one step of the actor up the mean of the critics, and one of the temperature.

With images each batch is first encoded: the encoder turns its images, shifted at random as in DrQ,
into features beside the state. Actor and critics share that one encoder. It has no copy that
lags behind, as in DrQ-v2, and its gradients come from the critics' loss alone, unless
`encoder_gradients` says both: then from the actor's too, through the features that the actor takes.

`Engine` executes the equations as they stand here. Those of engines/ compute the same faster, compiled
or as a CUDA graph; tests hold all of them to an independent NumPy computation.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlif_learner.algorithms.critics import EnsembleCritic, FlatParameters
from rlif_learner.algorithms.noise import CriticNoise, UpdateNoise, draw_noise, independent_seeds
from rlif_learner.algorithms.optim import FlatAdam, NonFiniteError, refuse_non_finite, replace_where
from rlif_learner.config import RLPDConfig
from rlif_learner.data.augmentation import shift_cameras
from rlif_learner.data.batch import Batch
from rlif_learner.data.sampling import Buffers, sample_mixed
from rlif_learner.data.steps import StepRecord
from rlif_learner.vision import low_precision
from rlif_policy.networks import Actor, PolicySpec, encoder_part

__all__ = ["RLPD", "NonFiniteError", "Record"]

CRITIC_METRICS = ("critic_loss", "value", "critic_grad_norm")
ACTOR_METRICS = ("actor_loss", "entropy", "temperature", "temperature_loss", "actor_grad_norm")


@dataclass(frozen=True)
class Record:
    """What came of an update, on the device."""

    critics: Tensor  # [utd, CRITIC_METRICS]
    actor: Tensor  # [ACTOR_METRICS]


class RLPD:
    """The algorithm and its state. All randomness comes from generators of independent seeds, derived
    from `seed`.

    `trunk`: pretrained weights of the image encoder's trunk (rlif_policy.pretrained), where it has some.
    `device`: "cpu" or "cuda". `engine`: what executes the updates; rlif_learner.engines.select.accelerate
    puts a faster one in its place.
    """

    def __init__(
        self,
        config: RLPDConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: str | torch.device = "cpu",
        trunk: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.spec, self.device = config, spec, torch.device(device)
        self.engine = Engine(self)
        critic_seed, actor_seed, noise_seed, batch_seed = independent_seeds(seed, 4)
        generator = torch.Generator().manual_seed(critic_seed)  # the same weights on every device
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.rng = np.random.default_rng(batch_seed)
        self.actor = Actor(spec, actor_seed, trunk).to(self.device)
        self.critic = EnsembleCritic(spec, config, generator, self.device)
        self.target = EnsembleCritic(spec, config, generator, self.device)
        self.target.flat.values.copy_(self.critic.flat.values)
        self.target.requires_grad_(False)
        self.critic.normaliser = self.target.normaliser = self.actor.normaliser
        self.log_temperature = torch.full(
            (1,), math.log(config.initial_temperature), device=self.device
        )
        self.target_entropy = (
            -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        )
        self.actor_flat = FlatParameters(self.actor.decision_parameters())
        # What drives the robot, is evaluated and stored: the actor, or the moving average of it.
        self.policy, self.average_flat = self.actor, self.actor_flat
        if config.actor_average:
            self.policy = Actor(spec, actor_seed).to(self.device)
            self.policy.encoder, self.policy.normaliser = self.actor.encoder, self.actor.normaliser
            self.average_flat = FlatParameters(self.policy.decision_parameters())
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
        self.encoder = self.actor.encoder
        if self.encoder is not None:
            self.encoder.low_precision = low_precision(config, self.device)
            self.encoder_flat = FlatParameters(self.encoder.trained())
            self.encoder_optimiser = FlatAdam(
                self.encoder_flat.values, config.encoder_learning_rate
            )
        # False from a step on whose numbers are not finite: nothing changes any more.
        self.healthy = torch.ones((), dtype=torch.bool, device=self.device)
        # Several processes (distributed.py): replaces gradients by their mean over all of them.
        self.average_gradients: Callable[[Tensor], None] | None = None
        self.updates = 0
        self.critic_steps = 0

    @property
    def temperature(self) -> Tensor:
        """The weight of the entropy, [1]."""
        return self.log_temperature.exp()

    # ---- the update, in the order of its equations

    def update(self, buffers: Buffers) -> dict[str, float]:
        """`utd` critic steps, one actor step, one temperature step. Returns their metrics; on a GPU
        those of the update before.

        NonFiniteError names the quantity and the batch; no weight was changed by that batch.
        """
        return self.engine.update(buffers)

    def learn(self, batches: Batch, noise: UpdateNoise) -> Record:
        """All of an update, as tensors on the device: critics, then actor and temperature."""
        last, critics = self.engine.step_critics(batches, noise)
        return Record(critics, self.actor_step(last, noise.action, noise.masks))

    def step_critics(self, batches: Batch, noise: UpdateNoise) -> tuple[Batch, Tensor]:
        """A critic step on each of the batches. Returns the last batch as the actor's step takes it,
        and the CRITIC_METRICS [utd, 3]."""
        steps, shifts = [], noise.shifts
        # The actor stands still during the critic steps: without an encoder, one pass for all of them.
        ahead = None
        if self.encoder is None:
            ahead = self.next_actions(batches.next_states, noise.critics.next_action)
        for i in range(self.config.utd):
            own = noise.critics.step(i)
            batch = self.encode(batches[i], None if shifts is None else shifts[i])
            if ahead is None:
                next_actions = self.next_actions(batch.next_states, own.next_action)
            else:
                next_actions = ahead[0][i], ahead[1][i]
            steps.append(self.critic_step(batch, next_actions, own))
        if self.config.encoder_gradients == "both":
            batch = self.encode(batches[-1], None if shifts is None else shifts[-1])
        else:
            batch = replace(batch, states=batch.states.detach())
        return batch, torch.stack(steps)

    def critic_step(
        self, batch: Batch, next_actions: tuple[Tensor, Tensor], noise: CriticNoise
    ) -> Tensor:
        """One gradient step of all critics on one batch; the target critics follow. Returns the
        CRITIC_METRICS."""
        target = self.critic_target(batch, next_actions, noise)
        if self.encoder is not None:
            self.encoder_flat.gradients.zero_()
        losses = self.engine.critic_gradients(batch, target, noise.masks)  # of critic_loss
        gradients = self.critic.flat.gradients
        self._average(gradients, losses)
        metrics = torch.cat([losses, self._norm(gradients)])
        self._check(metrics)
        self.critic_optimiser.step(gradients, self.healthy)
        self._step_encoder()
        moved = self.target.flat.values.lerp(self.critic.flat.values, self.config.tau)
        replace_where(self.healthy, self.target.flat.values, moved)
        return metrics

    @torch.no_grad()
    def critic_target(
        self, batch: Batch, next_actions: tuple[Tensor, Tensor], noise: CriticNoise
    ) -> Tensor:
        """r + discount * (1 - terminal) * (min over the subset of Q'(s', a') - entropy): [batch]

        With `clip_positive_values` that minimum is at most 0, as no sum of such rewards is above it
        (Andrychowicz et al., 2017, clip targets the same way). `critic_kernel.cpp` is the same, compiled.
        """
        values = self.engine.target_values(batch, next_actions[0], noise)
        rewards, discounts = self.target_terms(batch, next_actions[1])
        return rewards + discounts * values.amin(dim=0).clamp(max=self.max_next_value)

    @property
    def max_next_value(self) -> float:
        """What the values of next states are clipped to."""
        return 0.0 if self.config.clip_positive_values else math.inf

    @torch.no_grad()
    def target_terms(self, batch: Batch, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """What the least value of the next state is multiplied by, after what is added to it."""
        discounts = self.config.discount * (1.0 - batch.terminals)
        if not self.config.entropy_in_target:
            return batch.rewards, discounts
        return batch.rewards - discounts * self.temperature * log_prob, discounts

    def critic_loss(
        self, batch: Batch, target: Tensor, masks: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean over critics and batch of (Q(s, a) - target)^2, and the mean of Q. `critic_kernel.cpp`
        is the same, compiled."""
        values = self.engine.values(self.critic, batch.states, batch.actions, masks=masks)
        return (values - target).square().mean(), values.mean()

    @torch.no_grad()
    def next_actions(self, next_states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's actions in the next states, and their log probabilities."""
        return self.actor.sample(next_states, noise)

    def actor_step(self, batch: Batch, noise: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """One step of the actor up the mean of all critics, then one of the temperature. Returns the
        ACTOR_METRICS."""
        action, log_prob = self.actor.sample(batch.states, noise)
        # The critics take the features as they are: an encoder that could raise values by itself would,
        # and its features soon told nothing (`encoder_gradients` both).
        value = self.engine.mean_value(batch.states.detach(), action, masks)
        temperature = self.temperature
        loss = (temperature * log_prob - value).mean()
        entropy = -log_prob.detach().mean()
        self.actor_flat.gradients.zero_()
        trained, both = self.actor_flat.parameters, self.config.encoder_gradients == "both"
        if self.encoder is not None and both:
            self.encoder_flat.gradients.zero_()
            trained = [*trained, *self.encoder_flat.parameters]
        loss.backward(inputs=trained)
        # d/d(log temperature) of temperature * (entropy - target) is that product itself.
        temperature_loss = temperature * (entropy - self.target_entropy)
        gradients, temperature_gradient = self.actor_flat.gradients, temperature_loss.clone()
        losses = torch.stack([loss.detach(), entropy, temperature[0], temperature_loss[0]])
        self._average(gradients, temperature_gradient, losses)
        metrics = torch.cat([losses, self._norm(gradients, both)])
        self._check(metrics)
        self.actor_optimiser.step(gradients, self.healthy)
        if self.config.actor_average:
            average, share = self.average_flat.values, 1.0 - self.config.actor_average
            replace_where(self.healthy, average, average.lerp(self.actor_flat.values, share))
        if both:
            self._step_encoder()
        self.temperature_optimiser.step(temperature_gradient, self.healthy)
        return metrics

    def encode(self, batch: Batch, shifts: Tensor | None) -> Batch:
        """The batch with the encoder's features beside its states, in place of images. Gradients reach
        the encoder through `states` alone. Maps of a frozen trunk are not shifted."""
        if self.encoder is None:
            return batch
        images, next_images = batch.images, batch.next_images
        if shifts is not None:
            images = shift_cameras(images, shifts[0])
            next_images = shift_cameras(next_images, shifts[1])
        states = self.actor.encode(batch.states, images)
        with torch.no_grad():
            next_states = self.actor.encode(batch.next_states, next_images)
        return replace(batch, states=states, next_states=next_states, images=(), next_images=())

    # ---- around each optimiser step

    def _average(self, *gradients: Tensor) -> None:
        if self.average_gradients is not None:
            for vector in gradients:
                self.average_gradients(vector)

    def _norm(self, gradients: Tensor, with_encoder: bool = True) -> Tensor:
        """Norm of these gradients and the encoder's, which are averaged here: [1]"""
        squared = gradients.square().sum()
        if self.encoder is not None and with_encoder:
            self._average(self.encoder_flat.gradients)
            squared = squared + self.encoder_flat.gradients.square().sum()
        return squared.sqrt()[None]

    def _check(self, metrics: Tensor) -> None:
        """No step is taken from here on if they are not finite."""
        self.healthy.logical_and_(metrics.isfinite().all())

    def _step_encoder(self) -> None:
        if self.encoder is not None:
            self.encoder_optimiser.step(self.encoder_flat.gradients, self.healthy)

    @torch.no_grad()
    def value(self, step: StepRecord) -> float:
        """Mean of all critics of the action executed at a step, which is as the buffers store it."""
        parts = (step.state, step.action, *(step.images if self.encoder else ()))
        state, action, *images = (torch.tensor(part, device=self.device)[None] for part in parts)
        return self.critic(self.actor.encode(state, images), action).mean().item()

    # ---- before and after an update

    def draw_batches(self, buffers: Buffers) -> Batch:
        """The batches of an update, [utd, batch, ...], on the processor."""
        config = self.config
        return sample_mixed(
            buffers.online, buffers.prior, config.batch_size, config.prior_ratio, self.rng,
            count=config.utd, images=bool(self.spec.images), refused_ratio=config.refused_ratio,
        )  # fmt: skip

    def draw_noise(self) -> UpdateNoise:
        """The randomness of one update, from the own generator."""
        return draw_noise(self.config, self.spec, self.generator)

    def count(self) -> tuple[int, int]:
        """Count an update that begins; returns updates and critic steps before it."""
        begun = self.updates, self.critic_steps
        self.updates, self.critic_steps = begun[0] + 1, begun[1] + self.config.utd
        return begun

    def report(self, record: Record, batches: Batch, begun: tuple[int, int]) -> dict[str, float]:
        """The metrics of an update by name; waits for the device. `begun`: what `count` returned.

        NonFiniteError if a step of it was refused; only the steps before it are then counted.
        """
        steps = [dict(zip(CRITIC_METRICS, row, strict=True)) for row in record.critics.tolist()]
        actor = dict(zip(ACTOR_METRICS, record.actor.tolist(), strict=True))
        try:
            for i, metrics in enumerate(steps):
                refuse_non_finite(metrics, batches[i], f"critic step {i} of update {begun[0]}")
            refuse_non_finite(actor, batches[-1], f"the actor's step of update {begun[0]}")
        except NonFiniteError:
            self.healthy.fill_(True)  # the weights are: learning can go on from them
            good = [
                all(map(math.isfinite, metrics.values())) for metrics in [*steps, {"": math.nan}]
            ]
            self.updates, self.critic_steps = begun[0], begun[1] + good.index(False)
            raise
        return steps[-1] | actor

    # ---- state

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
        if self.config.actor_average:
            state["policy"] = self.average_flat.values
        state |= encoder_part(self.actor.export_state_dict()) | self.actor.normaliser_part()
        for name, optimiser in self._optimisers().items():
            state[f"{name}_first"], state[f"{name}_second"] = optimiser.first, optimiser.second
        return state

    def state_values(self) -> dict[str, object]:
        """The rest of the state: counters and random state, as JSON holds them."""
        return {
            "updates": self.updates,
            "critic_steps": self.critic_steps,
            "optimiser_steps": {name: o.steps for name, o in self._optimisers().items()},
            # Without what was drawn ahead of the update that uses it.
            "rng": self.engine.rng_state(),
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict) -> None:
        """The inverse of `state_tensors` and `state_values`, in place."""
        own = self.state_tensors()
        # Not in those of earlier versions, or of other settings.
        tensors = {**self.actor.normaliser_part(), "policy": tensors["actor"], **tensors}
        for name, tensor in own.items():
            found = tensors[name]
            if name.endswith("generator"):
                continue
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise ValueError(
                    f"state {name}: found {tuple(found.shape)} {found.dtype}, expected "
                    f"{tuple(tensor.shape)} {tensor.dtype}"
                )
            tensor.copy_(found)
        self._load_generator(tensors["generator"])
        self.actor.generator.set_state(tensors["actor_generator"])
        for name, optimiser in self._optimisers().items():
            optimiser.steps = int(values["optimiser_steps"][name])
        self.rng.bit_generator.state = values["rng"]
        self.engine.forget()
        self.updates, self.critic_steps = int(values["updates"]), int(values["critic_steps"])

    def _load_generator(self, state: Tensor) -> None:
        if state.shape == self.generator.get_state().shape:
            self.generator.set_state(state)
            return
        warnings.warn(
            f"the checkpoint is of another kind of device than {self.device}: its random numbers "
            "cannot go on there, others are drawn from here on",
            stacklevel=3,
        )
        self.generator.manual_seed(int.from_bytes(hashlib.sha256(bytes(state)).digest()[:8], "big"))

    def _optimisers(self) -> dict[str, FlatAdam]:
        optimisers = {
            "critic_optimiser": self.critic_optimiser,
            "actor_optimiser": self.actor_optimiser,
            "temperature_optimiser": self.temperature_optimiser,
        }
        if self.encoder is not None:
            optimisers["encoder_optimiser"] = self.encoder_optimiser
        return optimisers


class Engine:
    """Executes the updates of a learner in plain PyTorch, as they stand above.

    Those of engines/ derive from it and replace what they do faster: when an update is drawn and
    reported, or how the numbers of the critics are computed. All give the same, to their precision.
    """

    def __init__(self, learner: RLPD) -> None:
        """ValueError for a format that the learner's device lacks."""
        self.learner = learner
        config, device = learner.config, learner.device
        on_gpu = device.type != "cpu"
        if on_gpu and config.precision == "float16":
            raise ValueError(
                f"precision: found 'float16' on {device}, expected float32, bfloat16 or auto there"
            )
        # With images the convolutions alone are in 16 bits, on every device.
        self.autocast = on_gpu and config.precision != "float32" and learner.spec.encoder is None

    def update(self, buffers: Buffers) -> dict[str, float]:
        """One update: draw its batches and noise, learn, report. Returns its metrics, or those of the
        update before where updates overlap. NonFiniteError as of RLPD.update."""
        learner = self.learner
        batches, begun = learner.draw_batches(buffers), learner.count()
        on_device = Batch.from_tensors(tensor.to(learner.device) for tensor in batches.tensors())
        return learner.report(learner.learn(on_device, learner.draw_noise()), batches, begun)

    def finish(self) -> dict[str, float]:
        """Wait for an update that still runs; returns its metrics, none where there is none."""
        return {}

    def rng_state(self) -> Mapping[str, Any]:
        """State of the generator of batches, without what was drawn ahead."""
        return self.learner.rng.bit_generator.state

    def forget(self) -> None:
        """Drop what was drawn ahead: the learner's state was replaced."""

    def step_critics(self, batches: Batch, noise: UpdateNoise) -> tuple[Batch, Tensor]:
        """What RLPD.step_critics does."""
        return self.learner.step_critics(batches, noise)

    def critic_gradients(self, batch: Batch, target: Tensor, masks: list[Tensor] | None) -> Tensor:
        """The gradients of RLPD.critic_loss, into the critics' flat vector (and the encoder's); returns
        the loss and the mean value, [2]."""
        loss, value = self.learner.critic_loss(batch, target, masks)
        self.learner.critic.flat.gradients.zero_()
        loss.backward()
        return torch.stack([loss.detach(), value.detach()])

    def target_values(self, batch: Batch, actions: Tensor, noise: CriticNoise) -> Tensor:
        """Values [subset, batch] of `actions` in the next states, by the target critics."""
        target, masks = self.learner.target, noise.target_masks
        return self.values(target, batch.next_states, actions, noise.subset, masks)

    def mean_value(self, states: Tensor, actions: Tensor, masks: list[Tensor] | None) -> Tensor:
        """Mean of all critics [batch], with its derivative by the actions."""
        return self.values(self.learner.critic, states, actions, masks=masks).mean(dim=0)

    def values(
        self, critic: EnsembleCritic, states: Tensor, actions: Tensor,
        subset: Tensor | None = None, masks: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """`critic(states, actions, subset, masks)`, its products alone in the engine's precision."""
        device = self.learner.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast, cache_enabled=False):
            return critic(states, actions, subset, masks).float()
