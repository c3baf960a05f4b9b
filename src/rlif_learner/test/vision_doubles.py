# SPDX-License-Identifier: Apache-2.0
"""Episodes with images of a bright dot, and frozen trunks of random weights."""

from __future__ import annotations

import numpy as np

from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_learner.vision import VisionConfig, as_stored, make_buffer
from rlif_policy.networks import PolicySpec

SIZE = (16, 16, 3)
IMAGES = ((33, 40, 3), (33, 40, 3))
SCALES = {"state_offset": (50.0, 0.0, 0.0), "state_scale": (100.0, 1.0, 1.0)}


def vision_config(file=None, encoder="small", **more):
    return VisionConfig(
        encoder=encoder, encoder_features=6, encoder_weights=str(file), cameras=("wrist", "fixed"),
        image_width=40, image_height=33, **more,
    )  # fmt: skip


def make_spec(vision):
    return PolicySpec(3, 2, (16,), images=vision.images, encoder=vision.encoder, **SCALES)


def dot(place, rng, size=SIZE, width=3):
    """A dark, noisy image with a bright dot at (x, y) in [-1, 1]; y points down, as the rows do."""
    height, columns, _ = size
    image = rng.integers(0, 60, size, dtype=np.uint8)
    x, y = (
        round((p + 1) / 2 * (side - width))
        for p, side in zip(place, (columns, height), strict=True)
    )
    image[y : y + width, x : x + width] = 220 + rng.integers(0, 30, 3)
    return image


def step(sequence, episode, index, last, source, state, action, images, **more):
    fields = {
        "outcome": Outcome.TRUNCATED if last else Outcome.RUNNING,
        "onset": False, "intervention_id": 0, "evaluation": False, **more,
    }  # fmt: skip
    return StepRecord(
        sequence=sequence, episode_id=episode, step_index=index, is_first=index == 0, is_last=last,
        source=Source.NONE if last else source, state=np.asarray(state, np.float32),
        action=np.zeros(0, np.float32) if last else np.asarray(action, np.float32),
        images=tuple(images), **fields,
    )  # fmt: skip


def noise_episode(number, length, images, state_dim=3, action_dim=2, first=None, **more):
    """`length` actions and the last step, all of it random; the operator drives every third one.

    The first pixel of each image is the number of the step, so that what belongs together shows.
    """
    rng = np.random.default_rng(number)
    first = 1000 * number if first is None else first
    steps = []
    for i in range(length + 1):
        pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in images]
        for picture in pictures:
            picture[0, 0] = (first + i) % 256
        source = Source.OPERATOR if i % 3 == 2 else Source.POLICY
        state = [(first + i) % 256, *rng.normal(size=state_dim - 1)]
        steps.append(
            step(
                first + i, number, i, i == length, source, state, rng.uniform(-1, 1, action_dim),
                pictures, onset=source == Source.OPERATOR and i < length,
                intervention_id=1 + i // 3, **more,
            )
        )  # fmt: skip
    return steps


def filled(actor, episodes=None, length=None, capacity=500):
    """Online and prior data of noise for `actor`, stored as it sees them. Of a frozen trunk, each of
    whose images takes a pass, less of them unless it is said."""
    spec, see = actor.spec, as_stored(actor)
    frozen = spec.encoder is not None and spec.encoder.frozen
    episodes, length = episodes or (2 if frozen else 6), length or (6 if frozen else 12)
    buffers = Buffers(make_buffer(capacity, actor), make_buffer(capacity, actor))
    for number in range(1, episodes + 1):
        for i, buffer in enumerate((buffers.online, buffers.prior)):
            for one in noise_episode(
                2 * number + i, length, spec.images, spec.state_dim, spec.action_dim
            ):
                buffer.add_step(see(one))
    return buffers
