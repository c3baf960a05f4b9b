# SPDX-License-Identifier: Apache-2.0
"""BC, and HG-DAgger and DAgger where they share it: what each imitates, settings, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from imitation_doubles import ACTIONS, CONFIG, SPEC, expert, filled, operator_action

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.dagger import DAgger
from rlif_learner.algorithms.hg_dagger import HGDAgger
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.config import ImitationConfig
from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.steps import StepRecord


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
