# SPDX-License-Identifier: Apache-2.0
"""The statistics that a LeRobot dataset carries, per episode and of all: what its policies
normalise with. Names, shapes and the way of joining are LeRobot's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_IMAGES = 100  # of an episode, at most
SAMPLED_ROWS = 64  # of an image, and as many columns, at most

Stats = dict[str, np.ndarray]


def vector_stats(values: np.ndarray) -> Stats:
    """Of [rows] or [rows, entries]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    return _stats(rows, len(rows))


def image_stats(images: Sequence[np.ndarray]) -> Stats:
    """Of uint8 images, by channel, with 255 as 1: shape [3, 1, 1]."""
    picks = np.linspace(0, len(images) - 1, min(len(images), SAMPLED_IMAGES)).round().astype(int)
    every = [max(1, size // SAMPLED_ROWS) for size in images[0].shape[:2]]
    pixels = np.concatenate(
        [images[i][:: every[0], :: every[1]].reshape(-1, images[0].shape[2]) for i in picks]
    )
    stats = _stats(np.broadcast_to(pixels / 255.0, (len(pixels), 3)), len(picks))
    return {k: v if k == "count" else v.reshape(3, 1, 1) for k, v in stats.items()}


def _stats(rows: np.ndarray, count: int) -> Stats:
    stats = {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([count]),
    }
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return stats | dict(zip(QUANTILES, quantiles, strict=True))


def add_stats(total: dict[str, Stats], episode: Mapping[str, Stats]) -> None:
    """Join those of an episode, by feature, to those of all episodes before it.

    Mean and deviation are those of all rows; a quantile is the outermost of the episodes' own.
    """
    for key, stats in episode.items():
        total[key] = _join(total[key], stats) if key in total else stats


def _join(one: Stats, other: Stats) -> Stats:
    count = one["count"] + other["count"]
    share = float(other["count"][0] / count[0])
    apart = other["mean"] - one["mean"]
    variance = (1 - share) * one["std"] ** 2 + share * other["std"] ** 2
    joined = {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": one["mean"] + share * apart,
        "std": np.sqrt(variance + share * (1 - share) * apart**2),
        "count": count,
    }
    for name, quantile in QUANTILES.items():
        pick = np.minimum if quantile <= 0.5 else np.maximum
        joined[name] = pick(one[name], other[name])
    return joined
