# SPDX-License-Identifier: Apache-2.0
"""A stand-in for tf2_ros, which the wheels do not have."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from geometry_msgs.msg import TransformStamped
from rlif_node.stamps import to_msg


class StandInError(Exception):
    """tf2_ros.TransformException."""


@pytest.fixture
def tf(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`tf.transform`: what the buffer answers; None: there is no such frame. `tf.asked`: each question."""
    found = SimpleNamespace(transform=None, asked=[])

    def lookup_transform(target, source, when):
        found.asked.append((target, source, when.nanoseconds))
        if found.transform is None:
            raise StandInError(f'"{source}" passed to lookupTransform does not exist')
        return found.transform

    stand_in = SimpleNamespace(
        Buffer=lambda: SimpleNamespace(lookup_transform=lookup_transform),
        TransformListener=lambda buffer, node: None,
        TransformException=StandInError,
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    return found


def transform(stamp: int, z: float = 0.0) -> TransformStamped:
    """Of tool0 in base, at (0.5, 0, z) m and turned about x by 180 degrees. stamp: ns"""
    message = TransformStamped(child_frame_id="tool0")
    message.header.frame_id, message.header.stamp = "base", to_msg(stamp)
    message.transform.translation.x, message.transform.translation.z = 0.5, z
    message.transform.rotation.x, message.transform.rotation.w = 1.0, 0.0
    return message
