# SPDX-License-Identifier: Apache-2.0
"""The panel of a film with the critic's value over the time of an episode, drawn by Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from rlif_bags.drawing.colours import GREY, INK, LINE, SOURCE_COLOURS
from rlif_learner.data.steps import Source, StepRecord

_DPI = 72  # a point is a pixel


class ValuePanel:
    """Pictures of width x height pixels. Its axes hold the values of all episodes of a film, so that
    these can be compared, and 0: no take-over is expected.

    values: float64 [steps] of each episode, NaN where there is none; seconds: of the longest episode
    """

    def __init__(
        self, width: int, height: int, values: Sequence[np.ndarray], seconds: float
    ) -> None:
        known = np.concatenate(values)
        known = known[np.isfinite(known)]
        low, high = (min(0.0, *known), max(0.0, *known)) if len(known) > 1 else (-1.0, 0.0)
        spare = 0.06 * (high - low) or 0.5
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        self._canvas = FigureCanvasAgg(figure)
        self.axes = figure.add_axes((44 / width, 44 / height, 1 - 52 / width, 1 - 76 / height))
        self.axes.set(xlim=(0.0, seconds), ylim=(low - spare, high + spare))
        self.axes.set_xlabel("seconds", color=GREY)
        self.axes.set_title("critic's value", loc="left", fontsize=14, weight="bold", color=INK)
        self.axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        self.axes.yaxis.set_major_locator(MaxNLocator(5))
        self.axes.tick_params(length=0, labelsize=12, labelcolor=GREY)
        self.axes.grid(axis="y", color=LINE)
        self.axes.axhline(0.0, color=GREY, linewidth=1)
        self.axes.set_frame_on(False)
        self._curve = LineCollection([], linewidths=3, capstyle="round")
        self.axes.add_collection(self._curve, autolim=False)
        self._dot = self.axes.plot([], [], "o", markersize=8, clip_on=False)[0]

    def picture(
        self, steps: Sequence[StepRecord], values: np.ndarray, now: int, rate: float
    ) -> Image.Image:
        """The values up to step `now` in the colours of the control source; the curve breaks where a
        step is missing. rate: Hz of the steps."""
        first = steps[0].step_index
        points = [
            (step, ((step.step_index - first) / rate, float(value)))
            for step, value in zip(steps[: now + 1], values, strict=False)
        ]
        parts = [
            (start, end, SOURCE_COLOURS[Source(after.source)])
            for (before, start), (after, end) in pairwise(points)
            if after.step_index == before.step_index + 1 and np.isfinite([start, end]).all()
        ]
        self._curve.set_segments([(start, end) for start, end, _ in parts])
        self._curve.set_color([colour for _, _, colour in parts])
        known = [(step, point) for step, point in points if np.isfinite(point[1])]
        for step, (x, y) in known[-1:]:
            self._dot.set_data([x], [y])
            self._dot.set_color(SOURCE_COLOURS[Source(step.source)])
        self._dot.set_visible(bool(known))
        newest = f"{known[-1][1][1]:+.2f}".replace("-", "\N{MINUS SIGN}") if known else ""
        self.axes.set_title(newest, loc="right", fontsize=14, weight="bold", color=INK)
        self._canvas.draw()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())[:, :, :3])
