# SPDX-License-Identifier: Apache-2.0
"""RLPD against an independent NumPy computation, and the rules of its updates; then with images: whose
loss trains the encoder, and one update against a slow one in float64."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import slow_vision
import torch
import trunks
import vision_doubles as doubles
from numpy_rlpd import NumpyRLPD

from rlif_learner.algorithms.rlpd import ACTOR_METRICS, CRITIC_METRICS, RLPD, NonFiniteError
from rlif_learner.config import RLPDConfig
from rlif_learner.data.batch import Batch
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore, MismatchError
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Source, StepRecord
from rlif_learner.engines.cuda_graph import CudaGraphEngine
from rlif_learner.engines.select import accelerate
from rlif_learner.vision import low_precision, make_buffer
from rlif_policy.encoders import EncoderSpec
from rlif_policy.inference import NumpyActor
from rlif_policy.networks import PolicySpec
from rlif_policy.processor import processor
from rlif_policy.stored_actor import read_actor
from rlif_policy.weights import pack_weights, unpack_weights

SPEC = PolicySpec(state_dim=5, action_dim=2, hidden=(16, 16))
SMALL = RLPDConfig(hidden=(16, 16), ensemble_size=4, utd=2, batch_size=32)
SEED = (
    6  # with which losses are about 1: 1e-5 is then of the sixth digit of float32, not of the last
)
CASES = {
    "rlpd": SMALL,
    "rlif": replace(SMALL, hidden=(16, 16, 16), entropy_in_target=False),
    "clipped": replace(SMALL, entropy_in_target=False, clip_positive_values=True),
    "no_layer_norm": replace(SMALL, layer_norm=False),
    "decay": replace(SMALL, critic_weight_decay=0.3),
    "decay_and_dropout": replace(SMALL, critic_weight_decay=0.1, dropout=0.2),
    "unequal_widths": replace(SMALL, hidden=(16, 24)),
    "averaged": replace(SMALL, actor_average=0.6),
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
    learner.average_flat.values.copy_(learner.actor_flat.values)


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
        ([actor_of(learner.policy)], [oracle.average], actor),
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
    first, second = (accelerate(RLPD(CASES["averaged"], SPEC, seed)) for seed in (1, 2))
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


def test_the_average_of_the_actor_is_the_policy_and_is_restored(tmp_path):
    """Everything that drives takes it; a run that had none begins with the actor."""
    buffers = Buffers(filled_buffer())
    first, plain = (accelerate(RLPD(c, SPEC, seed=2)) for c in (CASES["averaged"], SMALL))
    first.actor.normaliser.fit(buffers.online.states())
    plain.update(buffers)
    assert plain.policy is plain.actor
    assert all(map(torch.equal, first.policy.parameters(), first.actor.parameters()))
    first.update(buffers)
    stored = read_actor(CheckpointStore(tmp_path).save(first, buffers)).tensors
    assert torch.equal(stored["head.weight"], first.policy.head.weight)
    assert not torch.equal(stored["head.weight"], first.actor.head.weight)
    assert torch.equal(stored["normaliser.offset"], first.actor.normaliser.offset)
    later = accelerate(RLPD(CASES["averaged"], SPEC))
    later.load_state(plain.state_tensors(), plain.state_values())
    assert torch.equal(later.policy.head.weight, plain.actor.head.weight)


def test_the_average_of_an_actor_with_images_has_its_encoder():
    learner = RLPD(replace(CONFIG, actor_average=0.5), SEEING)
    learner.update(doubles.filled(learner.actor, episodes=1))
    assert learner.policy.encoder is learner.actor.encoder
    found = unpack_weights(*pack_weights(learner.policy, SEEING), SEEING)
    assert found.keys() == learner.actor.export_state_dict().keys()
    assert not torch.equal(found["head.weight"], learner.actor.head.weight)


def test_non_finite_batch_changes_no_weight_and_is_named():
    learner = accelerate(RLPD(CASES["averaged"], SPEC))
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


@pytest.mark.parametrize("engine", [accelerate, lambda learner: learner], ids=["fast", "plain"])
def test_clipped_targets_are_at_most_the_reward_and_others_as_they_were(engine):
    targets, batch = {}, random_batch(np.random.default_rng(0))
    for clipped in (False, True):
        config = replace(SMALL, entropy_in_target=False, clip_positive_values=clipped)
        learner = engine(RLPD(config, SPEC, seed=SEED))
        perturb(learner, np.random.default_rng(1))
        noise = learner.draw_noise().critics.step(0)
        ahead = learner.next_actions(batch.next_states, noise.next_action)
        targets[clipped] = learner.critic_target(batch, ahead, noise)
    above = targets[False] > batch.rewards
    assert above.any()
    assert (~above).any()
    assert torch.equal(targets[True], targets[False].minimum(batch.rewards))


IMAGES = ((12, 10, 3), (12, 10, 3))
ENCODER = EncoderSpec(features=6, channels=4, embeddings=2)
SEEING = PolicySpec(3, 2, (16,), images=IMAGES, encoder=ENCODER)
CONFIG = RLPDConfig(
    hidden=(16, 16), ensemble_size=3, utd=2, batch_size=8, random_shift=2, discount=0.9
)
SCALES = {"state_offset": (50.0, 0.1, -0.2), "state_scale": (100.0, 0.5, 2.0)}
LOSSES = ("critic_loss", "actor_loss", "temperature_loss")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """Spec and weights of a frozen trunk."""
    file = trunks.random_file(tmp_path_factory.mktemp("weights"))
    spec, trunk = trunks.random_trunk(file, features=6, frozen=True)
    return SimpleNamespace(
        spec=replace(SEEING, images=((33, 40, 3),) * 2, encoder=spec, **SCALES),
        trunk=trunk,
        file=file,
    )


def perturb_seeing(learner, seed=5):
    """Away from zero biases and unit gains, so that an error in them cannot hide."""
    generator = torch.Generator().manual_seed(seed)
    for flat in (learner.critic.flat, learner.actor_flat, learner.encoder_flat):
        flat.values.add_(0.1 * torch.randn(flat.values.shape, generator=generator))
    learner.target.flat.values.copy_(learner.critic.flat.values)


def make_learner(config=CONFIG, spec=SEEING, seed=1, trunk=None):
    learner = RLPD(config, spec, seed, trunk=trunk)
    perturb_seeing(learner)
    return learner


def copied(learner):
    return {k: v.clone() for k, v in learner.state_tensors().items() if "generator" not in k}


def assert_same(learner, kept):
    found = copied(learner)
    assert found.keys() == kept.keys()
    for name, tensor in kept.items():
        assert torch.equal(found[name], tensor), name


# ---- one update against a slow one

SEEING_CASES = {
    "small": ({}, {}),
    "both": ({"encoder_gradients": "both"}, {}),
    "shared": ({"entropy_in_target": False}, {"shared": True}),
    "clipped": ({"entropy_in_target": False, "clip_positive_values": True}, {}),
    "embedding": ({"same_shift": True}, {"pooling": "spatial_embedding"}),
    "average_both": ({"encoder_gradients": "both", "utd": 1}, {"pooling": "average"}),
    "no_shift": ({"random_shift": 0, "utd": 3}, {}),
    "rates": ({"encoder_learning_rate": 1e-3, "tau": 0.5}, {}),
}


@pytest.mark.parametrize("name", SEEING_CASES)
def test_an_update_equals_a_slow_one_in_float64(name):
    settings, encoder = SEEING_CASES[name]
    spec = replace(SEEING, encoder=replace(ENCODER, **encoder), **SCALES)
    compare(make_learner(replace(CONFIG, **settings), spec))


@pytest.mark.slow
@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_an_update_on_a_frozen_trunk_equals_a_slow_one(resnet, gradients):
    config = replace(CONFIG, encoder_gradients=gradients)
    learner = make_learner(config, resnet.spec, trunk=resnet.trunk)
    compare(learner)


def compare(learner):
    slow, drawn = slow_vision.SlowVision(learner), {}
    for name in ("draw_batches", "draw_noise"):
        keep(learner, name, drawn)
    buffers = doubles.filled(learner.actor)
    before = copied(learner)
    for _ in range(2):
        found = learner.update(buffers)
        expected = slow.update(drawn["draw_batches"], drawn["draw_noise"])
        np.testing.assert_allclose([found[n] for n in LOSSES], expected, atol=1e-5, rtol=1e-5)
    slow.assert_equal(learner, 1e-5)
    heads = [n for n in before if n.startswith("encoder.heads.0")]
    assert all(not torch.equal(before[n], learner.state_tensors()[n]) for n in heads)


def keep(learner, name, drawn):
    draw = getattr(learner, name)

    def drawing(*arguments):
        drawn[name] = draw(*arguments)
        return drawn[name]

    setattr(learner, name, drawing)


# ---- whose gradients


@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_the_critics_loss_trains_the_encoder_and_the_actors_only_if_both(gradients):
    learner = make_learner(replace(CONFIG, encoder_gradients=gradients))
    buffers = doubles.filled(learner.actor)
    batch, noise = learner.draw_batches(buffers)[0], learner.draw_noise()
    before = copied(learner)
    seen = learner.encode(batch, noise.shifts[0])
    ahead = learner.next_actions(seen.next_states, noise.critics.next_action[0])
    learner.critic_step(seen, ahead, noise.critics.step(0))
    slopes = learner.encoder_flat.gradients.clone()
    after_critics = copied(learner)
    for name in (n for n in before if n.startswith("encoder.")):
        assert not torch.equal(before[name], after_critics[name]), name
    assert torch.equal(before["actor"], after_critics["actor"])

    learner.encoder_flat.gradients.zero_()
    critic_slopes = learner.critic.flat.gradients.clone()
    seen = learner.encode(batch, noise.shifts[0])
    if gradients == "critic":
        seen = replace(seen, states=seen.states.detach())
    learner.actor_step(seen, noise.action)
    reached = bool((learner.encoder_flat.gradients != 0).any())
    assert reached == (gradients == "both")
    assert not torch.equal(slopes, learner.encoder_flat.gradients)
    assert torch.equal(critic_slopes, learner.critic.flat.gradients)
    after_actor = copied(learner)
    for name in (n for n in before if n.startswith("encoder.")):
        same = torch.equal(after_actor[name], after_critics[name])
        assert same == (gradients == "critic"), name
    assert learner.encoder_optimiser.steps == (1 if gradients == "critic" else 2)
    assert torch.equal(after_critics["critic"], after_actor["critic"])


def test_the_encoders_gradients_count_in_the_norm():
    """And so a step that would break the encoder is not taken."""
    learner = make_learner()
    buffers = doubles.filled(learner.actor)
    metrics = learner.update(buffers)
    squares = sum(
        float(flat.gradients.square().sum()) for flat in (learner.critic.flat, learner.encoder_flat)
    )
    assert metrics["critic_grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_the_encoders_gradients_are_averaged_over_processes(gradients):
    """Where each hands in what all together make nothing of, nothing moves."""
    learner = make_learner(replace(CONFIG, encoder_gradients=gradients))
    buffers = doubles.filled(learner.actor)
    kept = {n: v for n, v in copied(learner).items() if n.startswith("encoder.")}
    sizes = []

    def average(vector):
        sizes.append(len(vector))
        vector.zero_()

    learner.average_gradients = average
    learner.update(buffers)
    for name, value in kept.items():
        assert torch.equal(learner.state_tensors()[name], value), name
    expected = CONFIG.utd + (gradients == "both")
    assert sizes.count(len(learner.encoder_flat.values)) == expected


def test_a_frozen_trunk_never_moves(resnet):
    learner = make_learner(spec=resnet.spec, trunk=resnet.trunk)
    buffers = doubles.filled(learner.actor)
    for _ in range(2):
        learner.update(buffers)
    for name, value in learner.encoder.trunks[0].state_dict().items():
        assert torch.equal(value, resnet.trunk[name]), name
    assert not any(".trunks." in name for name in learner.state_tensors())


@pytest.mark.slow
def test_a_fine_tuned_trunk_moves_but_its_statistics(resnet):
    spec = replace(resnet.spec, encoder=EncoderSpec("resnet18", features=6, shared=True))
    learner = RLPD(replace(CONFIG, utd=1, batch_size=2), spec, trunk=resnet.trunk)
    learner.update(doubles.filled(learner.actor, episodes=1, length=4))
    moved = {
        name.split(".", 3)[3]
        for name, value in learner.state_tensors().items()
        if ".trunks." in name and not torch.equal(value, resnet.trunk[name.split(".", 3)[3]])
    }
    assert moved
    assert not any("running" in name or "tracked" in name for name in moved)
    assert {"0.weight", "7.1.conv2.weight", "7.1.bn2.bias"} <= moved


# ---- shifts


def test_shifts_are_of_each_image_within_their_bound_and_of_a_pair_alike_if_asked():
    for same in (False, True):
        learner = make_learner(replace(CONFIG, same_shift=same, batch_size=64))
        shifts = learner.draw_noise().shifts
        assert shifts.shape == (2, 2, 2, 64, 2) and shifts.dtype == torch.int64
        assert (shifts.min(), shifts.max()) == (-2, 2)
        assert torch.equal(shifts[:, 0], shifts[:, 1]) == same
        for one, other in ((shifts[0], shifts[1]), (shifts[:, :, 0], shifts[:, :, 1])):
            assert not torch.equal(one, other)  # each critic step, and each camera, its own
        assert not torch.equal(shifts[..., 0], shifts[..., 1])
    for more in ({"random_shift": 0}, {}):
        blind = RLPD(replace(CONFIG, **more), PolicySpec(3, 2, (16,)))
        assert blind.draw_noise().shifts is None


def test_same_shift_moves_both_images_of_a_pair_alike():
    """Pixels tell: after a step in which nothing moved, both images are the same after it, too."""
    for same in (False, True):
        learner = make_learner(replace(CONFIG, same_shift=same))
        buffers = doubles.filled(learner.actor)
        for buffer in (buffers.online, buffers.prior):
            for i in range(2):
                buffer.columns[f"image_{i}"][:] = buffer.columns[f"image_{i}"][:1]
            buffer.columns["state"][:] = buffer.columns["state"][:1]
        batch, noise = learner.draw_batches(buffers)[0], learner.draw_noise()
        seen = learner.encode(batch, noise.shifts[0])
        assert torch.equal(seen.states, seen.next_states) == same
        assert not seen.next_states.requires_grad and seen.states.requires_grad


@pytest.mark.parametrize("most", [4.0, "4", -1, True, 1000, None])
def test_a_bad_shift_is_named(most):
    """Regression: 4.0 was taken for a whole number, and ended the first update."""
    with pytest.raises(ValueError, match="random_shift: found"):
        RLPDConfig(random_shift=most)


def test_other_bad_settings_are_named():
    for name, value in (
        ("encoder_gradients", "actor"), ("same_shift", 1), ("encoder_learning_rate", 0.0)
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            RLPDConfig(**{name: value})


# ---- what is not finite


@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_a_batch_that_is_not_finite_changes_no_weight_the_encoders_included(gradients):
    learner = make_learner(replace(CONFIG, encoder_gradients=gradients))
    buffers = doubles.filled(learner.actor)
    learner.update(buffers)
    kept, steps = copied(learner), learner.encoder_optimiser.steps
    spoiled = doubles.filled(learner.actor)
    for buffer in (spoiled.online, spoiled.prior):
        buffer.columns["reward"][:] = np.nan
    with pytest.raises(NonFiniteError, match=r"critic_loss.*update 1.*rewards in 8 of 8 rows"):
        learner.update(spoiled)
    assert_same(learner, kept)
    assert learner.encoder_optimiser.steps == steps
    learner.update(buffers)  # and learning can go on
    assert learner.encoder_optimiser.steps > steps


def test_what_is_not_finite_in_the_encoder_alone_stops_the_step_too(resnet):
    """The loss is finite there, the gradient of one of its weights is not."""
    learner = make_learner(spec=resnet.spec, trunk=resnet.trunk)
    buffers = doubles.filled(learner.actor)
    kept = copied(learner)
    step = learner.engine.critic_gradients

    def spoil(*arguments):
        losses = step(*arguments)
        learner.encoder_flat.gradients[3] = np.inf
        return losses

    learner.engine.critic_gradients = spoil
    with pytest.raises(NonFiniteError, match="critic_grad_norm"):
        learner.update(buffers)
    assert_same(learner, kept)


def test_features_that_are_not_finite_change_nothing(resnet):
    learner = make_learner(spec=resnet.spec, trunk=resnet.trunk)
    buffers = doubles.filled(learner.actor)
    kept = copied(learner)
    for buffer in (buffers.online, buffers.prior):
        buffer.columns["image_1"][:, 3] = np.inf
    with pytest.raises(NonFiniteError, match="critic_loss"):
        learner.update(buffers)
    assert_same(learner, kept)


# ---- state


def make_pair(resnet, frozen, config=CONFIG):
    """Two learners of the same kind but other weights, and data."""
    spec, trunk = (resnet.spec, resnet.trunk) if frozen else (SEEING, None)
    one, two = (make_learner(config, spec, seed, trunk) for seed in (1, 2))
    return one, two, doubles.filled(one.actor)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_a_checkpoint_resumes_exactly_and_its_actor_sees_the_same(resnet, frozen, tmp_path):
    one, two, buffers = make_pair(resnet, frozen)
    for _ in range(2):
        one.update(buffers)
    store = CheckpointStore(tmp_path)
    path = store.save(one, buffers)
    again = Buffers(make_buffer(500, two.actor), make_buffer(500, two.actor))
    CheckpointStore(tmp_path).load(path, two, again)
    assert_same(two, copied(one))
    for name, column in buffers.online.columns.items():
        np.testing.assert_array_equal(again.online.columns[name], column, err_msg=name)
    for learner, data in ((one, buffers), (two, again)):
        learner.update(data)
    assert_same(two, copied(one))
    assert one.state_values() == two.state_values()

    stored, spec = read_actor(store.save(one, buffers)), one.spec
    acting = NumpyActor(stored.spec, stored.tensors, resnet.trunk if frozen else None)
    rng = np.random.default_rng(0)
    for _ in range(3):
        state = rng.normal(size=3).astype(np.float32)
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in spec.images]
        expected = one.actor.act(state, images=images)
        np.testing.assert_allclose(acting.act(state, images=images), expected, atol=1e-5)


def test_a_checkpoint_of_another_encoder_is_refused(resnet, tmp_path):
    one = make_learner()
    buffers = doubles.filled(one.actor, episodes=1)
    store = CheckpointStore(tmp_path)
    path = store.save(one, buffers)
    other = make_learner(spec=replace(SEEING, encoder=replace(ENCODER, pooling="average")))
    with pytest.raises(MismatchError, match="spec.encoder"):
        store.load(path, other, doubles.filled(other.actor, episodes=1))
    blind = RLPD(CONFIG, PolicySpec(3, 2, (16,)))
    with pytest.raises(MismatchError, match="spec.encoder.*images"):
        store.load(
            path, blind, Buffers(make_buffer(500, blind.actor), make_buffer(500, blind.actor))
        )
    another = replace(resnet.spec, encoder=replace(resnet.spec.encoder, trunk="0" * 64))
    frozen, changed = (
        make_learner(spec=spec, trunk=resnet.trunk) for spec in (resnet.spec, another)
    )
    path = store.save(frozen, Buffers(make_buffer(9, frozen.actor), make_buffer(9, frozen.actor)))
    with pytest.raises(MismatchError, match="spec.encoder.*000000"):
        empty = Buffers(make_buffer(9, changed.actor), make_buffer(9, changed.actor))
        store.load(path, changed, empty)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_updates_as_on_a_gpu_are_the_same(resnet, frozen, gradients):
    config = replace(CONFIG, encoder_gradients=gradients)
    spec, trunk = (resnet.spec, resnet.trunk) if frozen else (SEEING, None)
    plain, ahead = (make_learner(config, spec, 1, trunk) for _ in range(2))
    buffers = doubles.filled(plain.actor)
    ahead.engine = CudaGraphEngine(ahead)
    expected = [plain.update(buffers) for _ in range(3)]
    found = [ahead.update(buffers) for _ in range(3)]
    assert found == [{}, *expected[:2]]
    assert ahead.engine.finish() == expected[2]
    assert_same(ahead, copied(plain))
    assert ahead.state_values() == plain.state_values()


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_graph_reads_is_what_a_batch_holds(resnet, frozen):
    """The shapes and types that are recorded on a GPU before the first batch."""
    spec, trunk = (resnet.spec, resnet.trunk) if frozen else (SEEING, None)
    learner = make_learner(spec=spec, trunk=trunk)
    buffers = doubles.filled(learner.actor, episodes=1)
    batch = learner.draw_batches(buffers)
    empty = CudaGraphEngine(learner)._empty_images((CONFIG.utd, CONFIG.batch_size))
    expected = [(t.shape, t.dtype) for t in (*batch.images, *batch.next_images)]
    assert [(t.shape, t.dtype) for t in empty] == expected


def test_low_precision_is_of_the_convolutions_alone_and_close():
    """On any processor: PyTorch emulates products that it has not."""
    learners = [make_learner() for _ in range(2)]
    learners[1].encoder.low_precision = True
    buffers = doubles.filled(learners[0].actor)
    plain, low = (learner.update(buffers) for learner in learners)
    assert low["critic_loss"] == pytest.approx(plain["critic_loss"], rel=0.05)
    assert low["critic_loss"] != plain["critic_loss"]
    assert all(v.dtype == torch.float32 for n, v in copied(learners[1]).items() if "opt" not in n)


@pytest.mark.filterwarnings("ignore:precision. found")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_learner_asks_the_processor_for_the_precision_of_convolutions(precision):
    config = replace(CONFIG, precision=precision)
    learner = make_learner(config)
    assert learner.encoder.low_precision == low_precision(config, torch.device("cpu"))
    if "bfloat16" not in processor().formats:
        assert not learner.encoder.low_precision


def test_same_seed_same_images_same_numbers():
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        learner = RLPD(CONFIG, SEEING, seed=5)
        learner.update(doubles.filled(learner.actor))
        results.append(copied(learner))
    assert_same(learner, results[0])


# ---- does it learn


def take_over(number, rng, action_dim=1):
    """A policy that acts at random; whoever watches takes over at once if it goes to the other side.

    Nothing but the image says which side is right.
    """
    side = 1.0 if rng.random() < 0.5 else -1.0
    image = doubles.dot((0.8 * side, rng.uniform(-1, 1)), rng)
    action = rng.uniform(-1, 1, action_dim)
    wrong = action[0] * side < 0
    source, second = (
        (Source.OPERATOR, np.array([side])) if wrong else (Source.POLICY, np.array([0.9 * side]))
    )
    first = 3 * number
    return [
        doubles.step(first, number, 0, False, Source.POLICY, [0.0], action, [image]),
        doubles.step(
            first + 1, number, 1, False, source, [0.0], second, [image], onset=wrong,
            intervention_id=int(wrong),
        ),
        doubles.step(first + 2, number, 2, True, Source.NONE, [0.0], [], [image]),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("gradients", ["critic", "both"])
def test_it_learns_from_interventions_which_side_an_image_asks_for(gradients):
    """Regression: with both, the actor's loss taught the encoder to see what the critics value, whatever
    the image, and it soon saw nothing."""
    spec = PolicySpec(
        1, 1, (32,), images=(doubles.SIZE,), encoder=EncoderSpec(features=8, channels=8)
    )
    config = RLPDConfig(
        hidden=(32, 32), ensemble_size=2, utd=2, batch_size=32, discount=0.0, random_shift=1,
        actor_learning_rate=2e-3, critic_learning_rate=2e-3, encoder_learning_rate=2e-3,
        initial_temperature=0.05, target_entropy=-2.0, encoder_gradients=gradients,
    )  # fmt: skip
    learner, rng = RLPD(config, spec, seed=0), np.random.default_rng(0)
    buffers = Buffers(make_buffer(2000, learner.actor))
    for number in range(1, 301):
        buffers.online.add_episode(take_over(number, rng))
    assert right_sides(learner) < 75  # of 100, before
    for _ in range(150):
        learner.update(buffers)
    assert right_sides(learner) >= 90


def right_sides(learner):
    """Of 100 new images, those that the policy answers with the side of the dot."""
    rng, right = np.random.default_rng(99), 0
    for _ in range(100):
        side = 1.0 if rng.random() < 0.5 else -1.0
        image = doubles.dot((0.8 * side, rng.uniform(-1, 1)), rng)
        right += learner.actor.act(np.zeros(1), images=[image])[0] * side > 0
    return right
