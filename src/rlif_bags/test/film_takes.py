# SPDX-License-Identifier: Apache-2.0
"""Episodes with images, their films and checkpoints: shared by the tests of films and critics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from step_bags import make_step, write_bag

from rlif_bags.drawing.film import Take
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import StepRecord
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import PolicySpec

LENGTH = 6  # actions of an episode
SHAPES = ((16, 16, 3), (8, 16, 3))
SPEC = PolicySpec(state_dim=3, action_dim=2, hidden=(8, 8))
SEEING = replace(
    SPEC, images=SHAPES, encoder=EncoderSpec(channels=4, features=5, pooling="average")
)


def seen_steps(episode: int = 1, length: int = LENGTH, shapes: Any = SHAPES) -> list[StepRecord]:
    """An episode with two cameras of random pixels; the operator is in control from step 3 on."""
    rng = np.random.default_rng(episode)
    return [
        replace(
            make_step(100 * episode + i, i, length, episode),
            images=tuple(rng.integers(0, 256, shape, np.uint8) for shape in shapes),
        )
        for i in range(length + 1)
    ]


def rising(steps: Sequence[StepRecord]) -> np.ndarray:
    """Values from -1 up to 0; none of the last step."""
    values = np.linspace(-1.0, 0.0, len(steps))
    return np.where([s.is_last for s in steps], np.nan, values)


def take(episode: int = 1, **more: Any) -> Take:
    steps = seen_steps(episode, **more)
    return Take(steps, ("wrist", "fixed"), rising(steps), 10.0)


def pixels(frame: Image.Image) -> np.ndarray:
    return np.asarray(frame.convert("RGB")).astype(int)


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def where(frame: Image.Image, colour: str) -> np.ndarray:
    return (pixels(frame) == rgb(colour)).all(axis=2)


def bag_of(tmp_path: Path, *episodes: list[StepRecord]) -> Path:
    steps = [replace(s, sequence=n) for n, s in enumerate(s for e in episodes for s in e)]
    return write_bag(tmp_path / "bag", steps)


def store_checkpoint(path: Path, learner: Any) -> Path:
    spec = learner.spec
    buffers = Buffers(ReplayBuffer(8, spec.state_dim, spec.action_dim), None)
    return CheckpointStore(path).save(learner, buffers)
