# SPDX-License-Identifier: Apache-2.0
"""Camera images as observations have them: rgb8, a region of what was received, resized. No ROS."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from rlif_policy.image_encodings import (
    DEPTHS,
    ENCODINGS,
    ImageError,
    RawImage,
    check_bytes,
    pixel_bytes,
    to_pillow,
)

__all__ = ["ENCODINGS", "CameraSpec", "ImageError", "PackedImage", "Picture", "RawImage",
           "check_image", "image_names", "to_rgb", "unpack"]  # fmt: skip


def image_names(message: Any) -> tuple[str, ...]:
    """Camera of each image of an Observation or a Step, whoever deserialised it; empty: not known.

    Bags of before the field `camera_names` have the camera's name as the image's frame_id. ValueError
    where there is another number of names than of images.
    """
    names = tuple(getattr(message, "camera_names", ()))
    if not names:
        return tuple(image.header.frame_id for image in message.images)
    if len(names) != len(message.images):
        raise ValueError(
            f"camera_names: found {', '.join(names)} for {len(message.images)} images; expected one each"
        )
    return names


FILES = ("JPEG", "PNG")  # what the data of a CompressedImage may be


@dataclass(frozen=True)
class CameraSpec:
    """What a camera sends (width, height) and what goes into observations (out_…), in pixels.

    roi: x, y, width, height of what is used; empty: all
    depth_range: what is 1 and what is 255 in a depth image, in m; empty: it sends none
    """

    name: str
    width: int
    height: int
    out_width: int
    out_height: int
    roi: tuple[int, ...] = ()
    depth_range: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("width", "height", "out_width", "out_height"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"camera {self.name}: {field} is {getattr(self, field)}, expected at least 1"
                )
        if self.roi and (len(self.roi) != 4 or not self._inside(*self.roi)):
            raise ValueError(
                f"camera {self.name}: roi is {list(self.roi)}, expected [x, y, width, height] "
                f"within {self.width}x{self.height} pixels"
            )
        near_far = self.depth_range
        if near_far and not (len(near_far) == 2 and 0.0 <= near_far[0] < near_far[1] < np.inf):
            raise ValueError(
                f"camera {self.name}: depth_range is {list(near_far)}, expected [nearest, "
                "farthest] in m"
            )

    def _inside(self, x: int, y: int, width: int, height: int) -> bool:
        fits = x + width <= self.width and y + height <= self.height
        return x >= 0 and y >= 0 and width >= 1 and height >= 1 and fits

    @property
    def region(self) -> tuple[int, int, int, int]:
        """x, y, width, height of what is used."""
        x, y, width, height = self.roi or (0, 0, self.width, self.height)
        return x, y, width, height

    @property
    def depth(self) -> tuple[float, float] | None:
        return (self.depth_range[0], self.depth_range[1]) if self.depth_range else None


@dataclass(frozen=True)
class PackedImage:
    """A JPEG or PNG file, as it came. width, height: as the file's head says.

    form: `format` of the CompressedImage: "jpeg", or with image_transport
    "rgb8; jpeg compressed bgr8", what it was and what it is
    """

    width: int
    height: int
    form: str
    data: np.ndarray  # uint8 [bytes of the file]

    @classmethod
    def of(cls, form: str, data: np.ndarray) -> PackedImage:
        """Reads the file's head only. ImageError: it is no JPEG or PNG."""
        if "compressedDepth" in form:
            raise ImageError(
                f"format is {form!r}, expected JPEG or PNG: take a depth image with transport raw"
            )
        picture = _opened(form, data)
        wanted = declared_encoding(form)
        bits = _bits(picture)
        if wanted in DEPTHS and bits != 8 * pixel_bytes(wanted):
            raise ImageError(
                f"format is {form!r}, a depth image, in a {picture.format} file of {picture.mode} "
                f"pixels, expected grey pixels of {8 * pixel_bytes(wanted)} bits: distances are lost "
                "in it; publish PNG, or take the camera with transport raw"
            )
        return cls(picture.width, picture.height, form, data)


Picture = RawImage | PackedImage


def declared_encoding(form: str) -> str:
    """Encoding that the image had before it was packed, out of `format`; empty: not given."""
    encoding = form.partition(";")[0].strip()
    known = {name.lower(): name for name in ENCODINGS}
    return known.get(encoding.lower(), "")


def _bits(picture: PillowImage.Image) -> int:
    """Of a grey pixel; 0: the picture has colours."""
    if picture.mode.startswith("I;16"):
        return 16
    return 8 if picture.mode == "L" else 0


def _opened(form: str, data: np.ndarray) -> PillowImage.Image:
    try:
        with warnings.catch_warnings():  # of a size that is refused anyway
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            return PillowImage.open(io.BytesIO(data.tobytes()), formats=FILES)
    except (UnidentifiedImageError, PillowImage.DecompressionBombError, OSError) as error:
        raise ImageError(
            f"{data.size} bytes of format {form!r} are no JPEG or PNG file: {error}"
        ) from error


def unpack(image: PackedImage) -> RawImage:
    """The pixels of the file; ImageError if it is broken."""
    picture = _opened(image.form, image.data)
    wanted, rest = declared_encoding(image.form), image.form.partition(";")[2]
    try:
        if picture.mode.startswith("I;16"):
            pixels, encoding = np.asarray(picture, "<u2"), "mono16"
        elif picture.mode == "L":
            pixels, encoding = np.asarray(picture), "mono8"
        else:
            pixels, encoding = np.asarray(picture.convert("RGB")), "rgb8"
            # image_transport writes files from BGR; one that says RGB has the two exchanged.
            if "compressed rgb" in rest:
                encoding = "bgr8"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for files that end too early
        raise ImageError(
            f"{image.data.size} bytes of {image.form!r} are broken: {error}"
        ) from error
    if encoding.startswith("mono") and _is_mosaic_or_depth(wanted, pixels.itemsize):
        encoding = wanted
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(image.height, -1)
    return RawImage(image.width, image.height, encoding, rows.shape[1], rows.reshape(-1))


def _is_mosaic_or_depth(encoding: str, itemsize: int) -> bool:
    """Whether grey pixels of so many bytes are really colours behind a filter, or distances."""
    bits = str(8 * itemsize)
    return encoding in ENCODINGS and (
        (encoding.startswith("bayer_") and encoding.endswith(bits))
        or (encoding in DEPTHS and encoding.startswith(bits))
    )


def check_image(image: Picture, camera: CameraSpec) -> None:
    """ImageError, naming the camera, unless `image` has the configured size and all its bytes.

    Of a packed image only its size is checked: its pixels show when it is unpacked.
    """
    if (image.width, image.height) != (camera.width, camera.height):
        raise ImageError(
            f"camera {camera.name} sends {image.width}x{image.height}, expected "
            f"{camera.width}x{camera.height}: set camera.{camera.name}.width and .height, or the "
            "driver's resolution"
        )
    if isinstance(image, PackedImage):
        return
    try:
        check_bytes(image)
    except ImageError as error:
        raise ImageError(f"camera {camera.name}: {error}") from error
    if camera.depth_range and image.encoding not in DEPTHS:
        raise ImageError(
            f"camera {camera.name} sends {image.encoding}, expected a depth image "
            f"({', '.join(DEPTHS)}), as camera.{camera.name}.depth_range is set: leave that out, or "
            "take the driver's depth topic, raw or as PNG"
        )
    if image.encoding in DEPTHS and not camera.depth_range:
        raise ImageError(
            f"camera {camera.name} sends {image.encoding}, a depth image, expected colours: set "
            f"camera.{camera.name}.depth_range to [nearest, farthest] in m"
        )


def to_rgb(image: Picture, camera: CameraSpec) -> np.ndarray:
    """uint8 [out_height, out_width, 3], contiguous. ImageError as in `check_image`."""
    check_image(image, camera)
    if isinstance(image, PackedImage):
        image = _unpack_for(image, camera)
    try:
        pixels = to_pillow(image, camera.region, camera.depth)
    except ImageError as error:
        raise ImageError(f"camera {camera.name}: {error}") from error
    size = (camera.out_width, camera.out_height)
    if size != pixels.size:
        smaller = size[0] <= pixels.width and size[1] <= pixels.height
        # A mean over each pixel's area: fast, and no aliasing, where the image becomes smaller.
        method = PillowImage.Resampling.BOX if smaller else PillowImage.Resampling.BILINEAR
        pixels = pixels.resize(size, method)
    resized = np.asarray(pixels)
    return resized if resized.ndim == 3 else np.repeat(resized[:, :, None], 3, axis=2)


def _unpack_for(image: PackedImage, camera: CameraSpec) -> RawImage:
    """`unpack`, and the checks that had to wait for it."""
    try:
        raw = unpack(image)
    except ImageError as error:
        raise ImageError(f"camera {camera.name}: {error}") from error
    check_image(raw, camera)
    return raw
