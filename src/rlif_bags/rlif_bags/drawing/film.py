# SPDX-License-Identifier: Apache-2.0
"""Episodes as moving pictures: the cameras, the control source and the critic's value.

A frame for each Step, in real time:

    +--------------------------------------------------------+
    | band: the control source, at the end the outcome       |
    +--------------+--------------+--------------------------+
    | camera       | camera       | the critic's value       |
    +--------------+--------------+--------------------------+
    | the episode as a bar in the colours of the sources     |
    +--------------------------------------------------------+

film_files.py makes an animated GIF or an mp4 of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import (
    StepReader,
    camera_names,
    grouped_by_episode,
    observation_stamp,
)
from rlif_learner.data.steps import Outcome, Source, StepRecord, discards

POLICY, OPERATOR, GREY = "#1f6f8b", "#e07a3f", "#6b7280"  # as in the plot of a run
SOURCE_COLOURS = {Source.POLICY: POLICY, Source.OPERATOR: OPERATOR, Source.NONE: GREY}
SOURCE_TEXTS = {
    Source.POLICY: "POLICY in control",
    Source.OPERATOR: "OPERATOR in control",
    Source.NONE: "no active source",
}
OUTCOMES = {
    Outcome.SUCCESS: ("SUCCESS", "#2e7d4f"),
    Outcome.FAILURE: ("FAILURE", "#b3261e"),
    Outcome.TRUNCATED: ("TRUNCATED", GREY),
    Outcome.DISCARDED: ("DISCARDED", GREY),
}
INK, PAPER, LINE = "#1f2937", "#ffffff", "#e5e7eb"

MARGIN, GAP, BAND, BAR, NAME = 16, 10, 44, 10, 22  # pixels
CAMERA_HEIGHT = 256  # pixels; images are scaled to about this by a whole factor
PANEL = (256, 256)  # pixels of the critic's panel with its text
HOLD = 1.5  # s that the last frame of an episode stands
MAX_FPS = 20.0  # of the frames; of faster control only every n-th Step is shown
SMOOTH = 4  # the curve is drawn so much larger, then made smaller


class NoImagesError(BagError):
    """There is nothing to see in the Steps."""


@dataclass(frozen=True, eq=False)
class Take:
    """An episode to be shown.

    cameras: a name of each of the images; values: the critic's, of each step, NaN where there is
    none; None: there is no critic; rate: Hz, of the Steps by their stamps; 0: unknown
    """

    steps: Sequence[StepRecord]
    cameras: tuple[str, ...]
    values: np.ndarray | None = None
    rate: float = 0.0

    @property
    def id(self) -> int:
        return self.steps[0].episode_id

    @property
    def periods(self) -> int:
        """From the first step to the last one, those that are missing included."""
        return self.steps[-1].step_index - self.steps[0].step_index


# ---- episodes out of a bag


def _rate(steps: Sequence[tuple[StepRecord, Any]]) -> float:
    """Hz of the Steps of an episode; 0: unknown."""
    stamps = [observation_stamp(message) for _, message in steps]
    periods = [b - a for a, b in pairwise(stamps) if b > a]
    return round(1e9 / float(np.median(periods)), 2) if periods else 0.0


def find_takes(
    bag: Path,
    wanted: Sequence[int] = (),
    count: int = 3,
    topic: str = "",
    values: Callable[[Sequence[StepRecord]], np.ndarray] | None = None,
    notes: list[str] | None = None,
) -> list[Take]:
    """The episodes `wanted` of a bag; without any, the first `count` that were not discarded.

    `values`: the critic's, of the steps of an episode. `notes` takes those of the reader.

    BagError names an episode that is not there; NoImagesError where the Steps hold no images.
    """
    reader, takes, seen = StepReader(bag, topic), list[Take](), list[int]()
    missing = set(wanted)
    for pairs in grouped_by_episode(reader.with_messages(), lambda pair: pair[0]):
        steps = [step for step, _ in pairs]
        number = steps[0].episode_id
        seen.append(number)
        left_out = number not in missing if wanted else discards(steps[-1])
        if left_out:
            continue
        missing.discard(number)
        shown = [step for step in steps if step.images]
        if not shown:
            raise NoImagesError(
                f"{bag}: the Steps of episode {number} hold no images; record with cameras "
                "(launch argument images:=true)"
            )
        cameras = camera_names(shown[0])
        takes.append(Take(shown, cameras, values(shown) if values else None, _rate(pairs)))
        if len(takes) == (len(set(wanted)) or count):
            break
    if notes is not None:
        notes += reader.notes
    if missing or not takes:
        there = f"those from {min(seen)} to {max(seen)}" if seen else "none"
        which = f"episode {min(missing)}" if missing else "episode"
        raise BagError(f"{bag}: found no {which} to show, only {there}")
    return takes


# ---- where things are in a frame


@dataclass(frozen=True)
class Box:
    """Pixels: x and y of the upper left corner, width and height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """As Pillow fills it: the last pixels are in it."""
        return self.x, self.y, self.right - 1, self.bottom - 1


@dataclass(frozen=True)
class Layout:
    """Of all frames of a film. panel: None without a critic. width and height are even, as mp4
    wants them."""

    width: int
    height: int
    band: Box
    cameras: tuple[Box, ...]
    panel: Box | None
    bar: Box


def make_layout(shapes: Sequence[Sequence[int]], panel: bool) -> Layout:
    """Cameras of these shapes, (height, width, channels) each, side by side."""
    # Of more than two cameras each is smaller: the film must fit into a page.
    height = CAMERA_HEIGHT if len(shapes) <= 2 else CAMERA_HEIGHT * 2 // len(shapes)
    x, top, boxes = MARGIN, BAND + MARGIN, []
    for shape in shapes:
        high, wide = _shown_size(shape, height)
        boxes.append(Box(x, top, wide, high))
        x += wide + GAP
    bottom = max(box.bottom for box in boxes) + NAME
    box = None
    if panel:
        box = Box(x + GAP, top, *PANEL)
        x, bottom = box.right + GAP, max(bottom, box.bottom + NAME)
    width = x - GAP + MARGIN
    width += width % 2
    bar = Box(MARGIN, bottom + GAP, width - 2 * MARGIN, BAR)
    whole = bar.bottom + MARGIN
    whole += whole % 2
    return Layout(width, whole, Box(0, 0, width, BAND), tuple(boxes), box, bar)


def _shown_size(shape: Sequence[int], height: int) -> tuple[int, int]:
    """Height and width on the frame: larger by a whole factor, or smaller by one."""
    high, wide = int(shape[0]), int(shape[1])
    if high <= height:
        factor = max(1, height // high)
        return high * factor, wide * factor
    divisor = math.ceil(high / height)
    return math.ceil(high / divisor), math.ceil(wide / divisor)


def camera_picture(image: np.ndarray, box: Box) -> Image.Image:
    """uint8 [height, width, 1 or 3] in the size of its box; enlarged pixels keep their edges."""
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    if picture.height > box.height:
        return picture.reduce(math.ceil(picture.height / box.height))
    return picture.resize((box.width, box.height), Image.Resampling.NEAREST)


# ---- text


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib brings it along, so that it is the same everywhere."""
    weight = "bold" if bold else "normal"
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight=weight)), size)


# ---- the critic's panel


@dataclass(frozen=True)
class Axes:
    """Where values and times lie in the panel. low, high: of the values; seconds: of the longest
    episode. Fixed for a film, so that its episodes can be compared."""

    plot: Box
    low: float
    high: float
    seconds: float

    def place(self, seconds: float, value: float) -> tuple[float, float]:
        """In pixels of the frame."""
        part = (value - self.low) / (self.high - self.low)
        x = self.plot.x + (self.plot.width - 1) * seconds / self.seconds
        return x, self.plot.bottom - 1 - (self.plot.height - 1) * part


def make_axes(panel: Box, takes: Sequence[Take], rate: float) -> Axes:
    """Axes that hold the values of all episodes, and 0: no take-over is expected."""
    values = np.concatenate([take.values for take in takes if take.values is not None])
    values = values[np.isfinite(values)]
    low, high = (min(0.0, *values), max(0.0, *values)) if len(values) > 1 else (-1.0, 0.0)
    spare = 0.06 * (high - low) or 0.5
    longest = max(1, max(take.periods for take in takes)) / rate
    plot = Box(panel.x + 44, panel.y + 44, panel.width - 44, panel.height - 44 - 20)
    return Axes(plot, low - spare, high + spare, longest)


def _draw_axes(draw: ImageDraw.ImageDraw, panel: Box, axes: Axes) -> None:
    plot, small = axes.plot, _font(12)
    draw.text((panel.x, panel.y - 2), "critic's value", INK, _font(14, True))
    for tick in MaxNLocator(5).tick_values(axes.low, axes.high):
        if not axes.low <= tick <= axes.high:
            continue
        y = round(axes.place(0.0, tick)[1])
        draw.line((plot.x, y, plot.right - 1, y), GREY if abs(tick) < 1e-9 else LINE)
        draw.text((plot.x - 6, y), f"{tick:.3g}".replace("-", "\N{MINUS SIGN}"), GREY, small, "rm")
    for tick in MaxNLocator(5, integer=True).tick_values(0.0, axes.seconds):
        if 0.0 <= tick <= axes.seconds:
            x = axes.place(tick, axes.low)[0]
            draw.text((x, plot.bottom + 4), f"{tick:.3g}", GREY, small, "mt")
    draw.text((plot.right, panel.bottom), "seconds", GREY, small, "rt")


def _draw_curve(picture: Image.Image, axes: Axes, take: Take, now: int, rate: float) -> None:
    """The values up to step `now`, in the colours of the control source; it breaks where a step is missing."""
    assert take.values is not None
    first, plot = take.steps[0].step_index, axes.plot
    spare = 8  # around the plot, for the dot
    area = (plot.x - spare, plot.y - spare, plot.right + spare, plot.bottom + spare)
    size = (SMOOTH * (area[2] - area[0]), SMOOTH * (area[3] - area[1]))
    large = picture.crop(area).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    points: list[tuple[float, float] | None] = []
    for step, value in zip(take.steps[: now + 1], take.values, strict=False):
        if not math.isfinite(value):
            points.append(None)
            continue
        x, y = axes.place((step.step_index - first) / rate, float(value))
        points.append((SMOOTH * (x - area[0] + 0.5), SMOOTH * (y - area[1] + 0.5)))
    drawn = zip(take.steps, points, strict=False)
    for (before, start), (after, end) in pairwise(drawn):
        if start and end and after.step_index == before.step_index + 1:
            draw.line((*start, *end), SOURCE_COLOURS[Source(after.source)], round(2.5 * SMOOTH))
            _disc(draw, end, 1.25 * SMOOTH, SOURCE_COLOURS[Source(after.source)])
    known = [i for i, point in enumerate(points) if point]
    if known:
        last = points[known[-1]]
        assert last is not None
        _disc(draw, last, 5.0 * SMOOTH, PAPER)
        _disc(draw, last, 4.0 * SMOOTH, SOURCE_COLOURS[Source(take.steps[known[-1]].source)])
    picture.paste(large.reduce(SMOOTH), area[:2])


def _disc(draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, colour: str) -> None:
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=colour)


# ---- the film


class Film:
    """The frames of some episodes, one after another.

    rate: Hz, of control, for the film runs in real time; 0: that of the Steps. ValueError where
    neither is known, and for episodes whose cameras differ.
    """

    def __init__(self, takes: Sequence[Take], rate: float = 0.0) -> None:
        self.takes, self.rate = takes, rate or max(take.rate for take in takes)
        if not (math.isfinite(self.rate) and self.rate > 0.0):
            raise ValueError(f"rate: found {self.rate}, expected the Hz of the Steps; name them")
        shapes = [image.shape for image in takes[0].steps[0].images]
        for take in takes:
            self._check(take, shapes)
        self.layout = make_layout(shapes, takes[0].values is not None)
        panel = self.layout.panel
        self.axes = make_axes(panel, takes, self.rate) if panel else None
        self.every = max(1, math.ceil(self.rate / MAX_FPS))  # Steps of which one is shown

    def _check(self, take: Take, shapes: list[tuple[int, ...]]) -> None:
        for step in take.steps:
            found = [image.shape for image in step.images]
            if found != shapes:
                raise ValueError(
                    f"episode {take.id}, step {step.step_index}: found images of {found}, expected "
                    f"{shapes} as in episode {self.takes[0].id}; film them one by one"
                )

    @property
    def fps(self) -> float:
        """Frames a second of the mp4."""
        return self.rate / self.every

    def shown(self) -> list[tuple[Take, int]]:
        """Episode and index of the step of each frame; the last step of an episode is among them."""
        return [
            (take, i)
            for take in self.takes
            for i in range(len(take.steps))
            if i % self.every == 0 or i == len(take.steps) - 1
        ]

    def ends(self) -> list[float]:
        """When each frame makes way for the next one, s from the start."""
        now, ends = 0.0, []
        shown = self.shown()
        for n, (take, i) in enumerate(shown):
            if n + 1 < len(shown) and shown[n + 1][0] is take:
                periods = take.steps[shown[n + 1][1]].step_index - take.steps[i].step_index
                now += periods / self.rate  # a missing step leaves its time behind
            else:
                now += HOLD
            ends.append(now)
        return ends

    def frames(self) -> Iterator[Image.Image]:
        """RGB pictures of layout.width x layout.height, one for each of `shown`."""
        background = self._background()
        for take, i in self.shown():
            yield self._frame(background, take, i)

    def _background(self) -> Image.Image:
        """What is the same in all frames."""
        layout = self.layout
        picture = Image.new("RGB", (layout.width, layout.height), PAPER)
        draw = ImageDraw.Draw(picture)
        for box, name in zip(layout.cameras, self.takes[0].cameras, strict=True):
            draw.text((box.x, box.bottom + 5), name.replace("_", " "), GREY, _font(13))
        draw.rectangle(layout.bar.corners, LINE)
        if layout.panel is not None and self.axes is not None:
            _draw_axes(draw, layout.panel, self.axes)
        return picture

    def _frame(self, background: Image.Image, take: Take, now: int) -> Image.Image:
        picture, step, layout = background.copy(), take.steps[now], self.layout
        draw = ImageDraw.Draw(picture)
        self._draw_band(draw, take, step)
        for box, image in zip(layout.cameras, step.images, strict=True):
            picture.paste(camera_picture(image, box), (box.x, box.y))
        self._draw_bar(draw, take, now)
        if layout.panel is not None and self.axes is not None and take.values is not None:
            _draw_curve(picture, self.axes, take, now, self.rate)
            known = take.values[: now + 1][np.isfinite(take.values[: now + 1])]
            if len(known):
                text = f"{known[-1]:+.2f}".replace("-", "\N{MINUS SIGN}")
                corner = (layout.panel.right, layout.panel.y - 2)
                draw.text(corner, text, INK, _font(14, True), "ra")
        return picture

    def _draw_band(self, draw: ImageDraw.ImageDraw, take: Take, step: StepRecord) -> None:
        band = self.layout.band
        passed = (step.step_index - take.steps[0].step_index) / self.rate
        if step.is_last and step.outcome in OUTCOMES:
            text, colour = OUTCOMES[Outcome(step.outcome)]
        else:
            text, colour = SOURCE_TEXTS[Source(step.source)], SOURCE_COLOURS[Source(step.source)]
        draw.rectangle(band.corners, colour)
        middle = band.y + band.height // 2
        draw.text((band.x + MARGIN, middle), text, PAPER, _font(20, True), "lm")
        text = f"episode {take.id}   step {step.step_index}   {passed:.1f} s"
        draw.text((band.right - MARGIN, middle), text, PAPER, _font(16), "rm")

    def _draw_bar(self, draw: ImageDraw.ImageDraw, take: Take, now: int) -> None:
        """Each period of the episode in the colour of its control source; what is to come, grey."""
        bar, first = self.layout.bar, take.steps[0].step_index
        whole = max(1, take.periods)
        for step in take.steps[: now + 1]:
            if step.is_last:
                continue
            left, right = (
                bar.x + bar.width * (step.step_index - first + n) // whole for n in (0, 1)
            )
            right = min(right, bar.right)  # of an episode whose end was not recorded
            if right > left:
                box = (left, bar.y, right - 1, bar.bottom - 1)
                draw.rectangle(box, SOURCE_COLOURS[Source(step.source)])
