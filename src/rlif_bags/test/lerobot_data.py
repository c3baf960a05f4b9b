# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets of made-up episodes: shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from step_bags import make_episodes, rlif, write_bag

from rlif_learner.data.steps import StepRecord

HINT = "is not installed: pip install --group export"
LEROBOT = "rlif_bags.formats.lerobot"
HEIGHT, WIDTH = 48, 64
CAMERAS = ("wrist", "side")


def picture(number: int, camera: int, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    rows, columns = np.mgrid[:height, :WIDTH]
    layers = (columns * 3 + 5 * number, rows * 4, np.full_like(rows, 7 * number + 40 * camera))
    return np.stack(layers[:channels], -1).astype(np.uint8)


def episodes(count: int = 3, length: int = 6, **options: int) -> list[StepRecord]:
    return [
        replace(s, images=tuple(picture(s.sequence, c, **options) for c in range(len(CAMERAS))))
        for s in make_episodes(count, length)
    ]


def export_dataset(tmp_path: Path, steps: Sequence[StepRecord], *options: object) -> Path:
    bag = write_bag(tmp_path / "bag", steps, cameras=CAMERAS)
    before = {p: p.read_bytes() for p in bag.iterdir()}
    out = tmp_path / "dataset"
    assert rlif("export", bag, "-o", out, "--format", "lerobot", *options) == 0
    assert {p: p.read_bytes() for p in bag.iterdir()} == before
    return out
