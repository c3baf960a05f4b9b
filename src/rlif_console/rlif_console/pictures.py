# SPDX-License-Identifier: Apache-2.0
"""Pictures for pages: the newest frame of each source, encoded once and only while somebody looks. No ROS."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 80
_LEADER = struct.Struct("<HfI")  # length of the name, age in s, number of the frame


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of [height, width, 3] pixels, RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def pack(name: str, age: float, number: int, jpeg: bytes) -> bytes:
    """A picture as it goes to a page: leader, name, JPEG."""
    encoded = name.encode()
    age = age if math.isfinite(age) else -1.0
    return _LEADER.pack(len(encoded), age, number % 2**32) + encoded + jpeg


@dataclass
class Source:
    """The newest frame of one source.

    pixels: makes [height, width, 3] of the message; called only while somebody looks
    """

    received: float
    number: int
    pixels: Callable[[], NDArray[np.uint8]]
    jpeg: bytes = b""
    problem: str = ""


class Pictures:
    """Sources by name, as `observation/wrist` or `camera/wrist`. Not thread-safe: one event loop."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}

    def put(self, name: str, pixels: Callable[[], NDArray[np.uint8]], now: float) -> None:
        """A newer frame: the one before is dropped, looked at or not."""
        before = self._sources.get(name)
        self._sources[name] = Source(now, before.number + 1 if before else 1, pixels)

    def newer(self, wanted: Mapping[str, int], now: float) -> list[tuple[str, int, bytes]]:
        """Of the wanted sources those with another frame than the number given: name, number, packed.

        A frame that cannot be decoded is left out; its source's `problem` says why.
        """
        found = []
        for name, number in wanted.items():
            source = self._sources.get(name)
            if source is None or source.number == number or source.problem:
                continue
            if not source.jpeg:
                try:
                    source.jpeg = encode(source.pixels())
                except (ValueError, IndexError) as problem:  # fewer images than cameras
                    source.problem = str(problem)
                    continue
            found.append(
                (name, source.number, pack(name, now - source.received, source.number, source.jpeg))
            )
        return found
