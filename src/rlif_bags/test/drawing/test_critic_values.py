# SPDX-License-Identifier: Apache-2.0
"""Values of a checkpoint's critic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_runs import CONFIG
from film_takes import SEEING, SPEC, seen_steps, store_checkpoint
from safetensors.torch import load_file, save_file
from step_bags import make_episodes
from torchvision.models import resnet18

from rlif_bags.drawing.critic_values import NoCriticError, load_critic
from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore, MismatchError
from rlif_learner.data.sampling import Buffers
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import PolicySpec
from rlif_policy.pretrained import PretrainedError, fingerprint, load_trunk


@pytest.mark.parametrize("spec", [SPEC, SEEING], ids=["state", "images"])
def test_load_critic_values_are_those_of_the_learner(tmp_path: Path, spec: PolicySpec) -> None:
    learner, steps = RLPD(CONFIG, spec, seed=5), seen_steps(length=100)
    for value in learner.actor.normaliser_part().values():
        value.add_(0.5)  # as demonstrations have set it
    store_checkpoint(tmp_path, learner)
    found = load_critic(tmp_path).values(steps)
    assert found.shape == (101,) and np.isnan(found[-1])
    for i in (0, 63, 64, 99):
        step = steps[i]
        with torch.no_grad():
            images = [torch.from_numpy(image)[None] for image in step.images]
            features = learner.actor.encode(torch.from_numpy(step.state)[None], images)
            action = torch.from_numpy(step.action)[None]
            expected = [float(q) for q in learner.critic(features, action).flatten()]
        assert len(expected) == CONFIG.ensemble_size
        assert found[i] == pytest.approx(np.mean(expected), abs=1e-5)
    assert len(np.unique(found[:-1])) == 100, "each step has its own"


def test_load_critic_frozen_weights_come_from_the_given_file(tmp_path: Path) -> None:
    spec = EncoderSpec("resnet18", "average", features=4, frozen=True)
    for number in range(2):
        save_file(resnet18(weights=None).state_dict(), tmp_path / f"{number}.safetensors")
    trunk = load_trunk(spec, str(tmp_path / "0.safetensors"))
    spec = replace(spec, trunk=fingerprint(trunk))
    shapes = ((64, 64, 3),)
    learner = RLPD(CONFIG, replace(SPEC, images=shapes, encoder=spec), trunk=trunk)
    store_checkpoint(tmp_path / "run", learner)
    steps = seen_steps(shapes=shapes)
    found = load_critic(tmp_path / "run", str(tmp_path / "0.safetensors")).values(steps)
    with torch.no_grad():
        image, state = torch.from_numpy(steps[0].images[0]), torch.from_numpy(steps[0].state)
        features = learner.actor.encode(state, [image])[None]
        expected = learner.critic(features, torch.from_numpy(steps[0].action)[None]).mean()
    assert found[0] == pytest.approx(float(expected), abs=1e-4)
    with pytest.raises(PretrainedError, match="fingerprint"):
        load_critic(tmp_path / "run", str(tmp_path / "1.safetensors"))


def test_load_critic_steps_of_another_robot_are_refused(tmp_path: Path) -> None:
    store_checkpoint(tmp_path, RLPD(CONFIG, SEEING))
    critic = load_critic(tmp_path)
    with pytest.raises(MismatchError, match=r"images: 8x8x3, expected .* images: 16x16x3, 8x16x3"):
        critic.values(seen_steps(shapes=((8, 8, 3),)))
    with pytest.raises(MismatchError, match="images: none, expected"):
        critic.values(make_episodes(1))
    store_checkpoint(tmp_path / "blind", RLPD(CONFIG, replace(SPEC, state_dim=4)))
    with pytest.raises(MismatchError, match="found Steps .* states of 3, .* expected states of 4"):
        load_critic(tmp_path / "blind").values(seen_steps())


def rewrite(path: Path, tensors: dict[str, torch.Tensor], manifest: Any = None) -> None:
    """As a version would have written it that holds this."""
    learner = RLPD(CONFIG, SPEC)
    manifest = manifest or json.loads((path / "manifest.json").read_text())

    class Stored:
        spec = type("Spec", (), {"to_json": lambda self: json.dumps(manifest["spec"])})()
        config = type("Config", (), {"to_mapping": lambda self: manifest["config"]})()
        state_values = learner.state_values

        def state_tensors(self) -> dict[str, torch.Tensor]:
            return tensors

    Stored.__name__ = manifest["algorithm"]
    root = path.parent.parent
    buffers = Buffers(ReplayBuffer(8, 3, 2), None)
    new = CheckpointStore(root).save(Stored(), buffers)  # type: ignore[arg-type]
    for name in ("manifest.json", "manifest.sha256", "state.safetensors"):
        (new / name).replace(path / name)


def test_load_critic_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = store_checkpoint(tmp_path, RLPD(CONFIG, SEEING))
    tensors = load_file(path / "state.safetensors")
    first = "encoder.trunks.0.0.weight"
    rewrite(path, {**tensors, first: torch.zeros(4, 3, 3, 3)})
    with pytest.raises(MismatchError, match=r"is of another network .*trunks.0.0.weight: found "
                       r"\(4, 3, 3, 3\) .*, expected \(4, 3, 8, 8\)"):  # fmt: skip
        load_critic(path)
    rewrite(path, {name: tensor for name, tensor in tensors.items() if name != first})
    with pytest.raises(MismatchError, match=rf"is of another network .*{first}' is missing"):
        load_critic(path)


def test_load_critic_spec_of_another_version_is_refused(tmp_path: Path) -> None:
    path = store_checkpoint(tmp_path, RLPD(CONFIG, SPEC))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["config"]["fancy"] = 3
    rewrite(path, load_file(path / "state.safetensors"), manifest)
    with pytest.raises(MismatchError, match=r"another version .* unknown settings \['fancy'\]"):
        load_critic(path)


def test_load_critic_of_imitation_is_refused(tmp_path: Path) -> None:
    store_checkpoint(tmp_path, BC(ImitationConfig(), SPEC))
    with pytest.raises(NoCriticError, match="is of BC, which has no critic"):
        load_critic(tmp_path)
