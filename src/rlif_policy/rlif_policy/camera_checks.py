# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a camera that sends: frozen, black, out of step. No ROS, no clock.

A camera that stops is found by its age (sampling.py), another size or encoding when an image is
received (images.py). The faults here pass both checks, and nothing can be learned from such images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from rlif_policy.images import CameraSpec, ImageError, Picture, to_rgb

_WINDOW = 2_000_000_000  # ns over which a rate is taken
_GAPS = 30  # between stamps, of which the median is the camera's period
_FEW = 5  # gaps that are too few to know a period
_OUTAGE = 10_000_000_000  # ns between two stamps that are no lost images any more: it was off
_PROBES = 256  # bytes that are compared before all are


@dataclass(frozen=True)
class CameraLimits:
    """frozen_frames, black_frames: images in a row that make it a fault; 0: not checked.

    black_level: of 255; an image is black if every pixel is below
    """

    frozen_frames: int = 5
    black_frames: int = 5
    black_level: int = 8

    def __post_init__(self) -> None:
        for name in ("frozen_frames", "black_frames"):
            if getattr(self, name) == 1 or getattr(self, name) < 0:
                raise ValueError(
                    f"{name}: found {getattr(self, name)}, expected 0 (not checked) or at least 2"
                )


class CameraWatch:
    """What one camera has sent, and what is wrong with it. Times in ns.

    depth: its images are distances; received: images that came; refused: those of them that did not fit; missed: an estimate, from
    gaps between stamps, of those that never came
    """

    def __init__(self, limits: CameraLimits, depth: bool = False) -> None:
        self._limits, self._depth = limits, depth
        self.received = self.refused = self.missed = 0
        self._arrivals: deque[int] = deque()
        self._gaps: deque[int] = deque(maxlen=_GAPS)
        self._stamp = 0
        self._data: np.ndarray | None = None
        self._same_stamp = self._same_picture = 0  # images that were like the one before
        self._black = 0  # images in a row
        self._broken = ""  # why the newest image could not be converted

    def arrived(self, stamp: int, received: int, data: np.ndarray) -> None:
        """A good image: its stamp (0: none), when it came by a steady clock, its bytes."""
        self._look_at_repeats(stamp, data)
        self._count(stamp)
        self._arrivals.append(received)
        self._forget(received)

    def refuse(self, stamp: int) -> None:
        """An image that did not fit."""
        self._count(stamp)
        self.refused += 1

    def broken(self, reason: str) -> None:
        """An image that had fit when it came, and could not be converted."""
        self.refused += 1
        self._broken = reason

    def converted(self, pixels: np.ndarray) -> None:
        """An image that was converted, as it goes into an observation: once for each."""
        self._broken = ""
        # Of a depth image 1 is the nearest distance, and only 0 was not measured.
        dark = int(pixels.max()) < (1 if self._depth else self._limits.black_level)
        self._black = self._black + 1 if dark else 0

    def rate(self, now: int) -> float:
        """Hz of good images over the last two seconds before `now`, a steady time."""
        self._forget(now)
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) * 1e9 / (self._arrivals[-1] - self._arrivals[0])

    @property
    def fault(self) -> str:
        """The reason; empty: there is no fault."""
        limits = self._limits
        if self._broken:
            return self._broken
        if limits.black_frames and self._black >= limits.black_frames:
            if self._depth:
                return f"blind: no pixel of its last {self._black} depth images was measured"
            return (
                f"black: no pixel of its last {self._black} images reaches {limits.black_level} of "
                "255 (black_level): a lens cap, or no light"
            )
        if limits.frozen_frames and self._same_stamp + 1 >= limits.frozen_frames:
            return f"frozen: its last {self._same_stamp + 1} images have the same stamp"
        if limits.frozen_frames and self._same_picture + 1 >= limits.frozen_frames:
            return (
                f"frozen: its last {self._same_picture + 1} images are the same, bit for bit: no "
                "real camera is that free of noise (frozen_frames: 0 for a simulated one)"
            )
        return ""

    def _look_at_repeats(self, stamp: int, data: np.ndarray) -> None:
        if not self._limits.frozen_frames:
            return
        same_stamp = stamp != 0 and stamp == self._stamp
        self._same_stamp = self._same_stamp + 1 if same_stamp else 0
        self._same_picture = self._same_picture + 1 if alike(data, self._data) else 0
        self._data = data

    def _count(self, stamp: int) -> None:
        self.received += 1
        gap = stamp - self._stamp
        if stamp and self._stamp and 0 < gap < _OUTAGE:
            period = median(self._gaps) if len(self._gaps) >= _FEW else gap
            self.missed += max(0, round(gap / period) - 1)
            self._gaps.append(gap)
        self._stamp = stamp

    def _forget(self, now: int) -> None:
        while self._arrivals and now - self._arrivals[0] > _WINDOW:
            self._arrivals.popleft()


class CameraFeed:
    """One camera: converts its newest image when a tick needs it, each once, and watches them."""

    def __init__(self, spec: CameraSpec, limits: CameraLimits) -> None:
        self.spec, self.watch = spec, CameraWatch(limits, bool(spec.depth_range))
        self._picture: Picture | None = None
        self._pixels: np.ndarray | None = None

    def convert(self, picture: Picture) -> None:
        """Convert `picture`, the newest one, unless it was. `watch.fault` has what is wrong with it."""
        if picture is self._picture:
            return
        self._picture, self._pixels = picture, None
        try:
            self._pixels = to_rgb(picture, self.spec)
        except ImageError as error:
            self.watch.broken(str(error))
        else:
            self.watch.converted(self._pixels)

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [out_height, out_width, 3] of the image converted last. ImageError: it has none."""
        if self._pixels is None:
            raise ImageError(f"camera {self.spec.name}: no image that could be converted")
        return self._pixels


def alike(data: np.ndarray, before: np.ndarray | None) -> bool:
    """Whether two images have the same bytes. Noise shows in the first few: that costs nothing."""
    if before is None or data.size != before.size:
        return False
    stride = max(1, data.size // _PROBES)
    return bool((data[::stride] == before[::stride]).all()) and np.array_equal(data, before)


def out_of_step(stamps: Mapping[str, int], limit: int) -> tuple[str, str] | None:
    """The camera that is behind, and the reason; None: all are within `limit` ns.

    stamps: of the newest image of each camera; 0: none was set. limit 0: any
    """
    known = {name: stamp for name, stamp in stamps.items() if stamp}
    if not limit or len(known) < 2:
        return None
    behind, ahead = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    apart = known[ahead] - known[behind]
    if apart <= limit:
        return None
    reason = (
        f"out of step: its newest image is {apart / 1e9:.3f} s older than that of {ahead}, "
        f"expected at most {limit / 1e9:.3f} s (max_camera_skew)"
    )
    return behind, reason
