# SPDX-License-Identifier: Apache-2.0
"""StepRecord out of an rlif_msgs/Step, whoever deserialised it: rclpy live, rosbags from a bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlif_learner.data.steps import Source, StepRecord
from rlif_policy.images import image_names

CHANNELS = {"rgb8": 3, "mono8": 1}  # the observer converts whatever a camera sends


def image_array(image: Any) -> np.ndarray:
    """uint8 [height, width, channels] of a sensor_msgs/Image; a view where rows have no padding.

    ValueError for another encoding than those of CHANNELS, or a size that does not fit the data.
    """
    channels = CHANNELS.get(image.encoding)
    if channels is None:
        raise ValueError(
            f"image encoding: found {image.encoding!r}, expected one of {sorted(CHANNELS)}"
        )
    data = np.frombuffer(image.data, dtype=np.uint8)
    height, width, step = image.height, image.width, image.step
    if data.size != height * step or step < width * channels:
        raise ValueError(
            f"image: found {data.size} bytes, expected {height} rows of {step} bytes for "
            f"{width} pixels of {image.encoding}"
        )
    return data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)


def stamp_of(message: Any) -> int:
    """The stamp of a Step in ns."""
    stamp = message.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def record_from_message(message: Any, robot: str = "") -> StepRecord:
    """The facts of one Step, of `robot`. ValueError for numbers that are no outcome, source or image."""
    names = image_names(message) if message.images else ()
    refused = message.policy_action if message.source == Source.OPERATOR else ()
    return StepRecord(
        sequence=message.sequence,
        episode_id=message.episode_id,
        step_index=message.step_index,
        is_first=message.is_first,
        is_last=message.is_last,
        outcome=message.outcome,
        source=message.source,
        onset=message.onset,
        intervention_id=message.intervention_id,
        evaluation=message.evaluation,
        state=np.asarray(message.state, dtype=np.float32),
        action=np.asarray(message.executed_action, dtype=np.float32),
        images=tuple(image_array(image) for image in message.images),
        cameras=names if all(names) else (),
        stamp=stamp_of(message),
        robot=robot,
        refused_action=np.asarray(refused, dtype=np.float32),
    )
