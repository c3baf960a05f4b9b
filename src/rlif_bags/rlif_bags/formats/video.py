# SPDX-License-Identifier: Apache-2.0
"""Images to mp4 and back, with PyAV: one file per camera, episodes one after another.

h264      yuv420p (yuv444p for odd sizes), crf 18: every player reads it; colours and fine
          detail change a little
lossless  libx264rgb, qp 0: the very same pixels, larger, and not for browsers
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError, bag_errors

# A key frame at every second frame and none that depends on a later one: any frame is read fast.
_FAST = {"preset": "fast", "g": "2", "bf": "0"}
_ENCODERS = {
    "h264": ("libx264", {"crf": "18", **_FAST}),
    "lossless": ("libx264rgb", {"qp": "0", **_FAST}),
}
CODECS = tuple(_ENCODERS)


@dataclass(frozen=True)
class VideoFormat:
    """Of all frames of a camera. fps: frames a second; channels of the images: 3, or 1 (grey)."""

    fps: Fraction
    height: int
    width: int
    channels: int
    codec: str = "h264"

    @property
    def pixels(self) -> str:
        """Pixel format in the file."""
        if self.codec == "lossless":
            return "rgb24"
        return "yuv420p" if self.height % 2 == 0 and self.width % 2 == 0 else "yuv444p"


class VideoWriter:
    """One mp4 file, complete when it is closed."""

    def __init__(self, path: Path, form: VideoFormat) -> None:
        self.path, self.form, self.count = path, form, 0
        self._av = optional("av")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w")
        encoder, options = _ENCODERS[form.codec]
        try:
            stream = self._container.add_stream(encoder, rate=form.fps, options=options)
        except ValueError as error:  # of which the library's "unknown codec" is one
            self._container.close()
            raise BagError(f"this build of av has no encoder {encoder}: {error}") from error
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, form.pixels
        self._stream = stream

    def write(self, image: np.ndarray) -> None:
        """Append uint8 [height, width, 1 or 3]."""
        rgb = np.broadcast_to(image, (*image.shape[:2], 3))
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame.pts = self.count
        frame.time_base = 1 / self.form.fps
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class VideoReader:
    """Frames of mp4 files by time, read forwards: episodes in order cost one pass over a file."""

    def __init__(self, channels: int = 3) -> None:
        self._channels = channels
        self._path: Path | None = None
        self._container: Any = None
        self._frames: Iterator[tuple[float, np.ndarray]] = iter(())
        self._last: tuple[float, np.ndarray] | None = None

    def frames(self, path: Path, times: Sequence[float], tolerance: float) -> Iterator[np.ndarray]:
        """The frame at each of `times` (s, ascending). BagError where there is none so near."""
        for time in times:
            if path != self._path or (self._last is not None and self._last[0] > time + tolerance):
                self._open(path)
            while self._last is None or self._last[0] < time - tolerance:
                self._last = next(self._frames, None)
                if self._last is None:
                    raise BagError(f"{path}: ends before {time:.3f} s; the video is incomplete")
            if self._last[0] > time + tolerance:
                raise BagError(
                    f"{path}: found no frame at {time:.3f} s, the next one is at {self._last[0]:.3f}"
                )
            yield self._last[1]

    def _open(self, path: Path) -> None:
        av = optional("av")
        self.close()
        with bag_errors(f"{path}: not a readable video", OSError, ValueError):
            self._container = av.open(str(path))
        self._path = path
        self._frames = (
            (float(f.pts * f.time_base), f.to_ndarray(format="rgb24")[:, :, : self._channels])
            for f in self._container.decode(video=0)
        )

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._path = self._container = self._last = None
