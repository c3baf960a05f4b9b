# SPDX-License-Identifier: Apache-2.0
"""`rlif detector train`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from step_bags import PERIOD, Cli, make_step, write_bag

from rlif_bags.detector import DISAGREEMENT_TYPE, read_judgements
from rlif_bags.step_writer import step_bytes, step_typestore
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic, qos_profile
from rlif_intervention.message_definitions import definition, type_hash
from rlif_learner.data.steps import Outcome, StepRecord
from rlif_policy.detector import load_detector

TRAIN = ("--set", "encoder_channels=4", "--set", "encoder_features=4", "--set", "batch_size=8",
         "--set", "encoder_pooling=average", "--set", "learning_rate=0.01")  # fmt: skip


def episodes(successes: int = 10, failures: int = 6, length: int = 7) -> list[StepRecord]:
    """A bright image at the end of a success."""
    steps: list[StepRecord] = []
    for number in range(1, successes + failures + 1):
        outcome = Outcome.SUCCESS if number <= successes else Outcome.TRUNCATED
        for index in range(length + 1):
            bright = index == length and outcome == Outcome.SUCCESS
            images = (np.full((8, 8, 3), 220 if bright else 9 * index, np.uint8),)
            step = make_step(len(steps), index, length, number, images=images)
            steps.append(replace(step, outcome=outcome) if step.is_last else step)
    return steps


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bag", episodes(), cameras=("wrist",))


@pytest.mark.slow
def test_train_writes_detector_report_and_picture(tmp_path: Path, bag: Path, cli: Cli) -> None:
    out = tmp_path / "out"
    config = tmp_path / "robot.yaml"
    config.write_text("/**:\n  ros__parameters:\n    features: [height]\n    encoder: small\n")
    printed = cli.succeeds(
        "detector", "train", bag, "-o", out, "--updates", 200, "--config", config, "--state", *TRAIN
    )
    assert "false successes" in printed and "detector:=" in printed
    detector = load_detector(out)
    assert detector.spec.layout.cameras == ("wrist",)
    assert detector.spec.layout.features == ("height",) and detector.spec.layout.state_dim == 3
    report = json.loads((out / "report.json").read_text())
    assert report["recall"] == 1.0 and report["false_successes"] == 0
    assert report["layout"] == detector.spec.layout.fingerprint()
    assert Image.open(out / "mistakes.png").width > 400
    assert "has a detector" in cli.fails("detector", "train", bag, "-o", out)


def test_train_without_images_uses_the_state(tmp_path: Path, cli: Cli) -> None:
    steps = [
        replace(s, images=(), state=np.full(2, float(s.is_last and s.episode_id <= 10), np.float32))
        for s in episodes()
    ]
    bag, out = write_bag(tmp_path / "bag", steps), tmp_path / "out"
    options = ("--updates", 50, "--from-disagreements")
    printed = cli.succeeds("detector", "train", bag, "-o", out, *options)
    assert "--from-disagreements changes nothing" in printed
    assert load_detector(out).spec.layout.state_dim == 2
    assert not (out / "mistakes.png").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cameras", "fixed"), "cameras: found fixed, expected some of wrist"),
        (("--precision", 2), "precision: found 2.0"),
        (("--set", "depth=3"), "--set: found ['depth']"),
        (("--before", -1), "before: found -1"),
    ],
)
def test_train_with_wrong_options_names_them(
    tmp_path: Path, bag: Path, cli: Cli, options: tuple[Any, ...], expected: str
) -> None:
    assert expected in cli.fails("detector", "train", bag, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_train_with_too_few_successes_says_how_many(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "bag", episodes(3, 9), cameras=("wrist",))
    printed = cli.fails("detector", "train", bag, "-o", tmp_path / "out")
    assert "found 3 episodes that ended in success and 78 observations" in printed


def with_disagreements(path: Path, steps: list[StepRecord], said: dict[int, bool]) -> Path:
    """A bag of Steps, and of what the operator said of episodes where the detector did not agree."""
    store = step_typestore()
    kinds = {"/replay": "rlif_msgs/msg/Step", "/success_disagreement": DISAGREEMENT_TYPE}
    from rosbags.typesys import get_types_from_msg  # noqa: PLC0415

    store.register(get_types_from_msg(definition(DISAGREEMENT_TYPE), DISAGREEMENT_TYPE))
    writer = BagWriter(BagConfig(path))
    for name, kind in kinds.items():
        writer.add_topic(Topic(name, kind, definition(kind), type_hash(kind), (qos_profile(),)))
    for step in steps:
        stamp = PERIOD * (1 + step.sequence)
        writer.write("/replay", stamp, step_bytes(store, step, stamp))
        if step.is_last and step.episode_id in said:
            success = said[step.episode_id]
            time = store.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
            message = store.types[DISAGREEMENT_TYPE](
                header=store.types["std_msgs/msg/Header"](time, frame_id=""),
                episode_id=step.episode_id, detector=not success, operator_success=success,
                confidence=0.5,
            )  # fmt: skip
            data = bytes(store.serialize_cdr(message, DISAGREEMENT_TYPE))
            writer.write("/success_disagreement", stamp + 1, data)
    writer.close()
    return path


def test_train_takes_the_operators_word_against_the_outcome(tmp_path: Path, cli: Cli) -> None:
    steps = [replace(s, cameras=("wrist",)) for s in episodes(10, 6)]
    bag = with_disagreements(tmp_path / "bag", steps, {1: False, 2: False, 3: False})
    assert read_judgements(bag, "")[0] == {1: False, 2: False, 3: False}
    options = ("-o", tmp_path / "out", "--from-disagreements")
    printed = cli.fails("detector", "train", bag, *options)
    assert "found 7 episodes that ended in success" in printed, "three of ten were none"
