# SPDX-License-Identifier: Apache-2.0
"""Records out of Step messages, and images out of theirs."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import learner_doubles as doubles
import numpy as np
import pytest
import vision_doubles

from rlif_learner.data.step_messages import image_array, record_from_message
from rlif_learner.data.steps import Source, StepRecord

FACTS = {field.name for field in dataclasses.fields(StepRecord)} - {"images", "cameras", "robot"}


def image(pixels, name="", **changes):
    """As sensor_msgs/Image, of uint8 [height, width, channels]."""
    height, width, channels = pixels.shape
    fields = {
        "header": SimpleNamespace(frame_id=name), "height": height, "width": width,
        "step": width * channels, "encoding": {1: "mono8", 3: "rgb8"}[channels],
        "data": pixels.tobytes(),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def message(step, cameras=(), old=False):
    """As rlif_msgs/Step; old: of before `camera_names`, when a frame_id was its camera's name."""
    fields = {f.name: getattr(step, f.name) for f in dataclasses.fields(step)}
    names = (cameras if old else None) or ["optical_frame"] * len(step.images)
    if not old:
        fields["camera_names"] = list(cameras)
    sec, nanosec = divmod(fields.pop("stamp"), 10**9)
    fields["header"] = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    fields["images"] = [image(*pair) for pair in zip(step.images, names, strict=True)]
    executed, refused = fields.pop("action"), fields.pop("refused_action")
    asked = refused if step.source == Source.OPERATOR else executed
    return SimpleNamespace(**fields, executed_action=executed, policy_action=asked)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("cameras", [("wrist", "fixed"), ("wrist", "")])
def test_record_holds_every_fact_of_the_message(cameras, old):
    for step in vision_doubles.noise_episode(3, 4, ((4, 5, 3), (2, 2, 3)), evaluation=True):
        step = dataclasses.replace(step, stamp=1_764_000_000_000_000_001)
        if step.source == Source.OPERATOR:
            step = dataclasses.replace(step, refused_action=-step.action)
        record = record_from_message(message(step, cameras, old), "arm_1")
        assert record.robot == "arm_1"
        for name in FACTS:
            np.testing.assert_array_equal(getattr(record, name), getattr(step, name), name)
        for found, sent in zip(record.images, step.images, strict=True):
            np.testing.assert_array_equal(found, sent)
        assert record.cameras == (cameras if all(cameras) else ()), "names of all or of none"
        assert record.state.dtype == record.action.dtype == np.float32


def test_record_of_another_number_of_names_than_images_is_refused():
    step = vision_doubles.noise_episode(1, 1, ((4, 5, 3), (2, 2, 3)))[0]
    with pytest.raises(ValueError, match="camera_names: found wrist for 2 images"):
        record_from_message(message(step, ("wrist",)))


def test_record_of_an_unknown_source_is_refused():
    wrong = message(doubles.episode(1, 2, 0)[0])
    wrong.source = 9
    with pytest.raises(ValueError, match="9 is not a valid Source"):
        record_from_message(wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_array_leaves_padding_out(channels):
    padded = np.arange(4 * 12, dtype=np.uint8).reshape(4, 12)
    found = image_array(image(np.zeros((4, 2, channels), np.uint8), step=12, data=padded.tobytes()))
    np.testing.assert_array_equal(found, padded[:, : 2 * channels].reshape(4, 2, channels))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "16UC1"}, "image encoding: found '16UC1', expected one of"),
        ({"data": b"123"}, "image: found 3 bytes, expected 4 rows of 6 bytes for 2 pixels of rgb8"),
        ({"width": 3}, "image: found 24 bytes"),
    ],
)
def test_image_array_of_wrong_sizes_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        image_array(image(np.zeros((4, 2, 3), np.uint8), **changes))
