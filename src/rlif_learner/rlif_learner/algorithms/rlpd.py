"""RLPD: off-policy reinforcement learning from prior and online data, line by line.

For each update: `utd` times, a batch (partly from prior data), a target from the minimum of a
random subset of the target critics, one step of all critics, and the target moves along; then
one step of the actor up the mean of the critics, and one of the temperature.

With images each batch is first *seen*: the encoder turns its images into features beside the state
(`see`), shifted at random as in DrQ. Actor and critics share that one encoder. It has no copy that
lags behind, as in DrQ-v2, and its gradients come from the critics' loss alone, unless
`encoder_gradients` says both: then from the actor's too, through what the actor sees.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlif_learner.algorithms.critics import EnsembleCritic, FlatParameters
from rlif_learner.algorithms.noise import CriticNoise, UpdateNoise, draw_noise, independent_seeds
from rlif_learner.algorithms.optim import FlatAdam, NonFiniteError, refuse_non_finite, replace_where
from rlif_learner.config import RLPDConfig
from rlif_learner.data.augmentation import shift_cameras
from rlif_learner.data.buffer import Batch, Buffers, sample_mixed
from rlif_learner.engines.critic_kernel import StepData, make_kernel
from rlif_learner.engines.cuda_graph import DeviceUpdates
from rlif_learner.vision import low_precision
from rlif_policy.networks import Actor, PolicySpec, encoder_part

__all__ = ["RLPD", "NonFiniteError", "Record"]

CRITIC_METRICS = ("critic_loss", "value", "critic gradient norm")
ACTOR_METRICS = ("actor_loss", "entropy", "temperature", "temperature_loss", "actor gradient norm")


@dataclass(frozen=True)
class Record:
    """What came of an update, on the device."""

    critics: Tensor  # [utd, CRITIC_METRICS]
    actor: Tensor  # [ACTOR_METRICS]


def device_precision(config: RLPDConfig, device: torch.device) -> bool:
    """Whether products on a GPU are in bfloat16. ValueError for formats that are not offered there."""
    if device.type == "cpu":
        return False
    if config.precision == "float16":
        raise ValueError(
            f"precision: found 'float16' on {device}, expected float32, bfloat16 or auto there"
        )
    return config.precision != "float32"


class RLPD:
    """The algorithm and its state. All randomness comes from generators of independent seeds,
    derived from `seed`.

    `trunk`: pretrained weights of the image encoder's trunk (rlif_policy.pretrained), where it has some.
    `accelerate`: compiled passes of the critics where there can be some (see critic_kernel.py);
    they are compiled here, so that no update ever waits for a compiler. `device`: "cpu" or "cuda";
    on a GPU nothing in an update waits for the host (see cuda_graph.py).
    """

    def __init__(
        self,
        config: RLPDConfig,
        spec: PolicySpec,
        seed: int = 0,
        accelerate: bool = True,
        device: str | torch.device = "cpu",
        trunk: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.spec, self.device = config, spec, torch.device(device)
        # With images the convolutions alone are in 16 bits, on every device.
        self.autocast = device_precision(config, self.device) and spec.encoder is None
        critic_seed, actor_seed, noise_seed, batch_seed = independent_seeds(seed, 4)
        generator = torch.Generator().manual_seed(critic_seed)  # the same weights on every device
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.rng = np.random.default_rng(batch_seed)
        self.actor = Actor(spec, actor_seed, trunk).to(self.device)
        self.critic = EnsembleCritic(spec, config, generator, self.device)
        self.target = EnsembleCritic(spec, config, generator, self.device)
        self.target.flat.values.copy_(self.critic.flat.values)
        self.target.requires_grad_(False)
        self.log_temperature = torch.full(
            (1,), math.log(config.initial_temperature), device=self.device
        )
        self.target_entropy = (
            -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        )
        self.actor_flat = FlatParameters(self.actor.decision_parameters())
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
        # The compiled critics give no gradients to the encoder, beside which they cost little.
        compiled = accelerate and self.encoder is None
        self.kernel = make_kernel(self.critic, config) if compiled else None
        self.ahead: DeviceUpdates | None = None
        if self.device.type != "cpu":
            self.ahead = DeviceUpdates(self)

    @property
    def temperature(self) -> Tensor:
        """The weight of the entropy, [1]."""
        return self.log_temperature.exp()

    def update(self, buffers: Buffers) -> dict[str, float]:
        """`utd` critic steps, one actor step, one temperature step. Returns their metrics; on a GPU
        those of the update before.

        NonFiniteError names the quantity and the batch; no weight was changed by that batch.
        """
        if self.ahead is not None:
            return self.ahead.update(buffers)
        batches = self.draw_batches(buffers)
        begun = self.count()
        return self.report(self.learn(batches, self.draw_noise()), batches, begun)

    def count(self) -> tuple[int, int]:
        """Count an update that begins; returns updates and critic steps before it."""
        begun = self.updates, self.critic_steps
        self.updates, self.critic_steps = begun[0] + 1, begun[1] + self.config.utd
        return begun

    def draw_batches(self, buffers: Buffers) -> Batch:
        """The batches of an update, [utd, batch, ...], on the processor."""
        config = self.config
        return sample_mixed(
            buffers.online, buffers.prior, config.batch_size, config.prior_ratio, self.rng,
            count=config.utd, images=bool(self.spec.images),
        )  # fmt: skip

    def learn(self, batches: Batch, noise: UpdateNoise) -> Record:
        """All of an update, as tensors on the device."""
        if self.encoder is not None:
            return self._learn_from_images(batches, noise)
        # The actor stands still during the critic steps: one pass for all of them.
        actions, log_probs = self.next_actions(batches.next_states, noise.critics.next_action)
        if self.kernel is not None and self.average_gradients is None:
            critics = self._compiled_critic_steps(batches, actions, log_probs, noise.critics.subset)
        else:
            steps = [
                self.critic_step(batches[i], (actions[i], log_probs[i]), noise.critics.step(i))
                for i in range(self.config.utd)
            ]
            critics = torch.stack(steps)
        return Record(critics, self.actor_step(batches[-1], noise.action, noise.masks))

    def _learn_from_images(self, batches: Batch, noise: UpdateNoise) -> Record:
        """`learn`, with an encoder that moves at every critic step."""
        steps = []
        for i in range(self.config.utd):
            batch, critics = batches[i], noise.critics.step(i)
            shifts = None if noise.shifts is None else noise.shifts[i]
            seen = self.see(batch, shifts)
            actions = self.next_actions(seen.next_states, critics.next_action)
            steps.append(self.critic_step(seen, actions, critics))
        if self.config.encoder_gradients == "both":
            seen = self.see(batch, shifts)
        else:
            seen = replace(seen, states=seen.states.detach())
        return Record(torch.stack(steps), self.actor_step(seen, noise.action, noise.masks))

    def see(self, batch: Batch, shifts: Tensor | None) -> Batch:
        """The batch with wide states in place of states and images. Gradients reach the encoder
        through `states` alone. Images that a frozen trunk has seen already are not shifted."""
        images, next_images = batch.images, batch.next_images
        if shifts is not None:
            images = shift_cameras(images, shifts[0])
            next_images = shift_cameras(next_images, shifts[1])
        states = self.actor.widen(batch.states, images)
        with torch.no_grad():
            next_states = self.actor.widen(batch.next_states, next_images)
        return replace(batch, states=states, next_states=next_states, images=(), next_images=())

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

    @torch.no_grad()
    def next_actions(self, next_states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's actions in the next states, and their log probabilities."""
        return self.actor.sample(next_states, noise)

    def critic_step(
        self, batch: Batch, next_actions: tuple[Tensor, Tensor], noise: CriticNoise
    ) -> Tensor:
        """One gradient step of all critics on one batch; the target critics follow. Returns the
        CRITIC_METRICS."""
        target = self.critic_target(batch, next_actions, noise)
        gradients = self.critic.flat.gradients
        if self.encoder is not None:
            self.encoder_flat.gradients.zero_()
        losses = self._critic_loss(batch, target, noise)
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
        """r + discount * (1 - terminal) * (min over the subset of Q'(s', a') - entropy): [batch]"""
        if self.kernel is None:
            action, masks = next_actions[0], noise.target_masks
            values = self._values(self.target, batch.next_states, action, noise.subset, masks)
        else:
            inputs = self.target.inputs(batch.next_states, next_actions[0])
            values = self.kernel.values(self.target.flat.values, inputs, noise.subset)
        rewards, discounts = self.target_terms(batch, next_actions[1])
        return rewards + discounts * values.amin(dim=0)

    def _values(
        self,
        critic: EnsembleCritic,
        states: Tensor,
        actions: Tensor,
        subset: Tensor | None = None,
        masks: list[Tensor] | None = None,
    ) -> Tensor:
        """Of `critic`, with its products alone in low precision, where that is asked of a GPU."""
        device, low = self.device.type, self.autocast
        with torch.autocast(device, torch.bfloat16, enabled=low, cache_enabled=False):
            return critic(states, actions, subset, masks).float()

    @torch.no_grad()
    def target_terms(self, batch: Batch, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """What the least value of the next state is multiplied by, after what is added to it."""
        discounts = self.config.discount * (1.0 - batch.terminals)
        if not self.config.entropy_in_target:
            return batch.rewards, discounts
        return batch.rewards - discounts * self.temperature * log_prob, discounts

    def _compiled_critic_steps(
        self, batches: Batch, next_actions: Tensor, log_probs: Tensor, subset: Tensor
    ) -> Tensor:
        """The critic steps of an update in one call; the CRITIC_METRICS of each."""
        assert self.kernel is not None
        data = StepData(
            self.critic.inputs(batches.states, batches.actions),
            self.critic.inputs(batches.next_states, next_actions),
            *self.target_terms(batches, log_probs),
            subset,
        )
        done, metrics = self.kernel.critic_steps(
            self.critic_optimiser, self.critic.flat.gradients, self.target.flat.values,
            self.config.tau, data,
        )  # fmt: skip
        self.healthy.fill_(done == len(metrics))
        return metrics

    def _critic_loss(self, batch: Batch, target: Tensor, noise: CriticNoise) -> Tensor:
        """Mean over critics and batch of (Q - target)^2, whose gradients go to the flat vector, and
        the mean of Q: [2]"""
        flat = self.critic.flat
        if self.kernel is not None:
            inputs = self.critic.inputs(batch.states, batch.actions)
            return torch.tensor(
                self.kernel.loss_gradients(flat.values, inputs, target, flat.gradients)
            )
        values = self._values(self.critic, batch.states, batch.actions, masks=noise.masks)
        squared = (values - target).square().mean()
        flat.gradients.zero_()
        squared.backward()
        return torch.stack([squared.detach(), values.detach().mean()])

    def actor_step(self, batch: Batch, noise: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """One step of the actor up the mean of all critics, then one of the temperature. Returns the
        ACTOR_METRICS."""
        action, log_prob = self.actor.sample(batch.states, noise)
        # The values look at what was seen as it is: an encoder that could raise them by itself would,
        # and soon saw nothing (`encoder_gradients` both).
        value = self._mean_value(batch.states.detach(), action, masks)
        temperature = self.temperature
        loss = (temperature * log_prob - value).mean()
        entropy = -log_prob.detach().mean()
        self.actor_flat.gradients.zero_()
        trained, seeing = self.actor_flat.parameters, self.config.encoder_gradients == "both"
        if self.encoder is not None and seeing:
            self.encoder_flat.gradients.zero_()
            trained = [*trained, *self.encoder_flat.parameters]
        loss.backward(inputs=trained)
        # d/d(log temperature) of temperature * (entropy - target) is that product itself.
        temperature_loss = temperature * (entropy - self.target_entropy)
        gradients, temperature_gradient = self.actor_flat.gradients, temperature_loss.clone()
        losses = torch.stack([loss.detach(), entropy, temperature[0], temperature_loss[0]])
        self._average(gradients, temperature_gradient, losses)
        metrics = torch.cat([losses, self._norm(gradients, seeing)])
        self._check(metrics)
        self.actor_optimiser.step(gradients, self.healthy)
        if seeing:
            self._step_encoder()
        self.temperature_optimiser.step(temperature_gradient, self.healthy)
        return metrics

    def _mean_value(self, states: Tensor, action: Tensor, masks: list[Tensor] | None) -> Tensor:
        """Mean of all critics [batch], with its derivative by the action."""
        if self.kernel is None:
            return self._values(self.critic, states, action, masks=masks).mean(dim=0)
        inputs = self.critic.inputs(states, action.detach())
        value, slope = self.kernel.input_gradients(self.critic.flat.values, inputs)
        # Same value, same derivative: the second term is zero, its derivative is the slope.
        return value + (slope[:, states.shape[1] :] * (action - action.detach())).sum(dim=-1)

    def _norm(self, gradients: Tensor, seeing: bool = True) -> Tensor:
        """Of these gradients and, with `seeing`, the encoder's, if there is one; averaged first: [1]"""
        squared = gradients.square().sum()
        if self.encoder is not None and seeing:
            self._average(self.encoder_flat.gradients)
            squared = squared + self.encoder_flat.gradients.square().sum()
        return squared.sqrt()[None]

    def _step_encoder(self) -> None:
        if self.encoder is not None:
            self.encoder_optimiser.step(self.encoder_flat.gradients, self.healthy)

    def draw_noise(self) -> UpdateNoise:
        """The randomness of one update, from the own generator."""
        return draw_noise(self.config, self.spec, self.generator)

    def _average(self, *gradients: Tensor) -> None:
        if self.average_gradients is not None:
            for vector in gradients:
                self.average_gradients(vector)

    def _check(self, metrics: Tensor) -> None:
        """No step is taken from here on if they are not finite."""
        self.healthy.logical_and_(metrics.isfinite().all())

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
        state |= encoder_part(self.actor.carried())
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
            "rng": self.ahead.rng_state() if self.ahead else self.rng.bit_generator.state,
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict) -> None:
        """The inverse of `state_tensors` and `state_values`, in place."""
        own = self.state_tensors()
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
        if self.ahead:
            self.ahead.forget()
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
