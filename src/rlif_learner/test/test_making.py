# SPDX-License-Identifier: Apache-2.0
"""A Trainer out of settings: each of them arrives where it acts."""

from __future__ import annotations

import pytest
import torch
from imitation_doubles import SPEC

from rlif_learner.making import BufferSettings, TrainerSettings, make_algorithm, make_trainer
from rlif_learner.training import TrainingConfig
from rlif_learner.vision import Vision

SMALL = {"hidden": (8,), "settings": {"utd": 2}}


def make(sizes=BufferSettings(20, 10), training=TrainingConfig(), **settings):  # noqa: B008
    return make_trainer(TrainerSettings(**{**SMALL, **settings}), Vision(), 4, 2, sizes, training)


def test_trainer_has_the_networks_buffers_and_ratio_of_its_settings():
    training = TrainingConfig(updates_per_step=3.0)
    trainer = make(
        training=training, algorithm="bc", state_scale=(1.0, 2.0, 3.0, 4.0), layer_norm=True,
        label_scheme="every_step", failure_reward=-2.0,
    )  # fmt: skip
    spec, buffers = trainer.algorithm.spec, trainer.buffers
    assert (spec.state_dim, spec.action_dim, spec.hidden, spec.layer_norm) == (4, 2, (8,), True)
    assert spec.state_scale == (1.0, 2.0, 3.0, 4.0)
    assert trainer.algorithm.config.utd == 2 and trainer.config is training
    assert (buffers.online.capacity, buffers.prior.capacity) == (20, 10)
    labels = buffers.online.state()["labels"]
    assert (labels["scheme"], labels["failure_reward"]) == ("every_step", -2.0)
    assert not trainer.ready, "BC draws from demonstrations"


def test_trainer_keeps_images_of_each_buffer_in_its_own_folder(tmp_path):
    shapes = ((4, 5, 3),)
    trainer = make(BufferSettings(20, 10, shapes, str(tmp_path)), algorithm="bc")
    assert trainer.buffers.online.image_shapes == shapes
    assert {path.name for path in tmp_path.iterdir()} == {"online", "prior"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm": "ppo"}, "found 'ppo'"),
        ({"state_scale": (1.0,)}, "state_scale: found 1 entries, expected 4"),
        ({"settings": {"utdd": 2}}, "utdd"),
    ],
)
def test_trainer_of_a_wrong_setting_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["rlpd", "bc", "hg_dagger"])
def test_a_gpu_that_is_asked_for_is_not_quietly_left_out(name):
    """Regression: the baselines took the processor, whatever `device` said."""
    with pytest.raises(ValueError, match="device: found 'cuda', but PyTorch finds no GPU"):
        make_algorithm(name, {}, "rlpd", SPEC, 0, "cuda")


def test_algorithms_are_made_by_name():
    for name in ("rlpd", "bc", "hg_dagger"):
        assert make_algorithm(name, {"utd": 2}, "rlpd", SPEC, 0).config.utd == 2
    with pytest.raises(ValueError, match="expert in every state"):
        make_algorithm("dagger", {}, "rlpd", SPEC, 0)
    with pytest.raises(ValueError, match="found 'ppo', expected one of rlpd"):
        make_algorithm("ppo", {}, "rlpd", SPEC, 0)
    with pytest.raises(ValueError, match="unknown settings"):
        make_algorithm("rlpd", {"utdd": 2}, "rlpd", SPEC, 0)
