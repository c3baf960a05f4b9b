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

import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from rlif_bags.drawing.colours import (
    GREY,
    LINE,
    OUTCOMES,
    PAPER,
    SOURCE_COLOURS,
    SOURCE_TEXTS,
)
from rlif_bags.drawing.value_panel import ValuePanel
from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import (
    StepReader,
    camera_names,
    episodes_of,
)
from rlif_learner.data.steps import Outcome, Source, StepRecord, discards

MARGIN, GAP, BAND, BAR, NAME = 16, 10, 44, 10, 22  # pixels
CAMERA_HEIGHT = 256  # pixels; images are scaled to about this by a whole factor
PANEL = (256, 256)  # pixels of the critic's panel with its text
HOLD = 1.5  # s that the last frame of an episode stands
MAX_FPS = 20.0  # of the frames; of faster control only every n-th Step is shown


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


def _rate(steps: Sequence[StepRecord]) -> float:
    """Hz of the Steps of an episode; 0: unknown."""
    periods = [b.stamp - a.stamp for a, b in pairwise(steps) if b.stamp > a.stamp]
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

    BagError names an episode that is not there, or whose Steps hold no images.
    """
    reader, takes, seen = StepReader(bag, topic), list[Take](), list[int]()
    missing = set(wanted)
    for steps in episodes_of(reader):
        number = steps[0].episode_id
        seen.append(number)
        left_out = number not in missing if wanted else discards(steps[-1])
        if left_out:
            continue
        missing.discard(number)
        shown = [step for step in steps if step.images]
        if not shown:
            raise BagError(
                f"{bag}: the Steps of episode {number} hold no images; record with cameras "
                "(launch argument images:=true)"
            )
        cameras = camera_names(shown[0])
        takes.append(Take(shown, cameras, values(shown) if values else None, _rate(steps)))
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


def make_layout(images: Sequence[np.ndarray], panel: bool) -> Layout:
    """Cameras with such images side by side."""
    # Of more than two cameras each is smaller: the film must fit into a page.
    height = CAMERA_HEIGHT if len(images) <= 2 else CAMERA_HEIGHT * 2 // len(images)
    x, top, boxes = MARGIN, BAND + MARGIN, []
    for image in images:
        boxes.append(Box(x, top, *camera_picture(image, height).size))
        x = boxes[-1].right + GAP
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


def camera_picture(image: np.ndarray, height: int) -> Image.Image:
    """uint8 [height, width, 1 or 3] of about this height: larger by a whole factor, which keeps the
    edges of its pixels, or smaller by one."""
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    if picture.height > height:
        return picture.reduce(math.ceil(picture.height / height))
    factor = max(1, height // picture.height)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


# ---- text


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib brings it along, so that it is the same everywhere."""
    weight = "bold" if bold else "normal"
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight=weight)), size)


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
        self.layout = make_layout(takes[0].steps[0].images, takes[0].values is not None)
        self.panel: ValuePanel | None = None
        if (box := self.layout.panel) is not None:
            values = [take.values for take in takes if take.values is not None]
            seconds = max(1, max(take.periods for take in takes)) / self.rate
            self.panel = ValuePanel(box.width, box.height, values, seconds)
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
        return picture

    def _frame(self, background: Image.Image, take: Take, now: int) -> Image.Image:
        picture, step, layout = background.copy(), take.steps[now], self.layout
        draw = ImageDraw.Draw(picture)
        self._draw_band(draw, take, step)
        for box, image in zip(layout.cameras, step.images, strict=True):
            picture.paste(camera_picture(image, box.height), (box.x, box.y))
        self._draw_bar(draw, take, now)
        if layout.panel is not None and self.panel is not None and take.values is not None:
            values = self.panel.picture(take.steps, take.values, now, self.rate)
            picture.paste(values, (layout.panel.x, layout.panel.y))
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
