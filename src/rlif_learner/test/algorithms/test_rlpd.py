# SPDX-License-Identifier: Apache-2.0
"""RLPD against an independent NumPy computation, and the rules of its updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy_rlpd import NumpyRLPD

from rlif_learner.algorithms.rlpd import ACTOR_METRICS, CRITIC_METRICS, RLPD, NonFiniteError
from rlif_learner.config import RLPDConfig
from rlif_learner.data.buffer import Batch, Buffers, ReplayBuffer
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=5, action_dim=2, hidden=(16, 16))
SMALL = RLPDConfig(hidden=(16, 16), ensemble_size=4, utd=2, batch_size=32)
SEED = (
    6  # with which losses are about 1: 1e-5 is then of the sixth digit of float32, not of the last
)
CASES = {
    "rlpd": SMALL,
    "rlif": replace(SMALL, hidden=(16, 16, 16), entropy_in_target=False),
    "no_layer_norm": replace(SMALL, layer_norm=False),
    "decay": replace(SMALL, critic_weight_decay=0.3),
    "decay_and_dropout": replace(SMALL, critic_weight_decay=0.1, dropout=0.2),
    "unequal_widths": replace(SMALL, hidden=(16, 24)),
    "subset_1_tau_1": replace(SMALL, subset_size=1, tau=1.0, target_entropy=-0.3),
}


def as_numpy(tensor):
    return tensor.detach().numpy().astype(np.float64)


def critics_of(critic):
    names = {"weight": critic.weights, "bias": critic.biases}
    names |= {"gain": critic.gains, "shift": critic.shifts}
    return [
        {
            (name, i): as_numpy(p[j] if name == "weight" else p[j, 0])
            for name, group in names.items()
            for i, p in enumerate(group)
        }
        for j in range(critic.size)
    ]


def actor_of(actor):
    layers = [*actor.layers, actor.head]
    pairs = [(("weight", i), layer.weight) for i, layer in enumerate(layers)]
    pairs += [(("bias", i), layer.bias) for i, layer in enumerate(layers)]
    return {key: as_numpy(p) for key, p in pairs}


def random_batch(rng, size=32):
    arrays = (
        rng.normal(size=(size, 5)), rng.uniform(-1, 1, (size, 2)), -1.0 * (rng.random(size) < 0.2),
        rng.normal(size=(size, 5)), rng.random(size) < 0.1,
    )  # fmt: skip
    return Batch.from_tensors(torch.tensor(np.asarray(a, np.float32)) for a in arrays)


def perturb(learner, rng):
    """Away from zero biases and unit gains, so that an error in them cannot hide."""
    for flat in (learner.critic.flat, learner.actor_flat):
        noise = rng.normal(scale=0.1, size=len(flat.values))
        flat.values.add_(torch.tensor(noise, dtype=torch.float32))
    learner.target.flat.values.copy_(learner.critic.flat.values)


def numpy_masks(masks):
    return None if masks is None else [as_numpy(mask) for mask in masks]


@pytest.mark.filterwarnings("ignore:no compiled critics.*not covered")
@pytest.mark.parametrize("engine", [accelerate, lambda learner: learner], ids=["fast", "plain"])
@pytest.mark.parametrize("name", CASES)
def test_losses_targets_and_three_updates_equal_numpy_float64(name, engine):
    config, rng = CASES[name], np.random.default_rng(1)
    learner = engine(RLPD(config, SPEC, seed=SEED))
    perturb(learner, rng)
    oracle = NumpyRLPD(config, SPEC.action_dim, critics_of(learner.critic), actor_of(learner.actor))
    for _ in range(3):
        for _ in range(config.utd):
            batch = random_batch(rng)
            arrays = [as_numpy(t) for t in batch.tensors()]
            noise = learner.draw_noise().critics.step(0)
            ahead = learner.next_actions(batch.next_states, noise.next_action)
            found_target = as_numpy(learner.critic_target(batch, ahead, noise))
            found = critic_metrics(learner.critic_step(batch, ahead, noise))
            loss, target = oracle.critic_step(
                arrays, as_numpy(noise.next_action), noise.subset.tolist(),
                numpy_masks(noise.target_masks), numpy_masks(noise.masks),
            )  # fmt: skip
            np.testing.assert_allclose(found_target, target, atol=1e-5)
            assert found["critic_loss"] == pytest.approx(loss, abs=1e-5)
        noise, masks = (drawn := learner.draw_noise()).action, drawn.masks
        found = dict(zip(ACTOR_METRICS, learner.actor_step(batch, noise, masks), strict=True))
        actor_loss, temperature_loss = oracle.actor_step(
            arrays, as_numpy(noise), numpy_masks(masks)
        )
        assert found["actor_loss"] == pytest.approx(actor_loss, abs=1e-5)
        assert found["temperature_loss"] == pytest.approx(temperature_loss, abs=1e-5)
    compare_weights(learner, oracle)


def compare_weights(learner, oracle):
    critics, actor = oracle.critic_adams, [oracle.actor_adam]
    pairs = [
        (critics_of(learner.critic), oracle.critics, critics),
        (critics_of(learner.target), oracle.targets, critics),
        ([actor_of(learner.actor)], [oracle.actor], actor),
    ]
    for found, expected, adams in pairs:
        for a, b, adam in zip(found, expected, adams, strict=True):
            for key in b:
                sure, most = ~adam.undecided[key], 2 * adam.rate * adam.steps
                assert (~sure).sum() <= 1 + 1e-3 * sure.size, key
                np.testing.assert_allclose(a[key][sure], b[key][sure], atol=1e-5, err_msg=str(key))
                np.testing.assert_allclose(a[key], b[key], atol=most, err_msg=str(key))
    np.testing.assert_allclose(as_numpy(learner.log_temperature), oracle.log_temperature, atol=1e-5)


def critic_metrics(row):
    return dict(zip(CRITIC_METRICS, row.tolist(), strict=True))


def filled_buffer(seed=0, episodes=4, length=40, reward_spoiled=False, terminal=False):
    rng, buffer = np.random.default_rng(seed), ReplayBuffer(500, 5, 2)
    sequence, end = 0, 1 if terminal else 3
    for episode in range(1, episodes + 1):
        for t in range(length + 1):
            last = t == length
            buffer.add_step(
                StepRecord(
                    sequence, episode, t, t == 0, last, end if last else 0, 0 if last else 1,
                    False, 0, False, rng.normal(size=5),
                    np.zeros(0) if last else rng.uniform(-1, 1, 2),
                )
            )  # fmt: skip
            sequence += 1
    if reward_spoiled:
        buffer.columns["reward"][:] = np.nan
    return buffer


def all_values(learner):
    tensors = learner.state_tensors()
    return torch.cat([tensors[k].flatten() for k in sorted(tensors) if "generator" not in k])


def test_update_takes_utd_critic_steps_and_one_actor_step():
    learner = accelerate(RLPD(replace(SMALL, utd=3), SPEC))
    metrics = learner.update(Buffers(filled_buffer()))
    assert (learner.updates, learner.critic_steps) == (1, 3)
    assert learner.actor_optimiser.steps == learner.temperature_optimiser.steps == 1
    assert learner.critic_optimiser.steps == 3
    assert {"critic_loss", "actor_loss", "temperature_loss", "entropy"} <= set(metrics)


class Recorder:
    """Hands out a learner's batches and noise, and keeps them."""

    def __init__(self, learner):
        self.batches, self.noise = [], []
        for name, kept in (("draw_batches", self.batches), ("draw_noise", self.noise)):
            setattr(learner, name, self.keeping(getattr(learner, name), kept))

    @staticmethod
    def keeping(draw, kept):
        def drawn(*arguments):
            kept.append(draw(*arguments))
            return kept[-1]

        return drawn


def oracle_update(oracle, batches, noise):
    """The losses of one update: of the last critic step, the actor and the temperature."""
    for i in range(len(batches.rewards)):
        arrays, step = [as_numpy(t) for t in batches[i].tensors()], noise.critics.step(i)
        loss, _ = oracle.critic_step(
            arrays, as_numpy(step.next_action), step.subset.tolist(),
            numpy_masks(step.target_masks), numpy_masks(step.masks),
        )  # fmt: skip
    return loss, *oracle.actor_step(arrays, as_numpy(noise.action), numpy_masks(noise.masks))


@pytest.mark.filterwarnings("ignore:no compiled critics.*not covered")
@pytest.mark.parametrize("engine", [accelerate, lambda learner: learner], ids=["fast", "plain"])
@pytest.mark.parametrize("name", [*CASES, "normalised", "reference_size"])
def test_whole_updates_equal_numpy_float64(name, engine):
    """Each critic step with its own batch and noise. At the reference's full size, where losses are
    sums of more rounded numbers, relative to their own size."""
    spec, config, updates = SPEC, CASES.get(name, SMALL), 3
    if name == "normalised":
        spec = replace(SPEC, state_offset=(0.5,) * 5, state_scale=(2.0, 1.0, 0.5, 3.0, 1.0))
    if name == "reference_size":
        spec, config, updates = PolicySpec(5, 2), RLPDConfig(utd=3), 1
    learner = engine(RLPD(config, spec, seed=SEED))
    perturb(learner, np.random.default_rng(1))
    drawn = Recorder(learner)
    oracle = NumpyRLPD(
        config, 2, critics_of(learner.critic), actor_of(learner.actor),
        spec.state_offset, spec.state_scale,
    )  # fmt: skip
    buffers = Buffers(filled_buffer(terminal=True), filled_buffer(seed=1))
    for _ in range(updates):
        found = learner.update(buffers)
        expected = oracle_update(oracle, drawn.batches[-1], drawn.noise[-1])
        names = ("critic_loss", "actor_loss", "temperature_loss")
        np.testing.assert_allclose([found[n] for n in names], expected, atol=1e-5, rtol=1e-5)
    compare_weights(learner, oracle)


def test_same_seed_same_numbers_whatever_the_global_random_state():
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002 - the very thing that must not matter
        learner = accelerate(RLPD(SMALL, SPEC, seed=5))
        learner.update(Buffers(filled_buffer()))
        results.append(all_values(learner))
    assert torch.equal(*results)


def test_streams_of_critics_actor_and_noise_are_independent():
    """Regression: all were seeded with the same number, and drew the same numbers."""
    streams = []
    for seed in (5, 6):
        learner = RLPD(SMALL, SPEC, seed=seed)
        for weight in (learner.critic.weights[0][0], learner.actor.layers[0].weight):
            streams.append(weight.detach().flatten()[:16].numpy())
        streams.append(torch.rand(16, generator=learner.generator).numpy())
        streams.append(learner.rng.random(16))
    # 1 where two are the same, however they are scaled.
    assert np.abs(np.corrcoef(streams) - np.eye(len(streams))).max() < 0.95


def test_state_goes_through_and_learning_continues_bit_for_bit():
    buffers = Buffers(filled_buffer())
    first, second = (accelerate(RLPD(SMALL, SPEC, seed)) for seed in (1, 2))
    first.actor.normaliser.fit(buffers.online.states())
    assert first.critic.normaliser is first.target.normaliser is first.actor.normaliser
    first.update(buffers)
    second.load_state(
        {k: v.clone() for k, v in first.state_tensors().items()}, first.state_values()
    )
    assert torch.equal(all_values(first), all_values(second))
    for learner in (first, second):
        learner.update(buffers)
    assert torch.equal(all_values(first), all_values(second))


def test_non_finite_batch_changes_no_weight_and_is_named():
    learner = accelerate(RLPD(SMALL, SPEC))
    learner.update(Buffers(filled_buffer()))
    before = all_values(learner).clone()
    with pytest.raises(NonFiniteError, match=r"critic_loss.*update 1.*rewards in 32 of 32 rows"):
        learner.update(Buffers(filled_buffer(reward_spoiled=True)))
    assert torch.equal(all_values(learner), before)
    learner.update(Buffers(filled_buffer()))  # and learning can go on


def test_terminal_transitions_do_not_bootstrap():
    learner = RLPD(SMALL, SPEC)
    batch = random_batch(np.random.default_rng(0))
    noise = learner.draw_noise().critics.step(0)
    ahead = learner.next_actions(batch.next_states, noise.next_action)
    target = learner.critic_target(replace(batch, terminals=torch.ones(32)), ahead, noise)
    assert torch.equal(target, batch.rewards)
