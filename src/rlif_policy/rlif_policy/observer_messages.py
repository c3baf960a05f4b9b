# SPDX-License-Identifier: Apache-2.0
"""What the observer takes out of messages and puts into them: images, wrenches, diagnostics."""

from __future__ import annotations

import array
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import WrenchStamped
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rlif_policy.camera_checks import CameraWatch
from rlif_policy.features import Wrench, finite
from rlif_policy.images import CameraSpec, ImageError, PackedImage, Picture, RawImage, check_image
from rlif_policy.sampling import Problem


def read_wrench(message: WrenchStamped) -> Wrench:
    """FeatureError for one that is not finite."""
    force, torque = message.wrench.force, message.wrench.torque
    return Wrench(
        finite("force", force.x, force.y, force.z), finite("torque", torque.x, torque.y, torque.z)
    )


def read_raw(camera: CameraSpec) -> Callable[[Image], Picture]:
    """Checks at once, converts at the tick only: a camera may send more than is used."""

    def read(message: Image) -> Picture:
        data = np.frombuffer(message.data, dtype=np.uint8)
        raw = RawImage(
            message.width, message.height, message.encoding, message.step, data,
            bool(message.is_bigendian),
        )  # fmt: skip
        check_image(raw, camera)
        return raw

    return read


def read_packed(camera: CameraSpec) -> Callable[[CompressedImage], Picture]:
    """The same; of a file, its head is checked at once."""

    def read(message: CompressedImage) -> Picture:
        data = np.frombuffer(message.data, dtype=np.uint8)
        try:
            packed = PackedImage.of(message.format, data)
        except ImageError as error:
            raise ImageError(f"camera {camera.name}: {error}") from error
        check_image(packed, camera)
        return packed

    return read


def image_message(pixels: np.ndarray, header: Header) -> Image:
    height, width, _ = pixels.shape
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array.array("B", pixels.tobytes())
    return message


def camera_values(watch: CameraWatch, now: int) -> list[KeyValue]:
    """For the diagnostics. now: steady time in ns."""
    values = {
        "rate_hz": f"{watch.rate(now):.1f}",
        "received": str(watch.received),
        "refused": str(watch.refused),
        "missed": str(watch.missed),
    }
    return [KeyValue(key=key, value=value) for key, value in values.items()]


def diagnostic(node: str, topic: str, problem: Problem | None, age: int | None) -> DiagnosticStatus:
    """Of the observer `node`. ERROR where nothing usable ever came, WARN where it is too old."""
    status = DiagnosticStatus(name=f"{node}: {topic}", hardware_id=topic, message="ok")
    status.level = DiagnosticStatus.OK
    if problem is not None:
        status.level = DiagnosticStatus.ERROR if problem.age is None else DiagnosticStatus.WARN
        status.message = problem.reason
    age_text = "none" if age is None else f"{age / 1e9:.3f}"
    status.values = [KeyValue(key="topic", value=topic), KeyValue(key="age_s", value=age_text)]
    return status
