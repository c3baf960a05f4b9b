"""Images: encodings, padding, sizes."""

import numpy as np
import pytest

from rlif_policy.images import ENCODINGS, CameraSpec, ImageError, RawImage, to_rgb

CAMERA = CameraSpec("wrist", 4, 2, 4, 2)
RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def raw(pixels, encoding, padding=0):
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return RawImage(width, height, encoding, rows.shape[1], rows.reshape(-1))


@pytest.mark.parametrize("padding", [0, 5])
def test_every_colour_encoding_gives_the_same_rgb(padding):
    alpha = np.full((2, 4, 1), 77, np.uint8)
    sent = {
        "rgb8": RGB,
        "bgr8": RGB[:, :, ::-1],
        "rgba8": np.concatenate([RGB, alpha], 2),
        "bgra8": np.concatenate([RGB[:, :, ::-1], alpha], 2),
        "8UC3": RGB[:, :, ::-1],
    }
    for encoding, pixels in sent.items():
        assert (to_rgb(raw(pixels, encoding, padding), CAMERA) == RGB).all(), encoding
    grey = to_rgb(raw(RGB[:, :, :1], "mono8", padding), CAMERA)
    assert (grey == RGB[:, :, :1]).all()
    assert set(ENCODINGS) == {*sent, "mono8", "8UC1"}


def test_a_camera_of_another_size_is_an_error_that_names_both():
    with pytest.raises(ImageError, match="camera wrist sends 4x2, expected 640x480"):
        to_rgb(raw(RGB, "rgb8"), CameraSpec("wrist", 640, 480, 128, 128))


def test_an_unknown_encoding_and_missing_bytes_are_errors():
    with pytest.raises(ImageError, match="encoding 'bayer_rggb8', expected one of rgb8"):
        to_rgb(raw(RGB, "bayer_rggb8"), CAMERA)
    with pytest.raises(ImageError, match="23 bytes"):
        to_rgb(RawImage(4, 2, "rgb8", 12, np.zeros(23, np.uint8)), CAMERA)
    with pytest.raises(ImageError, match="rows of 8"):
        to_rgb(RawImage(4, 2, "rgb8", 8, np.zeros(16, np.uint8)), CAMERA)


def test_images_are_resized_by_the_mean_over_each_pixels_area():
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, ::2] = 200  # finer than the output: must come out as its mean
    small = to_rgb(raw(pixels, "rgb8"), CameraSpec("wrist", 640, 480, 128, 96))
    assert small.shape == (96, 128, 3) and small.dtype == np.uint8
    assert abs(int(small.mean()) - 100) <= 25
