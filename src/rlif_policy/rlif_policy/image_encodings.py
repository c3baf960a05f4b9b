# SPDX-License-Identifier: Apache-2.0
"""What the encodings of sensor_msgs/Image mean: from bytes to 8-bit pixels. No ROS.

Three kinds, one table each:
    LAYOUTS   pixels that only lie in another order, 8 or 16 bits a channel: read in place
    DEPTHS    one distance per pixel: scaled by a range in metres
    LIBRARY   Bayer and YUV: through cv_bridge where ROS brings it, else through rosbags-image
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image as PillowImage


class ImageError(ValueError):
    """An image that is not what was configured; the message names both."""


@dataclass(frozen=True)
class RawImage:
    """As it came: nothing is converted before a tick needs it. step: bytes per row.

    data: uint8 [height * step], for nv12 and nv21 [3/2 height * step]
    big_endian: the order of the bytes of what has more than one, as `is_bigendian`
    """

    width: int
    height: int
    encoding: str
    step: int
    data: np.ndarray
    big_endian: bool = False


@dataclass(frozen=True)
class Layout:
    """Pixels of `channels` entries of `size` bytes each.

    mode: Pillow's name of their order, of 8 bits each
    """

    channels: int
    size: int
    mode: str

    @property
    def grey(self) -> bool:
        return self.channels == 1

    @property
    def bytes(self) -> int:
        """Of a pixel."""
        return self.channels * self.size


@dataclass(frozen=True)
class LibraryEncoding:
    """What a library converts: `size` bytes a pixel and plane, both sides multiples of `multiple`.

    name: as the libraries know it; rows: of the data, per two rows of the picture
    smallest: pixels of a side below which no colour can be made
    """

    name: str
    size: int
    multiple: tuple[int, int] = (1, 1)  # width, height
    rows: int = 2
    smallest: int = 1


LAYOUTS: dict[str, Layout] = {
    "rgb8": Layout(3, 1, "RGB"),
    "bgr8": Layout(3, 1, "BGR"),
    "rgba8": Layout(4, 1, "RGBX"),
    "bgra8": Layout(4, 1, "BGRX"),
    "mono8": Layout(1, 1, "L"),
    "8UC1": Layout(1, 1, "L"),
    "8UC3": Layout(3, 1, "BGR"),
    "8UC4": Layout(4, 1, "BGRX"),
    "rgb16": Layout(3, 2, "RGB"),
    "bgr16": Layout(3, 2, "BGR"),
    "rgba16": Layout(4, 2, "RGBX"),
    "bgra16": Layout(4, 2, "BGRX"),
    "mono16": Layout(1, 2, "L"),
}
# Type of an entry without its byte order, and how many of them are a metre (REP 118).
DEPTHS: dict[str, tuple[str, float]] = {"16UC1": ("u2", 1000.0), "32FC1": ("f4", 1.0)}
_BAYER = {
    f"bayer_{order}{8 * size}": LibraryEncoding(f"bayer_{order}{8 * size}", size, smallest=3)
    for order in ("rggb", "bggr", "gbrg", "grbg")
    for size in (1, 2)
}
LIBRARY: dict[str, LibraryEncoding] = {
    **_BAYER,
    # The names of later distributions and the older ones, which every version of cv_bridge knows.
    "uyvy": LibraryEncoding("yuv422", 2, (2, 1)),
    "yuv422": LibraryEncoding("yuv422", 2, (2, 1)),
    "yuyv": LibraryEncoding("yuv422_yuy2", 2, (2, 1)),
    "yuv422_yuy2": LibraryEncoding("yuv422_yuy2", 2, (2, 1)),
    "nv12": LibraryEncoding("nv12", 1, (2, 2), rows=3),
    "nv21": LibraryEncoding("nv21", 1, (2, 2), rows=3),
}
ENCODINGS = (*LAYOUTS, *DEPTHS, *LIBRARY)


def check_bytes(image: RawImage) -> None:
    """ImageError unless the encoding is known, and step and data are those of such an image."""
    encoding, width, height = image.encoding, image.width, image.height
    if encoding not in ENCODINGS:
        raise ImageError(f"encoding is {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    rows = height
    if encoding in LIBRARY:
        entry = LIBRARY[encoding]
        _check_sides(image, entry)
        converter(entry.name)
        rows = height * entry.rows // 2
    least = pixel_bytes(encoding) * width
    if image.step < least:
        raise ImageError(
            f"rows of {image.step} bytes (step), expected at least {least} for {width} pixels of "
            f"{encoding}"
        )
    if image.data.size != image.step * rows:
        raise ImageError(
            f"{image.data.size} bytes, expected {image.step * rows}: {rows} rows of {image.step} "
            f"for {width}x{height} of {encoding}"
        )


def _check_sides(image: RawImage, entry: LibraryEncoding) -> None:
    across, down = entry.multiple
    if image.width % across or image.height % down:
        raise ImageError(
            f"{image.width}x{image.height} of {image.encoding}, expected a width that is a "
            f"multiple of {across} and a height that is one of {down}: pixels share their colour"
        )
    if min(image.width, image.height) < entry.smallest:
        raise ImageError(
            f"{image.width}x{image.height} of {image.encoding}, expected at least "
            f"{entry.smallest} pixels a side"
        )


def pixel_bytes(encoding: str) -> int:
    """Bytes of a pixel in a row of the data."""
    if encoding in LAYOUTS:
        return LAYOUTS[encoding].bytes
    if encoding in DEPTHS:
        return np.dtype(DEPTHS[encoding][0]).itemsize
    return LIBRARY[encoding].size


def to_pillow(
    image: RawImage, roi: tuple[int, int, int, int], depth_range: tuple[float, float] | None
) -> PillowImage.Image:
    """The region x, y, width, height of a checked image, as Pillow's RGB or L of 8 bits.

    16 bits become 8 by their high byte. depth_range: m, see `depth_to_grey`; None: ImageError for
    a depth image.
    """
    if image.encoding in LAYOUTS:
        return _read_layout(image, roi, LAYOUTS[image.encoding])
    if image.encoding in DEPTHS:
        return _read_depth(image, roi, depth_range)
    return _through_library(image, roi, LIBRARY[image.encoding])


def _read_layout(
    image: RawImage, roi: tuple[int, int, int, int], layout: Layout
) -> PillowImage.Image:
    x, y, width, height = roi
    step = image.step
    data = image.data[y * step + x * layout.bytes : (y + height) * step]
    if layout.size == 2:
        columns = slice(x * layout.bytes, (x + width) * layout.bytes)
        rows = _rows(image, layout.bytes)[y : y + height, columns]
        data, step = np.ascontiguousarray(rows[:, 0 if image.big_endian else 1 :: 2]), 0
    # Pillow reads rows with their padding, in the order of `mode`: no copy in between.
    return PillowImage.frombytes(
        "L" if layout.grey else "RGB", (width, height), data, "raw", layout.mode, step, 1
    )


def _rows(image: RawImage, pixel: int) -> np.ndarray:
    """uint8 [height, width * pixel], without padding; a view."""
    return image.data.reshape(-1, image.step)[:, : pixel * image.width]


# ---- depth


def depth_to_grey(metres: np.ndarray, near: float, far: float) -> np.ndarray:
    """uint8 of the shape of `metres`: near → 1, far → 255, straight in between; 0: not measured.

    Not measured are 0, less, and NaN; -inf is too near and +inf too far (REP 117).
    """
    seen = np.asarray(metres, np.float32)
    measured = (seen > 0.0) | (seen == -np.inf)
    scale = np.float32(254.0 / (far - near))
    # NaN goes through clip; it must be gone before the cast.
    grey = np.clip(np.where(measured, seen, np.float32(near)), near, far) - np.float32(near)
    return np.where(measured, np.rint(grey * scale) + 1.0, 0.0).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _millimetres_to_grey(near: float, far: float) -> np.ndarray:
    """uint8 [65536]: the grey of each number of millimetres."""
    table = depth_to_grey(np.arange(65536) / DEPTHS["16UC1"][1], near, far)
    table.flags.writeable = False
    return table


def _read_depth(
    image: RawImage, roi: tuple[int, int, int, int], depth_range: tuple[float, float] | None
) -> PillowImage.Image:
    if depth_range is None:
        raise ImageError(
            f"encoding is {image.encoding}, a depth image, expected a depth_range for it: "
            "[nearest, farthest] in m"
        )
    x, y, width, height = roi
    kind, _ = DEPTHS[image.encoding]
    rows = _rows(image, np.dtype(kind).itemsize).view((">" if image.big_endian else "<") + kind)
    depth = rows[y : y + height, x : x + width]
    if image.encoding == "16UC1":
        grey = _millimetres_to_grey(*depth_range)[depth]
    else:
        grey = depth_to_grey(depth, *depth_range)
    return PillowImage.fromarray(grey)


# ---- through a library


Converter = Callable[[Any, str], Any]  # something like a sensor_msgs/Image, encoding → pixels


def _cv_bridge() -> Converter:
    bridge: Any = importlib.import_module("cv_bridge")
    convert: Converter = bridge.CvBridge().imgmsg_to_cv2
    return convert


def _rosbags_image() -> Converter:
    convert: Converter = importlib.import_module("rosbags.image").message_to_cvimage
    return convert


LIBRARIES: dict[str, Callable[[], Converter]] = {
    "cv_bridge": _cv_bridge,
    "rosbags-image": _rosbags_image,
}


@functools.lru_cache(maxsize=64)
def converter(encoding: str) -> Converter:
    """The first library that is here and converts `encoding`. ImageError: none is.

    Each is tried with a small grey picture: some versions of cv_bridge know fewer encodings than
    sensor_msgs, others do not load at all (built for another NumPy).
    """
    reasons = []
    for name, load in LIBRARIES.items():
        try:
            convert = load()
            shape = np.asarray(_convert(convert, encoding, np.full((6, 4), 128, np.uint8))).shape
        except Exception as error:  # noqa: BLE001  whatever a library does, the next one is tried
            reason = str(error).strip().splitlines() or [type(error).__name__]
            reasons.append(f"{name}: {reason[0]}")
            continue
        if len(shape) == 3 and shape[2] == 3:
            return convert
        reasons.append(f"{name}: made {shape} of it")
    raise ImageError(
        f"no library here reads {encoding!r} ({'; '.join(reasons)}): install cv_bridge, or "
        "opencv-python-headless for rosbags-image"
    )


def _convert(convert: Converter, encoding: str, rows: np.ndarray) -> np.ndarray:
    """Native, unpadded rows (uint8 [rows, bytes]) → RGB [height, width, 3], of the same depth."""
    entry = LIBRARY[encoding]
    count, step = rows.shape
    # Both libraries take `height` for the rows of the data, which are more than the picture's for
    # nv12 and nv21; and not all versions heed padding or the order of bytes: there is none left.
    message = SimpleNamespace(
        height=count, width=step // entry.size, encoding=encoding, step=step,
        is_bigendian=sys.byteorder == "big", data=np.ascontiguousarray(rows).reshape(-1),
    )  # fmt: skip
    # 16 bits stay 16 here: the libraries round differently on the way to 8.
    return np.asarray(convert(message, "rgb16" if _is_wide(entry) else "rgb8"))


def _is_wide(entry: LibraryEncoding) -> bool:
    """Two bytes of one number, not of a pixel's two."""
    return entry.name.endswith("16")


def _through_library(
    image: RawImage, roi: tuple[int, int, int, int], entry: LibraryEncoding
) -> PillowImage.Image:
    x, y, width, height = roi
    rows = _rows(image, entry.size)
    if _is_wide(entry) and image.big_endian != (sys.byteorder == "big"):
        rows = np.ascontiguousarray(rows).view(np.uint16).byteswap().view(np.uint8)
    try:
        pixels = _convert(converter(entry.name), entry.name, rows)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  cv2 and cv_bridge each raise a kind of their own
        raise ImageError(
            f"{image.width}x{image.height} of {image.encoding} cannot be converted: {error}"
        ) from error
    region = pixels[y : y + height, x : x + width]
    if region.dtype == np.uint16:
        region = region >> 8
    return PillowImage.fromarray(np.ascontiguousarray(region, dtype=np.uint8))
