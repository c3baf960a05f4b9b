"""Messages of a foreign bag, read as the observer reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlif_bags.external.mapping import TopicMapping
from rlif_policy.features import FeatureError, JointOrder, Pose, PoseTrack, Wrench, unit_quaternion
from rlif_policy.images import CameraSpec, PackedImage, Picture, RawImage, to_rgb


class Readings:
    """Messages of the sources as the observer reads them. FeatureError, ImageError."""

    def __init__(self, mapping: TopicMapping) -> None:
        self._frame = mapping.base_frame
        self._track = PoseTrack(round(1e9 / mapping.control_rate))
        self._joints = JointOrder(mapping.joints)
        self._size = (mapping.image_width, mapping.image_height)
        self._rois, self._depth_ranges = mapping.rois, mapping.depth_ranges
        self._cameras: dict[str, CameraSpec] = {}

    def read(self, source: str, message: Any, stamp: int) -> Any:
        if source in ("ee_pose", "object_pose"):
            return self._pose(source, message, stamp)
        if source == "wrench":
            return Wrench(_position(message.wrench.force), _position(message.wrench.torque))
        if source == "joint_states":
            return self._joints.pick(message.name, message.position, message.velocity)
        picture = _picture(message)
        if source not in self._cameras:  # the first image tells the size; another one is an error
            self._cameras[source] = CameraSpec(
                source, picture.width, picture.height, *self._size,
                tuple(self._rois.get(source, ())), tuple(self._depth_ranges.get(source, ())),
            )  # fmt: skip
        return to_rgb(picture, self._cameras[source])

    def _pose(self, source: str, message: Any, stamp: int) -> Pose:
        frame = message.header.frame_id
        if frame != self._frame:
            raise FeatureError(f"frame_id is {frame!r}, expected {self._frame!r} (base_frame)")
        p, q = message.pose.position, message.pose.orientation
        track = source == "ee_pose"
        velocity = self._track.velocity(stamp, _position(p)) if track else (0.0, 0.0, 0.0)
        return Pose(_position(p), unit_quaternion(q.x, q.y, q.z, q.w), velocity)


def _position(point: Any) -> tuple[float, float, float]:
    return (point.x, point.y, point.z)


def _picture(message: Any) -> Picture:
    """Of an Image or a CompressedImage."""
    data = np.asarray(message.data, np.uint8)
    if not hasattr(message, "encoding"):
        return PackedImage.of(message.format, data)
    return RawImage(
        message.width, message.height, message.encoding, message.step, data,
        bool(message.is_bigendian),
    )  # fmt: skip


def header_stamp(message: Any) -> int:
    """ns; 0: the message has none."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    return 0 if stamp is None else int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
