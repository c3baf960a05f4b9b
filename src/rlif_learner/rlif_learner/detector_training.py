# SPDX-License-Identifier: Apache-2.0
"""Trains the success detector (rlif_policy.detector) on Steps: labels, split, network, calibration,
threshold, and how good it is on episodes that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlif_learner.data.augmentation import shift_cameras
from rlif_learner.data.steps import Outcome, StepRecord, discards
from rlif_policy.detector import Detector, DetectorSpec, ObservationLayout

LEFT_OUT = -1  # label of an observation that is neither
MIN_SUCCESSES, MIN_NEGATIVES = 8, 50  # episodes that ended in success, observations without success
DISAGREEMENT_WEIGHT = 4.0  # of the episodes that the operator corrected, with `from_disagreements`
CHUNK = 256  # observations that are encoded at a time


class TooFewError(ValueError):
    """There is too little to learn from; the message has the counts."""


@dataclass(frozen=True)
class DetectorTraining:
    """Settings. ValueError names the one that is wrong.

    before: observations before the last one of a success that show it too
    margin: observations before those that are left out, since they may show either
    precision: wished of single observations; ticks: in a row that end an episode
    """

    before: int = 0
    margin: int = 5
    held_out: float = 0.3
    updates: int = 800
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    random_shift: int = 4  # pixels
    precision: float = 0.99
    ticks: int = 2
    from_disagreements: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        low = {
            "before": 0,
            "margin": 0,
            "updates": 1,
            "batch_size": 2,
            "random_shift": 0,
            "ticks": 1,
        }
        for name, least in low.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least {least}")
        for name in ("held_out", "precision"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected above 0, below 1")


@dataclass(eq=False)
class Observations:
    """All observations that are learned from. episode: index of each; labels: 1, 0 or LEFT_OUT."""

    states: Tensor  # float32 [count, state_dim]
    images: tuple[Tensor, ...]  # uint8 [count, height, width, channels] of each camera
    labels: np.ndarray
    episode: np.ndarray
    weights: np.ndarray
    names: list[str]  # of each observation, for people
    rate: float  # Hz, by the stamps; 0: unknown

    def __len__(self) -> int:
        return len(self.labels)


def label_episode(
    steps: Sequence[StepRecord], before: int, margin: int, success: bool | None = None
) -> np.ndarray:
    """Whether each observation shows success: the last one of an episode that ended in it, and `before`
    more; `margin` before those are LEFT_OUT. success: of the operator, who knows better than the outcome.
    """
    labels = np.zeros(len(steps), np.int8)
    if success is None:
        success = steps[-1].outcome == Outcome.SUCCESS
    if success and steps[-1].is_last:  # else the observation that shows it is not there
        labels[max(0, len(steps) - 1 - before - margin) :] = LEFT_OUT
        labels[max(0, len(steps) - 1 - before) :] = 1
    return labels


def gather(
    episodes: Sequence[tuple[str, Sequence[StepRecord]]],
    layout: ObservationLayout,
    config: DetectorTraining,
    corrections: Mapping[int, bool] | None = None,
    detected: Collection[int] = (),
) -> Observations:
    """Names and Steps of episodes as observations; those of evaluation and discarded ones are left out.

    corrections: the operator's judgement of an episode, by its index
    detected: indices of those that a detector ended: sooner than a person who presses `before` later
    """
    corrections = corrections or {}
    states: list[np.ndarray] = []
    images: list[list[np.ndarray]] = []
    names: list[str] = []
    labels: list[np.ndarray] = []
    owners: list[int] = []
    weights: list[float] = []
    periods: list[int] = []
    for index, (name, steps) in enumerate(episodes):
        if discards(steps[-1]) or steps[0].evaluation:
            continue
        for step in steps:
            try:
                state, chosen = layout.select(step.state, step.cameras, step.images)
            except ValueError as error:
                raise ValueError(f"{name}, step {step.step_index}: {error}") from error
            states.append(state)
            images.append(chosen)
            names.append(f"{name}, step {step.step_index}")
        before = min(config.before, config.ticks - 1) if index in detected else config.before
        labels.append(label_episode(steps, before, config.margin, corrections.get(index)))
        owners += [index] * len(steps)
        corrected = config.from_disagreements and index in corrections
        weights += [DISAGREEMENT_WEIGHT if corrected else 1.0] * len(steps)
        periods += [b.stamp - a.stamp for a, b in zip(steps, steps[1:], strict=False)]
    median = float(np.median([p for p in periods if p > 0] or [0]))
    return Observations(
        torch.from_numpy(np.array(states, np.float32).reshape(len(names), layout.state_dim)),
        tuple(torch.from_numpy(np.stack(camera)) for camera in zip(*images, strict=True)),
        np.concatenate(labels) if labels else np.zeros(0, np.int8),
        np.array(owners, np.int64), np.array(weights), names, 1e9 / median if median else 0.0,
    )  # fmt: skip


def split(data: Observations, held_out: float, seed: int) -> np.ndarray:
    """Which observations are held out: whole episodes, of successes and others the same share.

    TooFewError where there are too few of either.
    """
    successes = np.unique(data.episode[data.labels == 1])
    others = np.setdiff1d(np.unique(data.episode), successes)
    negatives = int((data.labels == 0).sum())
    if len(successes) < MIN_SUCCESSES or negatives < MIN_NEGATIVES:
        raise TooFewError(
            f"found {len(successes)} episodes that ended in success and {negatives} observations "
            f"without success, expected at least {MIN_SUCCESSES} and {MIN_NEGATIVES}: record more, "
            "and end successful episodes with the success button"
        )
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(group, max(1, round(held_out * len(group))), replace=False)
        for group in (successes, others)
        if len(group) > 1
    ]
    return np.isin(data.episode, np.concatenate(chosen))


def train(
    spec: DetectorSpec,
    data: Observations,
    config: DetectorTraining,
    trunk: Mapping[str, Tensor] | None = None,
    report: Callable[[int, float], None] = lambda update, loss: None,
) -> tuple[Detector, np.ndarray, np.ndarray]:
    """A trained, calibrated detector, which observations were held out, and its confidences [count]."""
    held = split(data, config.held_out, config.seed)
    detector = Detector(spec, config.seed, trunk)
    detector.normalise_by(data.states[torch.from_numpy(~held)].numpy())
    images = data.images
    frozen = spec.encoder is not None and spec.encoder.frozen
    if frozen:
        images = _maps(detector, images)
    drawn = [np.flatnonzero(~held & (data.labels == label)) for label in (1, 0)]
    weights = [torch.from_numpy(data.weights[group]) for group in drawn]
    rng = torch.Generator().manual_seed(config.seed)
    half = config.batch_size // 2
    target = torch.cat([torch.ones(half), torch.zeros(half)])
    parameters = [p for p in detector.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.updates)
    detector.train()
    for update in range(1, config.updates + 1):
        # As many of each: successes are rare among the observations.
        rows = torch.cat([
            torch.from_numpy(group)[torch.multinomial(weight, half, True, generator=rng)]
            for group, weight in zip(drawn, weights, strict=True)
        ])  # fmt: skip
        batch = tuple(camera[rows] for camera in images)
        if batch and not frozen and config.random_shift:
            most = config.random_shift
            shifts = torch.randint(-most, most + 1, (len(batch), len(rows), 2), generator=rng)
            batch = shift_cameras(batch, shifts)
        loss = functional.binary_cross_entropy_with_logits(
            detector(data.states[rows], batch), target
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        report(update, loss.item())
    detector.eval()
    known = held & (data.labels != LEFT_OUT)
    logits = compute_logits(detector, data.states, images)
    slope, shift = calibrate(logits[known], data.labels[known])
    detector.slope.fill_(slope)
    detector.shift.fill_(shift)
    confidences = 1.0 / (1.0 + np.exp(-(detector.slope.item() * logits + detector.shift.item())))
    threshold = threshold_for(confidences[known], data.labels[known], config.precision)
    detector.threshold.fill_(threshold)
    return detector, held, confidences


@torch.no_grad()
def _maps(detector: Detector, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a frozen trunk makes of all images, once: no random shift is possible then."""
    assert detector.encoder is not None
    rows = [detector.encoder.maps(list(row)) for row in zip(*images, strict=True)]
    return tuple(torch.stack(camera) for camera in zip(*rows, strict=True))


@torch.no_grad()
def compute_logits(detector: Detector, states: Tensor, images: Sequence[Tensor]) -> np.ndarray:
    """float64 [count], before calibration."""
    parts = [
        detector(states[i : i + CHUNK], [camera[i : i + CHUNK] for camera in images])
        for i in range(0, len(states), CHUNK)
    ]
    return torch.cat(parts).double().numpy()


def calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the logits that fit the labels best (Platt, 1999).

    The slope is the inverse of a temperature; the shift gives back the true rarity of successes, which
    balanced batches hide. Platt's targets keep both finite where the classes are separable.
    """
    positives = labels == 1
    count = int(positives.sum())
    targets = np.where(positives, (count + 1) / (count + 2), 1 / (len(labels) - count + 2))
    x, y = torch.from_numpy(logits), torch.from_numpy(targets)
    ab = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([ab], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.binary_cross_entropy_with_logits(ab[0] * x + ab[1], y)
        value.backward()
        return value

    optimiser.step(loss)
    slope, shift = ab.tolist()
    if not (math.isfinite(slope) and math.isfinite(shift) and slope > 0.0):
        raise ValueError(
            f"calibration: found a slope of {slope}, expected more than 0: the detector sees no "
            "difference on the held-out episodes; record more, or look at the labels"
        )
    return slope, shift


def threshold_for(confidences: np.ndarray, labels: np.ndarray, precision: float) -> float:
    """That finds most successes with at least this precision; the best precision, if none has it.

    In the middle between the last confidence that counts and the next one below, in logits. Not below
    0.5, where a calibrated detector calls a failure the likelier, if no success is lost by it.
    """
    order = np.argsort(-confidences, kind="stable")
    found = np.cumsum(labels[order] == 1)
    reached = found / np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidences[order]) != 0.0, True)  # equal ones count together
    fits = np.flatnonzero(last & (reached >= precision))
    best = fits[-1] if len(fits) else np.flatnonzero(last)[np.argmax(reached[last])]
    while best > 0 and labels[order[best]] != 1 and len(fits):
        best -= 1  # nothing is gained by the negatives at the end
    upper = confidences[order[best]]
    below = confidences[confidences < upper]
    middle = 0.5 * (_logit(upper) + _logit(below.max() if len(below) else 0.0))
    threshold = float(1.0 / (1.0 + math.exp(-middle)))
    return max(threshold, 0.5) if upper >= 0.5 else threshold


def _logit(p: float) -> float:
    p = min(max(float(p), 1e-7), 1.0 - 1e-7)
    return math.log(p / (1.0 - p))


@dataclass(frozen=True)
class Quality:
    """How good a detector is on some episodes.

    precision, recall: of single observations; false_successes: episodes ended, by `ticks` in a row,
    at an observation without success; hours: of control, at the rate of the Steps
    """

    episodes: int
    positives: int
    negatives: int
    precision: float
    recall: float
    calibration_error: float
    false_successes: int
    hours: float
    worst: tuple[int, ...]  # indices of mistakes, or nearest to one, worst first

    @property
    def false_per_hour(self) -> float:
        return self.false_successes / self.hours if self.hours else math.nan


def judge(
    data: Observations, rows: np.ndarray, confidences: np.ndarray, threshold: float, ticks: int
) -> Quality:
    """Of the observations `rows` (a mask), with their confidences [count]."""
    labels = data.labels
    above = confidences >= threshold
    positive, negative = rows & (labels == 1), rows & (labels == 0)
    hits, false = int((positive & above).sum()), int((negative & above).sum())
    episodes = np.unique(data.episode[rows])
    ended_falsely = 0
    for episode in episodes:
        own = np.flatnonzero(data.episode == episode)
        end = first_run(above[own], ticks)
        ended_falsely += int(end is not None and labels[own[end]] == 0)
    known = np.flatnonzero(positive | negative)
    error = np.abs(confidences - (labels == 1))
    worst = known[np.argsort(-error[known], kind="stable")]
    return Quality(
        len(episodes), int(positive.sum()), int(negative.sum()),
        hits / max(1, hits + false), hits / max(1, int(positive.sum())),
        _calibration_error(confidences[known], labels[known]), ended_falsely,
        int(rows.sum()) / data.rate / 3600.0 if data.rate else 0.0, tuple(worst.tolist()),
    )  # fmt: skip


def first_run(above: np.ndarray, ticks: int) -> int | None:
    """Index at which `ticks` in a row are true for the first time; None: never."""
    count = 0
    for index, one in enumerate(above):
        count = count + 1 if one else 0
        if count == ticks:
            return index
    return None


def _calibration_error(confidences: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean distance of confidence and share of successes, over bins of equal width."""
    index = np.minimum((confidences * bins).astype(int), bins - 1)
    groups = [index == i for i in range(bins) if (index == i).any()]
    return float(sum(
        g.sum() * abs(confidences[g].mean() - (labels[g] == 1).mean()) for g in groups
    ) / max(1, len(labels)))  # fmt: skip
