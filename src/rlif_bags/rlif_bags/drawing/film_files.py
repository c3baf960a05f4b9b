# SPDX-License-Identifier: Apache-2.0
"""A film as a file: an animated GIF through Pillow, an mp4 through PyAV, of the same frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from rlif_bags.drawing.colours import INK, LINE, OUTCOMES, PAPER, SOURCE_COLOURS
from rlif_bags.drawing.film import Film, camera_picture
from rlif_bags.formats.video import VideoFormat, VideoWriter
from rlif_bags.reading.files import new_file, refuse_existing

MAX_GIF = 2_000_000  # bytes that a GIF shall stay below; coarser, if it must be
# Tried in this order: colours of the cameras, and by how much of 255 a pixel of theirs may be off
# because it was left as it was.
COARSENESS = ((176, 3), (96, 10), (48, 16))


def write_film(film: Film, path: Path) -> None:
    """A .gif or an .mp4, which appears when it is complete. BagError where `path` exists, or
    PyAV is needed and missing; ValueError for another kind of file."""
    kinds = {".gif": _write_gif, ".mp4": _write_mp4}
    kind = path.suffix.lower()
    if kind not in kinds:
        raise ValueError(f"{path}: found {kind or 'no ending'!r}, expected .gif or .mp4")
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        kinds[kind](film, partial)


def _write_gif(film: Film, path: Path) -> None:
    for colours, tolerance in COARSENESS:
        _write_coarse_gif(film, path, colours, tolerance)
        if path.stat().st_size < MAX_GIF:
            return


def _write_coarse_gif(film: Film, path: Path, colours: int, tolerance: int) -> None:
    """One palette for all frames, no dithering, and of each frame only what has changed."""
    palette = _palette_of(film, colours)
    pictures = _changes(_steady_frames(film, tolerance), palette)
    hundredths = [0, *(round(100 * end) for end in film.ends())]  # all that a GIF can hold
    durations = [10 * (end - start) for start, end in pairwise(hundredths)]
    next(pictures).save(
        path, "GIF", save_all=True, append_images=pictures, duration=durations, loop=0,
        disposal=1, optimize=False, transparency=len(palette), palette=palette.to_bytes(),
    )  # fmt: skip


def _steady_frames(film: Film, tolerance: int) -> Iterator[Image.Image]:
    """`frames`, in which a camera's pixel changes only by more than `tolerance`."""
    old: list[np.ndarray] = []
    for frame, (take, i) in zip(film.frames(), film.shown(), strict=True):
        new = list(take.steps[i].images)
        for camera, (was, image) in enumerate(zip(old, new, strict=False)):
            off = np.abs(image.astype(np.int16) - was).max(axis=2, keepdims=True)
            new[camera] = np.where(off > tolerance, image, was)
            box = film.layout.cameras[camera]
            frame.paste(camera_picture(new[camera], box.height), (box.x, box.y))
        old = new
        yield frame


def _palette_of(film: Film, colours: int) -> _Palette:
    """Those that are drawn with, and `colours` of what the cameras saw."""
    shown = film.shown()
    chosen = sorted({round(x) for x in np.linspace(0, len(shown) - 1, 24)})
    pictures = []
    for take, i in (shown[n] for n in chosen):
        for box, image in zip(film.layout.cameras, take.steps[i].images, strict=True):
            picture = camera_picture(image, box.height)
            picture.thumbnail((128, 128), Image.Resampling.NEAREST)
            pictures.append(np.asarray(picture).reshape(-1, 3))
    pixels = np.concatenate(pictures)[None]
    found = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, kmeans=2)
    seen = np.reshape(found.getpalette() or [], (-1, 3))[:colours].tolist()
    return _Palette(list(dict.fromkeys([*_drawn_colours(), *map(tuple, seen)])))


def _write_mp4(film: Film, path: Path) -> None:
    rate = Fraction(film.fps).limit_denominator(1001)
    form = VideoFormat(rate, film.layout.height, film.layout.width, 3)
    with closing(VideoWriter(path, form)) as writer:
        for frame, end in zip(film.frames(), film.ends(), strict=True):
            pixels = np.asarray(frame)
            while writer.count < max(1, round(end * film.fps)):
                writer.write(pixels)


class _Palette:
    """Colours by number, and which of them is nearest to any colour: exactly, as Pillow's is not."""

    def __init__(self, colours: Sequence[tuple[int, ...]]) -> None:
        self.colours = np.array(colours, np.int32)
        self._nearest = np.full(1 << 24, -1, np.int16)  # by red, green, blue as one number

    def __len__(self) -> int:
        return len(self.colours)

    def to_bytes(self) -> bytes:
        """As a file wants it, with one more: it stands for a pixel that does not change."""
        known = set(map(tuple, self.colours.tolist()))
        other = next((0, 0, blue) for blue in range(256) if (0, 0, blue) not in known)
        return bytes([*self.colours.flatten().tolist(), *other])

    def numbers(self, picture: Image.Image) -> np.ndarray:
        """Of an RGB picture: uint8 [height, width]."""
        rgb = np.asarray(picture).astype(np.int32)
        packed = rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2]
        new = np.unique(packed[self._nearest[packed] < 0])
        for part in np.array_split(new, 1 + len(new) // 4096):
            channels = np.stack([part >> 16, part >> 8 & 255, part & 255], axis=1)
            off = ((channels[:, None] - self.colours) ** 2).sum(axis=2)
            self._nearest[part] = off.argmin(axis=1)
        return self._nearest[packed].astype(np.uint8)


def _changes(frames: Iterator[Image.Image], palette: _Palette) -> Iterator[Image.Image]:
    """The frames in the palette's colours; a pixel that is as before has the number after these."""
    before: np.ndarray | None = None
    for frame in frames:
        found = palette.numbers(frame)
        changes = found if before is None else np.where(found == before, len(palette), found)
        before = found
        picture = Image.frombytes("P", frame.size, changes.astype(np.uint8).tobytes())
        picture.putpalette(palette.to_bytes())
        yield picture


def _drawn_colours() -> list[tuple[int, ...]]:
    """Red, green, blue of each colour that is drawn with, and steps from it to white."""
    bands = {*SOURCE_COLOURS.values(), *(colour for _, colour in OUTCOMES.values())}
    found = [_rgb(PAPER), _rgb(LINE)]
    for colour in [INK, *sorted(bands)]:
        ends = np.array([_rgb(colour), _rgb(PAPER)], float)
        found += [
            tuple(np.round(ends[0] + (ends[1] - ends[0]) * part).astype(int).tolist())
            for part in np.linspace(0.0, 1.0, 8, endpoint=False)
        ]
    return found


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
