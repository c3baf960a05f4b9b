# SPDX-License-Identifier: Apache-2.0
"""The critic of a checkpoint, to value recorded Steps. No ROS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.checkpoint import MismatchError, read_state
from rlif_learner.data.steps import StepRecord
from rlif_learner.vision import of_cameras
from rlif_policy.networks import PolicySpec
from rlif_policy.pretrained import load_frozen
from rlif_policy.stored_actor import find_checkpoint

_AT_ONCE = 64  # observations in one pass of the encoder


class NoCriticError(MismatchError):
    """The checkpoint is of an algorithm that has no critic."""


@dataclass(frozen=True, eq=False)
class StoredCritic:
    """Critics and image encoder of the checkpoint at `path`."""

    path: Path
    learner: RLPD

    @torch.no_grad()
    def values(self, steps: Sequence[StepRecord]) -> np.ndarray:
        """Mean of all critics of the executed action of each step, float64 [steps].

        NaN where a step has no action: the last one of an episode. MismatchError for Steps of
        other sizes than the critic's.
        """
        found = np.full(len(steps), np.nan)
        with_action = [i for i, step in enumerate(steps) if len(step.action)]
        for start in range(0, len(with_action), _AT_ONCE):
            part = with_action[start : start + _AT_ONCE]
            found[part] = self._values([steps[i] for i in part])
        return found

    def _values(self, steps: Sequence[StepRecord]) -> np.ndarray:
        spec = self.learner.spec
        try:
            steps = [of_cameras(step, spec.cameras) for step in steps]
        except ValueError as problem:
            raise MismatchError(f"{self.path} is of another robot: {problem}") from problem
        for step in steps:
            self._check(step)
        states = torch.from_numpy(np.stack([s.state for s in steps]).astype(np.float32))
        actions = torch.from_numpy(np.stack([s.action for s in steps]).astype(np.float32))
        images = [
            torch.from_numpy(np.stack([s.images[camera] for s in steps]))
            for camera in range(len(spec.images))
        ]
        features = self.learner.actor.encode(states, images)
        return self.learner.critic(features, actions).mean(dim=0).double().numpy()

    def _check(self, step: StepRecord) -> None:
        spec = self.learner.spec
        # A critic that sees nothing takes Steps with images too.
        images = tuple(image.shape for image in step.images) if spec.images else ()
        found = _sizes(len(step.state), len(step.action), images)
        expected = _sizes(spec.state_dim, spec.action_dim, spec.images)
        if found != expected:
            raise MismatchError(
                f"{self.path} is of another network: found Steps (episode {step.episode_id}) with "
                f"{found}, expected {expected}; name a checkpoint of the robot that was recorded"
            )


def _sizes(state: int, action: int, images: Sequence[Sequence[int]]) -> str:
    cameras = ", ".join("x".join(map(str, shape)) for shape in images) or "none"
    return f"states of {state}, actions of {action}, images: {cameras}"


def load_critic(path: Path | str, encoder_weights: str = "torchvision") -> StoredCritic:
    """The critic of a checkpoint, or of the newest one of a run.

    `encoder_weights`: of a frozen encoder, as the learner's parameter (pretrained.py).

    NoCriticError where the algorithm has none; another MismatchError where the weights are of
    another network than the checkpoint says; DamagedError names a damaged file. ValueError where
    there is no checkpoint, or the pretrained weights cannot be had.
    """
    folder = find_checkpoint(Path(path))
    manifest, tensors = read_state(folder)
    if manifest["algorithm"] != "RLPD":
        raise NoCriticError(f"{folder} is of {manifest['algorithm']}, which has no critic")
    try:
        spec = PolicySpec.from_json(json.dumps(manifest["spec"]))
        config = RLPDConfig.from_mapping(manifest["config"])
    except (ValueError, TypeError) as error:
        raise MismatchError(
            f"{folder} is of another version of this package, which knows other networks: {error}"
        ) from error
    trunk = load_frozen(spec.encoder, encoder_weights)
    # Trained on a GPU, perhaps, whose formats this processor need not have.
    learner = RLPD(replace(config, precision="float32"), spec, trunk=trunk)
    tensors["generator"] = learner.generator.get_state()  # nothing is drawn here
    try:
        learner.load_state(tensors, manifest["values"])
    except (ValueError, KeyError) as error:
        missing = " is missing" if isinstance(error, KeyError) else ""
        raise MismatchError(
            f"{folder} is of another network than this version builds from its spec: "
            f"{error}{missing}. Train again, or use the version that wrote it"
        ) from error
    learner.actor.eval()
    learner.critic.eval()
    return StoredCritic(folder, learner)
