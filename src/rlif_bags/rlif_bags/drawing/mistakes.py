# SPDX-License-Identifier: Apache-2.0
"""The worst mistakes of a success detector, as a picture: one row each, all cameras side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

COLUMNS = 4
_CELL = (3.2, 1.9)  # inches


@dataclass(frozen=True)
class Mistake:
    """An observation: its images, uint8 [height, width, 1 or 3] each, and what is written above."""

    images: Sequence[np.ndarray]
    caption: str


def draw_mistakes(mistakes: Sequence[Mistake], title: str, path: Path) -> None:
    """PNG of all that have images."""
    rows = -(-len(mistakes) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * _CELL[0], rows * _CELL[1] + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for number, mistake in enumerate(mistakes, start=1):
        axis = figure.add_subplot(rows, COLUMNS, number)
        axis.set_axis_off()
        axis.set_title(mistake.caption, fontsize=7)
        height = max(image.shape[0] for image in mistake.images)
        padded = [
            np.pad(np.broadcast_to(i, (*i.shape[:2], 3)), ((0, height - len(i)), (0, 2), (0, 0)))
            for i in mistake.images
        ]
        axis.imshow(np.concatenate(padded, axis=1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
