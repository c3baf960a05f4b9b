# SPDX-License-Identifier: Apache-2.0
"""The success detector: its file, and what observations it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from trunks import random_file, random_trunk

from rlif_policy.detector import (
    FILE,
    Detector,
    DetectorError,
    DetectorSpec,
    ObservationLayout,
    load_detector,
    save_detector,
)
from rlif_policy.encoders import EncoderSpec

LAYOUT = ObservationLayout(3, ("ee_position",), ("wrist", "fixed"), ((16, 16, 3), (16, 20, 3)))
SPEC = DetectorSpec(LAYOUT, EncoderSpec(features=4, channels=4), (8,))
STATE = np.array([0.1, 0.2, 0.3], np.float32)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, np.uint8) for shape in LAYOUT.images]


def test_detector_read_from_its_file_gives_the_same_confidence(tmp_path: Path) -> None:
    detector = Detector(SPEC, seed=3)
    detector.normalise_by(np.random.default_rng(1).normal(size=(9, 3)))
    detector.slope.fill_(0.5)
    detector.threshold.fill_(0.7)
    save_detector(detector, tmp_path)
    read = load_detector(tmp_path)
    assert read.spec == SPEC and read.threshold.item() == pytest.approx(0.7)
    expected = detector.confidence(STATE, LAYOUT.cameras, pictures())
    assert read.confidence(STATE, LAYOUT.cameras, pictures()) == pytest.approx(expected)
    assert 0.0 < expected < 1.0


def test_detector_with_a_pretrained_encoder_that_was_trained_on_is_read(tmp_path: Path) -> None:
    layout = ObservationLayout(images=((64, 64, 3),), cameras=("wrist",))
    encoder, trunk = random_trunk(str(random_file(tmp_path)), features=4)
    save_detector(Detector(DetectorSpec(layout, encoder), trunk=trunk), tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    confidence = load_detector(tmp_path).confidence(STATE[:0], ("wrist",), [image])
    assert 0.0 < confidence < 1.0


def test_detector_takes_its_cameras_by_name_in_any_order() -> None:
    detector, (wrist, fixed) = Detector(SPEC), pictures()
    other = np.zeros((8, 8, 3), np.uint8)
    expected = detector.confidence(STATE, ("wrist", "fixed"), [wrist, fixed])
    found = detector.confidence(STATE, ("other", "fixed", "wrist"), [other, fixed, wrist])
    assert found == expected


def test_detector_of_images_alone_takes_any_state() -> None:
    layout = ObservationLayout(images=((16, 16, 3),), cameras=("wrist",))
    detector = Detector(DetectorSpec(layout, SPEC.encoder))
    for size in (0, 7):
        detector.confidence(np.zeros(size, np.float32), ("wrist",), pictures()[:1])


@pytest.mark.parametrize(
    ("state", "cameras", "change", "expected"),
    [
        (np.zeros(4, np.float32), LAYOUT.cameras, None, "a state of 4, expected 3"),
        (STATE * np.nan, LAYOUT.cameras, None, "not finite"),
        (STATE, ("wrist", "side"), None, "fixed is missing"),
        (STATE, LAYOUT.cameras, lambda p: [p[0], p[1][:8]], r"expected \(\(16, 16, 3\), \(16, 20"),
        (STATE, (), lambda p: [], r"images of \(\)"),
    ],
)
def test_detector_refuses_other_observations(state, cameras, change, expected) -> None:
    images = change(pictures()) if change else pictures()
    with pytest.raises(DetectorError, match=expected):
        Detector(SPEC).confidence(state, cameras, images)


def test_detector_refuses_other_features() -> None:
    LAYOUT.check_features(())
    LAYOUT.check_features(("ee_position",))
    with pytest.raises(DetectorError, match="found joint_positions, expected ee_position"):
        LAYOUT.check_features(("joint_positions",))
    replace(LAYOUT, state_dim=0).check_features(("joint_positions",))


def rewritten(directory: Path, tensors=None, **metadata: str) -> None:
    """The file with other metadata, or with some tensors changed; None: left out."""
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(directory / FILE, "pt") as file:
        about = {**file.metadata(), **metadata}
    found = {**load_file(directory / FILE), **(tensors or {})}
    save_file({n: v for n, v in found.items() if v is not None}, directory / FILE, about)


@pytest.mark.parametrize(
    ("tensors", "metadata", "expected"),
    [
        ({}, {"format": "2"}, "found format 2, expected 1"),
        ({}, {"layout": "0" * 64}, "fingerprint"),
        ({}, {"spec": "{}"}, "expected layout, encoder, hidden"),
        ({"threshold": None}, {}, "threshold: missing"),
        ({"slope": torch.tensor(float("nan"))}, {}, "slope: missing, unknown, not finite"),
        ({"more": torch.zeros(2)}, {}, "more: missing, unknown"),
    ],
)
def test_detector_file_that_is_not_right_is_refused(tmp_path, tensors, metadata, expected) -> None:
    save_detector(Detector(SPEC), tmp_path)
    rewritten(tmp_path, tensors, **metadata)
    with pytest.raises(DetectorError, match=expected):
        load_detector(tmp_path)


def test_detector_file_missing_or_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="rlif detector train"):
        load_detector(tmp_path)
    path = save_detector(Detector(SPEC), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DetectorError, match="cannot be read"):
        load_detector(tmp_path)


def test_spec_and_layout_that_make_no_detector_are_refused() -> None:
    with pytest.raises(DetectorError, match="neither state nor images"):
        ObservationLayout()
    with pytest.raises(DetectorError, match="expected both"):
        DetectorSpec(LAYOUT, None)
