# SPDX-License-Identifier: Apache-2.0
"""Sensor messages of an external recording, read as the observer reads them.

A message is known by its fields, so that any definition of it does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rlif_node.joints import JointMerger

from rlif_bags.external.mapping import TopicMapping
from rlif_policy.features import FeatureError, Pose, PoseTrack, Wrench, unit_quaternion
from rlif_policy.images import CameraSpec, PackedImage, Picture, RawImage, to_rgb

_POSES = "PoseStamped, PoseWithCovarianceStamped, TransformStamped or Odometry"


def type_name(message: Any) -> str:
    """`package/msg/Name` of a message, or its class where it has none."""
    return str(getattr(message, "__msgtype__", type(message).__name__))


def wrong_type(message: Any, expected: str) -> FeatureError:
    return FeatureError(f"found a {type_name(message)}, expected {expected}")


class Readings:
    """Messages of the sources as the observer reads them. FeatureError, ImageError, JointError.

    joints: the newest sample of each wanted joint
    """

    def __init__(self, mapping: TopicMapping) -> None:
        self._frame = mapping.base_frame
        self._track = PoseTrack(round(1e9 / mapping.control_rate))
        self.joints = JointMerger(mapping.joints)
        self._size = (mapping.image_width, mapping.image_height)
        self._rois, self._depth_ranges = mapping.rois, mapping.depth_ranges
        self._cameras: dict[str, CameraSpec] = {}

    def read(self, source: str, message: Any, stamp: int) -> Any:
        """The reading of any source but joint_states."""
        if source in ("ee_pose", "object_pose"):
            return self._pose(source, message, stamp)
        if source == "wrench":
            wrench = getattr(message, "wrench", message)
            if not hasattr(wrench, "force"):
                raise wrong_type(message, "WrenchStamped")
            return Wrench(_xyz(wrench.force), _xyz(wrench.torque))
        picture = _picture(message)
        if source not in self._cameras:  # the first image sets the size; another one is an error
            self._cameras[source] = CameraSpec(
                source, picture.width, picture.height, *self._size,
                tuple(self._rois.get(source, ())), tuple(self._depth_ranges.get(source, ())),
            )  # fmt: skip
        return to_rgb(picture, self._cameras[source])

    def put_joints(self, message: Any, stamp: int) -> bool:
        """Merge a JointState into `joints`. False: it names none of the wanted joints."""
        if not (hasattr(message, "name") and hasattr(message, "velocity")):
            raise wrong_type(message, "JointState")
        return self.joints.put(message.name, message.position, message.velocity, 0, stamp)

    def _pose(self, source: str, message: Any, stamp: int) -> Pose:
        frame, p, q = _pose_parts(message)
        if self._frame and frame is None:
            raise FeatureError(
                f"found a {type_name(message)}, which names no frame, expected {_POSES} in "
                f"{self._frame!r}, or base_frame: '' to take poses in any frame"
            )
        if self._frame and frame != self._frame:
            raise FeatureError(f"frame_id is {frame!r}, expected {self._frame!r} (base_frame)")
        track = source == "ee_pose"
        velocity = self._track.velocity(stamp, _xyz(p)) if track else (0.0, 0.0, 0.0)
        return Pose(_xyz(p), unit_quaternion(q.x, q.y, q.z, q.w), velocity)


def _pose_parts(message: Any) -> tuple[str | None, Any, Any]:
    """Frame (None: it names none), position and orientation of any message with one pose."""
    header = getattr(message, "header", None)
    frame = None if header is None else str(header.frame_id)
    if hasattr(message, "transform") or hasattr(message, "translation"):
        transform = getattr(message, "transform", message)
        return frame, transform.translation, transform.rotation
    pose = getattr(message, "pose", message)
    pose = getattr(pose, "pose", pose)  # with covariance
    if not (hasattr(pose, "orientation") and hasattr(getattr(pose, "position", None), "x")):
        raise wrong_type(message, _POSES)
    return frame, pose.position, pose.orientation


def _xyz(vector: Any) -> tuple[float, float, float]:
    return (vector.x, vector.y, vector.z)


def _picture(message: Any) -> Picture:
    """Of an Image or a CompressedImage."""
    if not hasattr(message, "data") or not (
        hasattr(message, "encoding") or hasattr(message, "format")
    ):
        raise wrong_type(message, "Image or CompressedImage")
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
