# SPDX-License-Identifier: Apache-2.0
"""Frozen, black and out of step; rates and counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_policy.camera_checks import CameraFeed, CameraLimits, CameraWatch, alike, out_of_step
from rlif_policy.images import CameraSpec, ImageError, RawImage

MS = 1_000_000
PERIOD = 33 * MS
RNG = np.random.default_rng(0)


def noise():
    return RNG.integers(0, 256, 3 * 8 * 6, dtype=np.uint8)


def watch(**limits):
    return CameraWatch(CameraLimits(**limits))


def feed(watched, count, first=1, picture=noise, stamp=lambda k: k * PERIOD):
    for k in range(first, first + count):
        watched.arrived(stamp(k), k * PERIOD, picture())


def test_camera_watch_of_noise_has_no_fault():
    watched = watch()
    feed(watched, 40)
    assert not watched.fault
    assert (watched.received, watched.refused, watched.missed) == (40, 0, 0)
    assert watched.rate(40 * PERIOD) == pytest.approx(1000 / 33)


def test_camera_watch_of_equal_images_is_frozen_until_another_comes():
    watched, still = watch(frozen_frames=5), noise()
    feed(watched, 4, picture=still.copy)
    assert not watched.fault, "four in a row are not yet a fault"
    feed(watched, 1, first=5, picture=still.copy)
    assert watched.fault.startswith("frozen: its last 5 images are the same, bit for bit")
    feed(watched, 3, first=6, picture=still.copy)
    assert "last 8 images" in watched.fault
    feed(watched, 1, first=9)
    assert not watched.fault


def test_camera_watch_of_equal_stamps_is_frozen():
    watched = watch(frozen_frames=3)
    feed(watched, 5, stamp=lambda _: 7 * PERIOD)
    assert watched.fault == "frozen: its last 5 images have the same stamp"
    feed(watched, 1, first=8)
    assert not watched.fault


def test_camera_watch_without_stamps_compares_the_images():
    watched, still = watch(frozen_frames=3), noise()
    feed(watched, 20, stamp=lambda _: 0)
    assert not watched.fault and watched.missed == 0
    feed(watched, 3, first=21, stamp=lambda _: 0, picture=still.copy)
    assert "bit for bit" in watched.fault


def test_camera_watch_with_frozen_unchecked_takes_a_still_scene():
    watched, still = watch(frozen_frames=0), noise()
    feed(watched, 100, picture=still.copy, stamp=lambda _: PERIOD)
    assert not watched.fault


@given(st.integers(0, 20_000), st.integers(1, 255))
def test_alike_of_images_that_differ_in_one_bit_is_false(at, change):
    one = np.zeros(20_001, np.uint8)
    other = one.copy()
    assert alike(one, other) and not alike(one, one[:-1]) and not alike(one, None)
    other[at] ^= change
    assert not alike(one, other)


def test_camera_watch_of_dark_images_is_black_until_a_pixel_reaches_the_level():
    watched = watch(black_frames=3, black_level=8)
    dark = np.full((4, 4, 3), 7, np.uint8)
    spot = dark.copy()
    spot[2, 1, 2] = 8
    for image, fault in [(dark, ""), (dark, ""), (spot, ""), (dark, ""), (dark, ""), (dark, "b")]:
        watched.converted(image)
        assert watched.fault[:1] == fault
    assert "black: no pixel of its last 3 images reaches 8 of 255" in watched.fault
    watched.converted(spot)
    assert not watched.fault


def test_camera_watch_with_black_unchecked_has_no_fault():
    watched = watch(black_frames=0)
    for _ in range(50):
        watched.converted(np.zeros((4, 4, 3), np.uint8))
    assert not watched.fault


@pytest.mark.parametrize("limits", [{"frozen_frames": 1}, {"black_frames": 1}])
def test_camera_limits_of_one_image_in_a_row_raise(limits):
    with pytest.raises(ValueError, match=f"{next(iter(limits))}: found 1, expected 0"):
        CameraLimits(**limits)


def test_camera_watch_estimates_missed_images_from_the_stamps():
    watched = watch()
    lost = {20, 21, 30}
    for k in range(1, 41):
        if k not in lost:
            jitter = (k % 3 - 1) * 4 * MS
            watched.arrived(k * PERIOD + jitter, k * PERIOD, noise())
    assert watched.missed == 3


def test_camera_watch_counts_refused_images_as_received():
    watched = watch()
    feed(watched, 10)
    watched.refuse(11 * PERIOD)
    watched.refuse(12 * PERIOD)
    feed(watched, 10, first=13)
    watched.broken("ends too early")
    assert (watched.received, watched.refused, watched.missed) == (22, 3, 0)


def test_camera_watch_of_a_camera_that_was_off_counts_none_missed():
    watched = watch()
    feed(watched, 10)
    feed(watched, 10, first=10 + 1000)
    assert watched.missed == 0


def test_camera_watch_of_a_camera_that_stopped_has_a_rate_of_zero():
    watched = watch()
    feed(watched, 30)
    assert watched.rate(30 * PERIOD) > 30.0
    assert watched.rate(30 * PERIOD + 3_000 * MS) == 0.0


def test_out_of_step_beyond_the_limit_names_the_camera_behind():
    limit = 200 * MS
    assert out_of_step({"wrist": 1000 * MS, "fixed": 1200 * MS}, limit) is None
    behind, words = out_of_step({"wrist": 1000 * MS, "fixed": 1201 * MS, "top": 1100 * MS}, limit)
    assert behind == "wrist"
    assert "0.201 s older than that of fixed, expected at most 0.200 s" in words


@pytest.mark.parametrize(
    ("stamps", "limit"),
    [({}, 1), ({"a": 5}, 1), ({"a": 0, "b": 10**12}, 1), ({"a": 1, "b": 10**12}, 0)],
)
def test_out_of_step_without_stamps_or_limit_is_none(stamps, limit):
    assert out_of_step(stamps, limit) is None


def picture(value=200, width=8):
    return RawImage(width, 6, "rgb8", 3 * width, np.full(18 * width, value, np.uint8))


def test_camera_feed_of_near_depth_is_not_blind():
    """Regression: all within `near` is grey 1 of 255, and was a lens cap: it held during insertion."""
    spec = CameraSpec("wrist", 8, 6, 8, 6, depth_range=(0.2, 1.5))
    camera = CameraFeed(spec, CameraLimits(black_frames=2))

    def depth(millimetres):
        data = np.full(48, millimetres, "<u2").view(np.uint8)
        return RawImage(8, 6, "16UC1", 16, data)

    for _ in range(4):
        camera.convert(depth(150))
        assert int(camera.pixels.max()) == 1 and not camera.watch.fault
    for _ in range(2):
        camera.convert(depth(0))
    assert camera.watch.fault == "blind: no pixel of its last 2 depth images was measured"
    camera.convert(depth(900))
    assert not camera.watch.fault


def test_camera_feed_converts_and_counts_an_image_once():
    camera = CameraFeed(CameraSpec("wrist", 8, 6, 8, 6), CameraLimits(black_frames=2))
    with pytest.raises(ImageError, match="camera wrist: no image"):
        _ = camera.pixels
    black = picture(0)
    camera.convert(black)
    first = camera.pixels
    camera.convert(black)
    assert camera.pixels is first and not camera.watch.fault
    camera.convert(picture(0))
    assert camera.watch.fault
    camera.convert(picture())
    assert (camera.pixels == 200).all() and not camera.watch.fault


def test_camera_feed_of_an_image_that_cannot_be_converted_has_a_fault():
    camera = CameraFeed(CameraSpec("wrist", 8, 6, 8, 6), CameraLimits())
    camera.convert(picture())
    bad = picture(width=9)
    camera.convert(bad)
    camera.convert(bad)
    assert "camera wrist sends 9x6" in camera.watch.fault and camera.watch.refused == 1
    with pytest.raises(ImageError, match="camera wrist: no image"):
        _ = camera.pixels
    camera.convert(picture())
    assert not camera.watch.fault and (camera.pixels == 200).all()
