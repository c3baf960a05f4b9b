# SPDX-License-Identifier: Apache-2.0
"""Images: sizes, regions, refusals, files. The encodings are in test_image_encodings.py."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from rlif_policy.images import (
    CameraSpec,
    ImageError,
    PackedImage,
    RawImage,
    check_image,
    to_rgb,
)

CAMERA = CameraSpec("wrist", 4, 2, 4, 2)
RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
LARGE = CameraSpec("wrist", 16, 12, 16, 12)


def raw(pixels, encoding="rgb8", padding=0):
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=201)
    return RawImage(width, height, encoding, rows.shape[1], rows.reshape(-1))


def packed(pixels, kind="png", form=None, **options):
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, kind, **options)
    return PackedImage.of(form or kind, np.frombuffer(stream.getvalue(), np.uint8))


def test_to_rgb_of_another_size_names_both():
    with pytest.raises(ImageError, match="camera wrist sends 4x2, expected 640x480"):
        to_rgb(raw(RGB), CameraSpec("wrist", 640, 480, 128, 128))
    with pytest.raises(ImageError, match="camera wrist sends 16x12, expected 4x2"):
        check_image(packed(NOISE), CAMERA)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RawImage(4, 2, "jpeg", 12, np.zeros(24, np.uint8)), "encoding is 'jpeg', expected one of"),
        (RawImage(4, 2, "rgb8", 12, np.zeros(23, np.uint8)), "23 bytes, expected 24"),
        (RawImage(4, 2, "rgb8", 12, np.zeros(25, np.uint8)), "25 bytes, expected 24"),
        (RawImage(4, 2, "rgb8", 8, np.zeros(16, np.uint8)), "rows of 8 bytes.*at least 12"),
        (RawImage(4, 2, "rgb16", 12, np.zeros(24, np.uint8)), "rows of 12 bytes.*at least 24"),
        (RawImage(4, 2, "nv12", 4, np.zeros(8, np.uint8)), "8 bytes, expected 12: 3 rows of 4"),
        (RawImage(4, 2, "bayer_rggb8", 4, np.zeros(8, np.uint8)), "at least 3 pixels a side"),
        (RawImage(4, 2, "nv24", 8, np.zeros(16, np.uint8)), "encoding is 'nv24'"),
        (RawImage(4, 2, "16UC1", 8, np.zeros(16, np.uint8)), "set camera.wrist.depth_range"),
    ],
)
def test_check_image_of_bytes_that_do_not_fit_names_the_camera(image, words):
    with pytest.raises(ImageError, match=f"camera wrist.*{words}"):
        check_image(image, CAMERA)
    with pytest.raises(ImageError, match=words):
        to_rgb(image, CAMERA)


@pytest.mark.parametrize(("encoding", "size"), [("yuv422", (5, 4)), ("nv21", (4, 3))])
def test_check_image_of_yuv_with_odd_sides_raises(encoding, size):
    width, height = size
    image = RawImage(width, height, encoding, 2 * width, np.zeros(2 * width * height, np.uint8))
    with pytest.raises(ImageError, match=f"{width}x{height} of {encoding}, expected a width"):
        check_image(image, CameraSpec("wrist", width, height, 8, 8))


def test_to_rgb_to_a_smaller_size_takes_the_mean_over_each_pixels_area():
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, ::2] = 200  # finer than the output: must come out as its mean
    small = to_rgb(raw(pixels), CameraSpec("wrist", 640, 480, 128, 96))
    assert small.shape == (96, 128, 3) and small.dtype == np.uint8
    assert abs(int(small.mean()) - 100) <= 25


def test_to_rgb_by_a_whole_factor_is_the_exact_mean():
    small = to_rgb(raw(NOISE), CameraSpec("wrist", 16, 12, 4, 3))
    mean = NOISE.reshape(3, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(small - mean).max() <= 1.0  # the horizontal pass rounds too


@given(st.data())
def test_to_rgb_of_a_region_is_what_a_cut_image_gives(data):
    x, y = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 11))
    width, height = data.draw(st.integers(1, 16 - x)), data.draw(st.integers(1, 12 - y))
    size = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    encoding = data.draw(st.sampled_from(["rgb8", "bgr8", "mono8", "bayer_grbg8", "16UC1"]))
    padding = data.draw(st.integers(0, 7))
    depth = (0.0, 20.0) if encoding == "16UC1" else ()
    kinds = {"mono8": 1, "bayer_grbg8": 1, "16UC1": 2}
    image = raw(NOISE[:, :, : kinds.get(encoding, 3)], encoding, padding)
    cut = CameraSpec("wrist", 16, 12, *size, (x, y, width, height), depth)
    whole = to_rgb(image, CameraSpec("wrist", 16, 12, 16, 12, depth_range=depth))
    expected = to_rgb(
        raw(np.ascontiguousarray(whole[y : y + height, x : x + width])),
        CameraSpec("wrist", width, height, *size),
    )
    assert (to_rgb(image, cut) == expected).all()


@pytest.mark.parametrize(
    "roi", [(0, 0, 17, 12), (1, 0, 16, 12), (0, 0, 16, 0), (-1, 0, 4, 4), (0, 0, 16), (0, 9, 4, 4)]
)
def test_camera_spec_with_a_region_beyond_the_image_raises(roi):
    with pytest.raises(ValueError, match="camera wrist: roi is .* within 16x12"):
        CameraSpec("wrist", 16, 12, 8, 8, roi)


@pytest.mark.parametrize("depth", [(1.0,), (2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, np.inf)])
def test_camera_spec_with_a_wrong_depth_range_raises(depth):
    with pytest.raises(ValueError, match="camera wrist: depth_range is"):
        CameraSpec("wrist", 16, 12, 8, 8, (), depth)


# ---- files of CompressedImage


@pytest.mark.parametrize("form", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"])
def test_to_rgb_of_a_png_gives_its_pixels(form):
    assert (to_rgb(packed(NOISE, form=form), LARGE) == NOISE).all()


def test_to_rgb_of_a_file_written_as_rgb_exchanges_red_and_blue():
    image = packed(NOISE[:, :, ::-1], form="rgb8; png compressed rgb8")
    assert (to_rgb(image, LARGE) == NOISE).all()


def test_to_rgb_of_a_jpeg_is_close_to_what_was_packed():
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[:, :8], flat[:, 8:] = (220, 40, 30), (20, 60, 210)
    image = packed(flat, "jpeg", "rgb8; jpeg compressed bgr8", quality=95, subsampling=0)
    out = to_rgb(image, CameraSpec("wrist", 16, 16, 16, 16)).astype(int)
    assert np.abs(out - flat).max() < 12


def test_to_rgb_of_grey_alpha_and_palette_files_gives_rgb():
    grey = NOISE[:, :, 0]
    assert (to_rgb(packed(grey), LARGE) == grey[:, :, None]).all()
    alpha = np.concatenate([NOISE, np.full((12, 16, 1), 9, np.uint8)], 2)
    assert (to_rgb(packed(alpha), LARGE) == NOISE).all()
    palette = PillowImage.fromarray(NOISE).quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    image = PackedImage.of("png", np.frombuffer(stream.getvalue(), np.uint8))
    assert (to_rgb(image, LARGE) == np.asarray(palette.convert("RGB"))).all()


def test_to_rgb_of_a_packed_depth_image_is_that_of_the_raw_one():
    depth = (np.arange(192, dtype=np.uint16) * 20).reshape(12, 16)
    camera = CameraSpec("wrist", 16, 12, 16, 12, (), (0.5, 2.0))
    image = packed(depth, form="16UC1; png compressed ")
    sent = RawImage(16, 12, "16UC1", 32, depth.view(np.uint8).reshape(-1))
    assert (to_rgb(image, camera) == to_rgb(sent, camera)).all()
    with pytest.raises(ImageError, match=r"set camera\.wrist\.depth_range"):
        to_rgb(image, LARGE)


GREY = np.ascontiguousarray(NOISE[:, :, 0])
WITH_DEPTH = CameraSpec("wrist", 16, 12, 16, 12, (), (0.5, 2.0))


@pytest.mark.parametrize("pixels", [GREY, NOISE], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", " 16uc1 "])
def test_packed_depth_image_of_8_bits_is_refused_with_the_reason(pixels, kind, encoding):
    """Regression: a JPEG of a 16UC1 stream was taken for a grey image, its distances lost."""
    for rest in ("; jpeg compressed ", ";jpeg compressed mono8", "; png compressed"):
        with pytest.raises(ImageError, match="a depth image, in a .* distances are lost"):
            packed(pixels, kind, encoding + rest)


@pytest.mark.parametrize("form", ["jpeg", "mono8; jpeg compressed ", "mono16; jpeg compressed "])
def test_to_rgb_of_a_jpeg_where_a_depth_range_is_set_is_refused(form):
    with pytest.raises(ImageError, match=r"camera wrist sends mono8, .*wrist\.depth_range is set"):
        to_rgb(packed(GREY, "jpeg", form), WITH_DEPTH)


@pytest.mark.parametrize(("pixels", "encoding"), [(NOISE, "rgb8"), (GREY, "mono8")])
def test_check_image_without_depth_where_a_depth_range_is_set_is_refused(pixels, encoding):
    with pytest.raises(ImageError, match=f"camera wrist sends {encoding}, expected a depth image"):
        check_image(raw(pixels, encoding), WITH_DEPTH)


def test_to_rgb_of_a_packed_mosaic_is_that_of_the_raw_one():
    mosaic = np.ascontiguousarray(NOISE[:, :, 0])
    image = packed(mosaic, form="bayer_rggb8; png compressed ")
    assert (to_rgb(image, LARGE) == to_rgb(raw(mosaic, "bayer_rggb8"), LARGE)).all()


def test_to_rgb_of_broken_files_raises_image_errors():
    whole = packed(NOISE, "jpeg").data
    with pytest.raises(ImageError, match="camera wrist: .* broken"):
        to_rgb(PackedImage.of("jpeg", whole[:-90]), LARGE)
    png = packed(NOISE).data.copy()
    png[60:70] ^= 255
    with pytest.raises(ImageError, match="camera wrist: .* broken"):
        to_rgb(PackedImage.of("png", png), LARGE)
    for data in (b"", b"GIF89a" + bytes(40), bytes(100)):
        with pytest.raises(ImageError, match="no JPEG or PNG file"):
            PackedImage.of("jpeg", np.frombuffer(data, np.uint8))
    with pytest.raises(ImageError, match="compressedDepth.*transport raw"):
        PackedImage.of("16UC1; compressedDepth png", packed(NOISE).data)


@given(st.binary(max_size=200), st.sampled_from(["jpeg", "png"]), st.integers(0, 400))
def test_to_rgb_of_any_bytes_raises_nothing_but_an_image_error(junk, kind, at):
    file = bytearray(packed(NOISE, kind).data.tobytes())
    file[at : at + len(junk)] = junk
    try:
        out = to_rgb(PackedImage.of(kind, np.frombuffer(bytes(file), np.uint8)), LARGE)
    except ImageError:
        return
    assert out.shape == (12, 16, 3)
