# SPDX-License-Identifier: Apache-2.0
"""BC, and HG-DAgger and DAgger where they share it: what each imitates, settings, resuming, images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trunks
import vision_doubles as doubles
from imitation_doubles import ACTIONS, CONFIG, SPEC, expert, filled, operator_action
from vision_doubles import IMAGES, make_spec, vision_config

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.dagger import DAgger
from rlif_learner.algorithms.hg_dagger import HGDAgger
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.config import ImitationConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Source, StepRecord
from rlif_learner.vision import make_buffer, make_vision
from rlif_policy.encoders import EncoderSpec
from rlif_policy.inference import NumpyActor
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import read_actor


def worst_error(learner):
    states = np.random.default_rng(9).uniform(-1, 1, (50, 2))
    return max(abs(float(learner.actor.act(s)[0]) - operator_action(s)) for s in states)


ONLINE, DEMOS = filled("PPPOOPP", ACTIONS), filled("OOOOO", ACTIONS, seed=1)
CASES = {
    "bc": (BC(CONFIG, SPEC), Buffers(filled("PPP", ACTIONS), DEMOS)),
    "hg_dagger": (HGDAgger(CONFIG, SPEC), Buffers(ONLINE)),
    "hg_dagger_with_prior": (HGDAgger(CONFIG, SPEC), Buffers(ONLINE, DEMOS)),
    "dagger": (DAgger(CONFIG, SPEC, expert), Buffers(ONLINE)),
}


@pytest.mark.parametrize("name", CASES)
def test_learns_the_operator_and_not_the_policy(name):
    learner, buffers = CASES[name]
    for _ in range(60):
        metrics = learner.update(buffers)
    assert metrics["imitation_loss"] < 1e-2
    assert worst_error(learner) < 0.15


@pytest.mark.parametrize("kind", [BC, HGDAgger])
def test_steps_that_nobody_drove_are_not_imitated(kind):
    """Regression: hold after release stored zero actions, which were then taken for an expert's."""
    actions = {"N": lambda state: 0.0, "O": lambda state: 0.7}
    demonstrations, online = filled("NNNOONN", actions), filled("NOON", actions, seed=1)
    learner = kind(CONFIG, SPEC)
    for _ in range(20):
        drawn = learner.draw(Buffers(online, demonstrations))
        assert (drawn.actions == np.float32(0.7)).all()
    for _ in range(60):
        learner.update(Buffers(online, demonstrations))
    assert float(learner.actor.act(np.zeros(2))[0]) > 0.6


def test_images_are_not_gathered():
    pictured = ReplayBuffer(10, 2, 1, ((2, 2, 3),))
    image = (np.zeros((2, 2, 3), np.uint8),)
    for t in range(3):
        pictured.add_step(
            StepRecord(
                t, 1, t, t == 0, t == 2, 3 * (t == 2), 2 * (t < 2), t == 0, 0, False,
                np.zeros(2), np.zeros(1), image,
            )
        )  # fmt: skip
    for learner in (BC(CONFIG, SPEC), HGDAgger(CONFIG, SPEC), DAgger(CONFIG, SPEC, expert)):
        assert learner.draw(Buffers(pictured, pictured)).images == ()


def test_nothing_to_imitate_is_said():
    online, undriven = filled("PPP", ACTIONS), filled("NNN", ACTIONS)
    for prior in (None, undriven):
        with pytest.raises(ValueError, match="BC.*no prior data with a control source"):
            BC(CONFIG, SPEC).update(Buffers(online, prior))
        with pytest.raises(ValueError, match="HG-DAgger.*neither"):
            HGDAgger(CONFIG, SPEC).update(Buffers(online, prior))


def test_non_finite_loss_keeps_the_last_good_weights():
    learner = BC(CONFIG, SPEC)
    spoiled = filled("OOO", ACTIONS)
    spoiled.columns["action"][:] = np.nan
    before = learner.flat.values.clone()
    with pytest.raises(NonFiniteError, match=r"imitation_loss.*actions in \d+ of"):
        learner.update(Buffers(ONLINE, spoiled))
    assert torch.equal(learner.flat.values, before)


@pytest.mark.parametrize("kind", [BC, HGDAgger])
def test_resume_is_exact(kind, tmp_path):
    buffers, store = Buffers(ONLINE, DEMOS), CheckpointStore(tmp_path)
    one, two = kind(CONFIG, SPEC, seed=1), kind(CONFIG, SPEC, seed=2)
    one.update(buffers)
    store.load(store.save(one, buffers), two, buffers)
    for learner in (one, two):
        learner.update(buffers)
    assert torch.equal(one.flat.values, two.flat.values)
    assert one.state_values() == two.state_values()


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="utdd"):
        ImitationConfig.from_mapping({"utdd": 1})
    with pytest.raises(ValueError, match="learning_rate"):
        replace(CONFIG, learning_rate=0.0)
    with pytest.raises(ValueError, match="batch_size"):
        replace(CONFIG, batch_size=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return trunks.random_file(tmp_path_factory.mktemp("weights"))


PLACED = PolicySpec(
    1, 2, (32,), images=(doubles.SIZE,), encoder=EncoderSpec(features=16, channels=8)
)
QUICK = ImitationConfig(utd=5, batch_size=32, learning_rate=3e-3, random_shift=0)


def pointing(number, rng, length=4, source=Source.OPERATOR, action_of=lambda place: place):
    """Each action points to the dot of its image."""
    steps = []
    for i in range(length + 1):
        place = rng.uniform(-1, 1, 2)
        image = doubles.dot(place, rng)
        steps.append(
            doubles.step(
                100 * number + i, number, i, i == length, source, [0.0], action_of(place), [image],
                onset=source == Source.OPERATOR and i == 0, intervention_id=1,
            )
        )  # fmt: skip
    return steps


def demonstrations(actor, episodes=150, **more):
    buffer, rng = make_buffer(2000, actor), np.random.default_rng(1)
    for number in range(1, episodes + 1):
        buffer.add_episode(pointing(number, rng, **more))
    return buffer


def mean_error(actor):
    rng, errors = np.random.default_rng(50), []
    for _ in range(100):
        place = rng.uniform(-1, 1, 2)
        found = actor.act(np.zeros(1), images=[doubles.dot(place, rng)])
        errors.append(abs(found - place).mean())
    return np.mean(errors)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [BC, HGDAgger])
def test_the_place_of_a_dot_is_imitated(kind):
    learner = kind(QUICK, PLACED, seed=1)
    data = demonstrations(learner.actor)
    empty = make_buffer(10, learner.actor)
    buffers = Buffers(empty, data) if kind is BC else Buffers(data)
    blind = 0.5  # mean distance of a uniform number in [-1, 1] from its mean
    assert mean_error(learner.actor) > 0.4
    for _ in range(120):
        learner.update(buffers)
    assert mean_error(learner.actor) < 0.15 < blind


def test_hg_dagger_draws_the_images_of_the_operators_steps():
    learner = HGDAgger(replace(QUICK, batch_size=64), replace(PLACED, state_dim=3))
    buffers = doubles.filled(learner.actor)
    steps = {}
    for number in range(2, 14):
        for step in doubles.noise_episode(number, 12, (doubles.SIZE,)):
            steps[step.images[0].tobytes()] = step
    batch = learner.draw(buffers)
    assert batch.images[0].shape == (64, *doubles.SIZE) and batch.images[0].dtype == torch.uint8
    for image, state in zip(batch.images[0], batch.states, strict=True):
        step = steps[image.numpy().tobytes()]
        assert torch.equal(state, torch.from_numpy(step.state))
        assert step.source == Source.OPERATOR or step.episode_id % 2 == 1  # or of the prior data
    plain = BC(QUICK, PolicySpec(3, 2, (8,)))
    assert plain.draw(buffers).images == ()
    metrics = learner.update(buffers)
    assert np.isfinite(metrics["imitation_loss"])


def test_imitated_images_are_shifted_and_features_are_not(file):
    vision = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    spec = make_spec(vision)
    learner = BC(replace(QUICK, random_shift=2), spec, 0, vision.trunk)
    buffers = doubles.filled(learner.actor, episodes=2)
    batch = learner.draw(buffers)
    assert learner._shifted(batch) is batch.images
    before = {n: v.clone() for n, v in learner.state_tensors().items() if n.startswith("encoder")}
    learner.update(buffers)
    assert not any(".trunks." in name for name in before)
    assert all(not torch.equal(before[n], learner.state_tensors()[n]) for n in before)

    seeing = BC(replace(QUICK, random_shift=2), replace(PLACED, state_dim=3))
    buffers = doubles.filled(seeing.actor, episodes=2)
    batch = seeing.draw(buffers)
    moved = seeing._shifted(batch)[0]
    inner = moved[:, 4:12, 4:12]
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    found = [
        next(
            (
                (y, x) for y, x in places
                if torch.equal(inner[b], batch.images[0][b, 4 + y : 12 + y, 4 + x : 12 + x])
            ),
            None,
        )
        for b in range(len(moved))
    ]  # fmt: skip
    assert None not in found and len(set(found)) > 5
    assert BC(QUICK, replace(PLACED, state_dim=3))._shifted(batch) is batch.images


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [BC, HGDAgger])
def test_imitation_resumes_exactly_and_its_actor_sees_the_same(file, kind, frozen, tmp_path):
    vision = make_vision(
        vision_config(file, "resnet18" if frozen else "small", encoder_frozen=frozen)
    )
    config = replace(QUICK, batch_size=8, random_shift=1)
    one, two = (kind(config, make_spec(vision), seed, vision.trunk) for seed in (1, 2))
    buffers = doubles.filled(one.actor, episodes=2)
    one.update(buffers)
    store = CheckpointStore(tmp_path)
    store.load(store.save(one, buffers), two, buffers)
    for learner in (one, two):
        learner.update(buffers)
    assert torch.equal(one.flat.values, two.flat.values)
    assert one.state_values() == two.state_values()
    stored = read_actor(store.save(one, buffers))
    acting = NumpyActor(stored.spec, stored.tensors, vision.trunk if frozen else None)
    step = doubles.noise_episode(77, 1, IMAGES)[0]
    np.testing.assert_allclose(
        acting.act(step.state, images=step.images),
        one.actor.act(step.state, images=step.images),
        atol=1e-5,
    )


def test_an_imitation_that_is_not_finite_changes_nothing():
    learner = BC(QUICK, replace(PLACED, state_dim=3))
    buffers = doubles.filled(learner.actor, episodes=2)
    buffers.prior.columns["action"][:] = np.nan
    before = learner.flat.values.clone()
    with pytest.raises(NonFiniteError, match="imitation_loss.*actions"):
        learner.update(buffers)
    assert torch.equal(learner.flat.values, before)


def test_dagger_sees_too(file):
    vision = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    learner = DAgger(
        QUICK, make_spec(vision), lambda states: np.zeros((len(states), 2)), trunk=vision.trunk
    )
    buffers = doubles.filled(learner.actor, episodes=2)
    losses = [learner.update(buffers)["imitation_loss"] for _ in range(3)]
    assert losses[2] < losses[0]
