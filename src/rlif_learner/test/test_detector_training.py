# SPDX-License-Identifier: Apache-2.0
"""Training of the success detector: labels, split, calibration, threshold, and what it comes to."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from rlif_learner.data.steps import Outcome, StepRecord
from rlif_learner.detector_training import (
    LEFT_OUT,
    DetectorTraining,
    Observations,
    TooFewError,
    calibrate,
    first_run,
    gather,
    judge,
    label_episode,
    split,
    threshold_for,
    train,
)
from rlif_policy.detector import DetectorSpec, ObservationLayout
from rlif_policy.encoders import EncoderSpec

STATE = ObservationLayout(1)
QUICK = DetectorTraining(margin=0, updates=150, batch_size=16, random_shift=1, seed=3)


def episode(
    number: int,
    length: int = 12,
    outcome: Outcome = Outcome.SUCCESS,
    evaluation: bool = False,
    image: bool = False,
) -> list[StepRecord]:
    """The state, and the brightness of the image, grow to 1 at the end of a success alone."""
    steps = []
    for index in range(length + 1):
        last = index == length
        shown = 1.0 if last and outcome == Outcome.SUCCESS else 0.4 * index / length
        pixels = np.full((12, 12, 3), int(200 * shown), np.uint8)
        steps.append(
            StepRecord(
                sequence=0, episode_id=number, step_index=index, is_first=index == 0,
                is_last=last, outcome=outcome if last else Outcome.RUNNING, source=0, onset=False,
                intervention_id=0, evaluation=evaluation, state=np.array([shown], np.float32),
                action=np.zeros(0 if last else 1, np.float32),
                images=(pixels,) if image else (), cameras=("wrist",) if image else (),
                stamp=(number * 100 + index) * 100_000_000,
            )
        )  # fmt: skip
    return steps


def episodes(successes: int = 12, failures: int = 8, image: bool = False):
    outcomes = [Outcome.SUCCESS] * successes + [Outcome.TRUNCATED] * failures
    return [(f"episode {n}", episode(n, outcome=o, image=image)) for n, o in enumerate(outcomes, 1)]


@pytest.mark.parametrize(
    ("outcome", "before", "margin", "operator", "expected"),
    [
        (Outcome.SUCCESS, 0, 0, None, [0, 0, 0, 0, 1]),
        (Outcome.SUCCESS, 1, 2, None, [0, LEFT_OUT, LEFT_OUT, 1, 1]),
        (Outcome.SUCCESS, 9, 9, None, [1, 1, 1, 1, 1]),
        (Outcome.FAILURE, 1, 2, None, [0, 0, 0, 0, 0]),
        (Outcome.SUCCESS, 1, 2, False, [0, 0, 0, 0, 0]),
        (Outcome.TRUNCATED, 0, 0, True, [0, 0, 0, 0, 1]),
    ],
)
def test_label_episode(outcome, before, margin, operator, expected) -> None:
    steps = episode(1, 4, outcome)
    assert label_episode(steps, before, margin, operator).tolist() == expected


def test_gather_leaves_out_discarded_and_evaluation_and_weighs_what_was_corrected() -> None:
    given = [
        ("a", episode(1, 3)),
        ("b", episode(2, 3, Outcome.DISCARDED)),
        ("c", episode(3, 3, evaluation=True)),
        ("d", episode(4, 3)),
    ]
    data = gather(given, STATE, DetectorTraining(margin=0, from_disagreements=True), {3: False})
    assert data.episode.tolist() == [0] * 4 + [3] * 4
    assert data.labels.tolist() == [0, 0, 0, 1, 0, 0, 0, 0], "the operator's word counts"
    assert data.weights.tolist() == [1.0] * 4 + [4.0] * 4
    assert data.rate == pytest.approx(10.0) and data.names[4] == "d, step 0"


def test_gather_takes_the_end_by_a_detector_for_no_late_press() -> None:
    given = [("a", episode(1, 6)), ("b", episode(2, 6)), ("c", episode(3, 6)[:-1])]
    config = DetectorTraining(before=3, margin=1, ticks=2)
    labels = gather(given, STATE, config, detected={1}).labels.tolist()
    assert labels[:7] == [0, 0, -1, 1, 1, 1, 1], "by the button, three steps late"
    assert labels[7:14] == [0, 0, 0, 0, -1, 1, 1], "by two ticks in a row"
    assert labels[14:] == [0] * 6, "its last step is missing"


def test_gather_names_the_step_of_another_robot() -> None:
    with pytest.raises(ValueError, match="x, step 0: the observation has a state of 1, expected 2"):
        gather([("x", episode(1))], ObservationLayout(2), QUICK)


def test_split_holds_out_whole_episodes_of_both_kinds() -> None:
    data = gather(episodes(), STATE, QUICK)
    held = split(data, 0.25, 0)
    chosen = set(data.episode[held])
    assert not chosen & set(data.episode[~held])
    assert len([e for e in chosen if e < 12]) == 3 and len([e for e in chosen if e >= 12]) == 2


@pytest.mark.parametrize(("successes", "failures"), [(7, 20), (8, -1)])
def test_split_of_too_few_is_refused_with_the_counts(successes: int, failures: int) -> None:
    data = gather(episodes(successes, max(0, failures)), STATE, QUICK)
    if failures < 0:
        data.labels[data.labels == 0] = LEFT_OUT
    with pytest.raises(TooFewError, match=f"found {successes} episodes that ended in success"):
        split(data, 0.25, 0)


def test_calibrate_gives_the_share_of_successes_back() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(-2.0, 2.0, 20_000)
    labels = (rng.random(true.size) < 1.0 / (1.0 + np.exp(-true))).astype(int)
    slope, shift = calibrate(3.0 * true + 5.0, labels)
    assert slope == pytest.approx(1 / 3, rel=0.1) and shift == pytest.approx(-5 / 3, rel=0.1)


def test_calibrate_stays_finite_where_the_classes_are_apart_and_refuses_what_is_blind() -> None:
    labels = np.array([0] * 50 + [1] * 5)
    slope, _ = calibrate(np.where(labels == 1, 4.0, -4.0), labels)
    assert 0.0 < slope < 10.0
    with pytest.raises(ValueError, match="sees no difference"):
        calibrate(np.where(labels == 1, -4.0, 4.0), labels)


@pytest.mark.parametrize(
    ("confidences", "labels", "precision", "between"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.99, (0.2, 0.8)),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.99, (0.8, 0.9)),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.6, (0.6, 0.7)),
        ([0.9, 0.8, 0.8, 0.1], [0, 1, 1, 0], 0.99, (0.1, 0.8)),  # not to be had: the best
        ([0.9, 0.9, 0.9, 0.1], [1, 1, 0, 0], 0.99, (0.1, 0.9)),  # equal ones count together
        ([0.9, 0.8, 0.02, 0.01], [1, 1, 0, 0], 0.99, (0.499, 0.501)),  # calibrated: not below 0.5
        ([0.9, 0.4, 0.02, 0.01], [1, 1, 0, 0], 0.99, (0.1, 0.2)),  # but all successes count
    ],
)
def test_threshold_for_a_precision(confidences, labels, precision, between) -> None:
    found = threshold_for(np.array(confidences), np.array(labels), precision)
    assert between[0] < found < between[1]


def test_first_run() -> None:
    above = np.array([True, False, True, True, True])
    assert [first_run(above, ticks) for ticks in (1, 2, 3, 4)] == [0, 3, 4, None]


def test_judge_counts_observations_and_episodes_that_would_have_ended_falsely() -> None:
    data = gather([("a", episode(1, 3)), ("b", episode(2, 3, Outcome.FAILURE))], STATE, QUICK)
    confidences = np.array([0.1, 0.1, 0.6, 0.9, 0.1, 0.9, 0.9, 0.2])
    found = judge(data, np.ones(8, bool), confidences, 0.5, ticks=2)
    assert (found.precision, found.recall) == (0.25, 1.0)
    assert found.false_successes == 1, "b; a ends at its success"
    assert json.dumps(asdict(found)), "a report can hold it"
    assert found.hours == pytest.approx(8 / 10 / 3600)
    assert found.false_per_hour == pytest.approx(4500)
    assert set(found.worst[:2]) == {5, 6}


@pytest.mark.parametrize("image", [False, True])
def test_train_separates_what_can_be_told_apart(image: bool) -> None:
    layout = STATE
    spec = DetectorSpec(STATE)
    if image:
        layout = ObservationLayout(cameras=("wrist",), images=((12, 12, 3),))
        spec = DetectorSpec(layout, EncoderSpec(pooling="average", features=8, channels=8))
    data = gather(episodes(image=image), layout, QUICK)
    losses: list[float] = []
    detector, held, confidences = train(
        spec, data, QUICK, report=lambda _, loss: losses.append(loss)
    )
    assert len(losses) == QUICK.updates and np.mean(losses[-10:]) < np.mean(losses[:10])
    quality = judge(data, held, confidences, detector.threshold.item(), QUICK.ticks)
    assert (quality.precision, quality.recall, quality.false_successes) == (1.0, 1.0, 0)
    again, *_ = train(spec, data, QUICK)
    assert again.threshold == detector.threshold, "the seed decides"


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"before": -1}, "before: found -1"), ({"precision": 1.0}, "precision: found 1.0")],
)
def test_settings_that_are_wrong_are_named(change, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        DetectorTraining(**change)


def test_observations_know_their_number() -> None:
    data = gather(episodes(1, 0), STATE, QUICK)
    assert isinstance(data, Observations) and len(data) == 13
