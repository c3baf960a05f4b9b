"""Sensor messages of external recordings, read as the observer reads them."""

from __future__ import annotations

import numpy as np
import pytest
from external_sessions import SECOND, TYPES, feed, header, mapping, session


def test_readings_depth_image_uses_byte_order_region_and_range() -> None:
    """Byte order, region and depth range count; one without its range is refused, by name."""
    depths = np.array([[0, 500], [1000, 2000]], ">u2")  # mm, of which the right column is used
    messages = session(5)
    for centi in range(0, 250, 5):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 3_000_000
        kind = "sensor_msgs/msg/Image"
        image = TYPES[kind](
            header=header(stamp), height=2, width=2, encoding="16UC1", is_bigendian=1,
            step=4, data=np.frombuffer(depths.tobytes(), np.uint8),
        )  # fmt: skip
        messages.append(("/depth", stamp, kind, image))
    messages = sorted(messages, key=lambda m: m[1])
    settings = {"cameras": {"d": "/depth"}, "image_width": 1, "image_height": 2}
    steps, _ = feed(messages, **settings, rois={"d": [1, 0, 1, 2]}, depth_ranges={"d": [0.5, 2.0]})
    assert steps and all(s.images[0][:, 0, 0].tolist() == [1, 255] for s in steps)
    steps, report = feed(messages, **settings)
    assert not steps and any("depth_range" in note for note in report.notes)
    with pytest.raises(ValueError, match="rois: found \\['e'\\]"):
        mapping(**settings, rois={"e": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match="expected 2 numbers"):
        mapping(**settings, depth_ranges={"d": [1.0]})
