"""Camera images as the policy sees them: rgb8, resized. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage

# Encoding to (bytes per pixel, which of them are red, green and blue).
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
    "8UC3": (3, (2, 1, 0)),
}


class ImageError(ValueError):
    """An image that is not what was configured; the message names both."""


@dataclass(frozen=True)
class CameraSpec:
    """What a camera sends (width, height) and what goes into observations (out_…), in pixels."""

    name: str
    width: int
    height: int
    out_width: int
    out_height: int

    def __post_init__(self) -> None:
        for field in ("width", "height", "out_width", "out_height"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"camera {self.name}: {field} is {getattr(self, field)}, expected at least 1"
                )


@dataclass(frozen=True)
class RawImage:
    """As it came: nothing is converted before a tick needs it. step: bytes per row."""

    width: int
    height: int
    encoding: str
    step: int
    data: np.ndarray  # uint8 [height * step]


def check_image(image: RawImage, camera: CameraSpec) -> None:
    """ImageError unless `image` has the configured size, a known encoding and all its bytes."""
    if (image.width, image.height) != (camera.width, camera.height):
        raise ImageError(
            f"camera {camera.name} sends {image.width}x{image.height}, expected "
            f"{camera.width}x{camera.height}: set camera.{camera.name}.width and .height, or the "
            "driver's resolution"
        )
    if image.encoding not in ENCODINGS:
        raise ImageError(
            f"camera {camera.name} sends encoding {image.encoding!r}, expected one of "
            f"{', '.join(ENCODINGS)}"
        )
    pixel = ENCODINGS[image.encoding][0]
    if image.step < pixel * image.width or image.data.size != image.step * image.height:
        raise ImageError(
            f"camera {camera.name}: {image.data.size} bytes in rows of {image.step} are no "
            f"{image.width}x{image.height} image of {image.encoding}"
        )


def to_rgb(image: RawImage, camera: CameraSpec) -> np.ndarray:
    """uint8 [out_height, out_width, 3], contiguous. ImageError as in `check_image`."""
    check_image(image, camera)
    pixel, order = ENCODINGS[image.encoding]
    rows = image.data.reshape(image.height, image.step)[:, : pixel * image.width]
    pixels = rows.reshape(image.height, image.width, pixel)
    if order != (0, 1, 2) or pixel != 3:
        pixels = pixels[:, :, order]
    pixels = np.ascontiguousarray(pixels)
    size = (camera.out_width, camera.out_height)
    if size == (image.width, image.height):
        return pixels
    smaller = size[0] <= image.width and size[1] <= image.height
    # A mean over each pixel's area: fast, and no aliasing, where the image becomes smaller.
    method = PillowImage.Resampling.BOX if smaller else PillowImage.Resampling.BILINEAR
    return np.asarray(PillowImage.fromarray(pixels).resize(size, method))
