# SPDX-License-Identifier: Apache-2.0
"""Each encoding against a known picture, with padding, both orders of bytes, and odd sizes."""

import importlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rlif_policy import image_encodings
from rlif_policy.image_encodings import (
    DEPTHS,
    ENCODINGS,
    LAYOUTS,
    LIBRARY,
    ImageError,
    RawImage,
    depth_to_grey,
)
from rlif_policy.images import CameraSpec, to_rgb

ORDERS = {
    "rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "bgra8": "bgra", "mono8": "r", "8UC1": "r",
    "8UC3": "bgr", "8UC4": "bgra", "rgb16": "rgb", "bgr16": "bgr", "rgba16": "rgba",
    "bgra16": "bgra", "mono16": "r",
}  # fmt: skip
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def image_of(entries, encoding, padding=0, big_endian=False):
    """entries [rows, anything], in the type that the encoding has; padding: bytes per row."""
    order = ">" if big_endian else "<"
    data = np.ascontiguousarray(entries, entries.dtype.newbyteorder(order)).view(np.uint8)
    rows = np.pad(data.reshape(len(data), -1), ((0, 0), (0, padding)), constant_values=173)
    height = len(rows) * 2 // 3 if encoding.startswith("nv") else len(rows)
    return height, rows.shape[1], rows.reshape(-1), big_endian


def decoded(entries, encoding, width, padding=0, big_endian=False, depth=()):
    height, step, data, big = image_of(entries, encoding, padding, big_endian)
    camera = CameraSpec("wrist", width, height, width, height, (), depth)
    return to_rgb(RawImage(width, height, encoding, step, data, big), camera)


def test_encodings_are_all_tested_here():
    assert set(LAYOUTS) == set(ORDERS)
    assert set(ENCODINGS) == {*ORDERS, *DEPTHS, *MOSAICS, *PACKED_YUV, *PLANAR_YUV}


@given(SIZES, st.sampled_from(sorted(ORDERS)), st.integers(0, 5), st.booleans(), st.data())
def test_layouts_of_any_size_padding_and_byte_order_give_the_image(
    size, encoding, padding, big_endian, data
):
    height, width = size
    rgb = data.draw(arrays.arrays(np.uint8, (height, width, 3)))
    channels = {"r": 0, "g": 1, "b": 2}
    alpha = np.full((height, width), 77, np.uint8)
    entries = np.stack(
        [alpha if c == "a" else rgb[:, :, channels[c]] for c in ORDERS[encoding]], axis=2
    )
    if encoding.endswith("16"):  # what is below the high byte must not matter
        low = data.draw(st.integers(0, 255))
        entries = entries.astype(np.uint16) * 256 + low
    out = decoded(entries, encoding, width, padding, big_endian)
    expected = rgb[:, :, :1].repeat(3, axis=2) if ORDERS[encoding] == "r" else rgb
    assert out.dtype == np.uint8 and out.shape == (height, width, 3)
    assert (out == expected).all()


def test_layouts_with_the_wrong_byte_order_give_another_image():
    """That is_bigendian is heeded: the low byte, taken for the high one, is another picture."""
    entries = np.arange(12, dtype=np.uint16).reshape(3, 4) * 0x1101
    big, little = (decoded(entries, "mono16", 4, big_endian=b) for b in (True, False))
    assert (big == little).all()
    height, step, data, _ = image_of(entries, "mono16")
    wrong = to_rgb(RawImage(4, height, "mono16", step, data, True), CameraSpec("wrist", 4, 3, 4, 3))
    assert (wrong != little).any()


# ---- depth


def test_depth_to_grey_of_known_distances_follows_the_rule():
    metres = np.array([0.5, 2.5, 1.5, 0.1, 9.0, np.inf, -np.inf, 0.0, -1.0, np.nan])
    assert depth_to_grey(metres, 0.5, 2.5).tolist() == [1, 255, 128, 1, 255, 255, 1, 0, 0, 0]


@given(SIZES, st.integers(0, 5), st.booleans(), st.data())
def test_depth_in_millimetres_and_in_metres_gives_the_same(size, padding, big_endian, data):
    height, width = size
    millimetres = data.draw(arrays.arrays(np.uint16, (height, width)))
    depth, metres = (0.3, 3.0), (millimetres / 1000).astype(np.float32)
    whole = decoded(millimetres, "16UC1", width, padding, big_endian, depth)
    real = decoded(metres, "32FC1", width, padding, big_endian, depth)
    assert (whole == real).all()
    known = millimetres > 0
    expected = 1 + 254 * (np.clip(millimetres / 1000, 0.3, 3.0) - 0.3) / 2.7
    assert np.abs(whole[:, :, 0] - expected)[known].max(initial=0.0) <= 0.51
    assert (whole[~known] == 0).all()


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_depth_to_grey_of_any_float_is_right(metres):
    grey = depth_to_grey(metres, 0.2, 2.0)
    assert ((grey == 0) == (np.isnan(metres) | ((metres <= 0) & ~np.isneginf(metres)))).all()


# ---- Bayer and YUV


MOSAICS = {f"bayer_{o}{bits}": o for o in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}


def mosaic_of(rgb, order):
    """What a sensor behind such a filter sees."""
    cells = np.array(["rgb".index(c) for c in order]).reshape(2, 2)
    height, width, _ = rgb.shape
    rows, columns = np.indices((height, width))
    return np.take_along_axis(rgb, cells[rows % 2, columns % 2][:, :, None], axis=2)[:, :, 0]


@given(
    st.sampled_from(sorted(MOSAICS)), st.integers(3, 9), st.integers(3, 9), st.integers(0, 5),
    st.booleans(), st.tuples(*[st.integers(0, 255)] * 3),
)  # fmt: skip
def test_mosaic_of_one_colour_gives_that_colour(
    encoding, height, width, padding, big_endian, colour
):
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = colour
    entries = mosaic_of(rgb, MOSAICS[encoding])
    if encoding.endswith("16"):
        entries = entries.astype(np.uint16) * 256 + 19
    out = decoded(entries, encoding, width, padding, big_endian)
    assert np.abs(out.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("encoding", sorted(MOSAICS))
def test_mosaic_of_several_colours_keeps_their_places(encoding):
    rgb = np.zeros((16, 20, 3), np.uint8)
    rgb[:8, :10], rgb[:8, 10:], rgb[8:, :10] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    entries = mosaic_of(rgb, MOSAICS[encoding])
    if encoding.endswith("16"):
        entries = entries.astype(np.uint16) * 256
    out = decoded(entries, encoding, 20, padding=4).astype(int)
    inside = np.ones((16, 20), bool)  # a pixel or two beside an edge is mixed
    inside[6:10], inside[:, 8:12] = False, False
    assert np.abs(out - rgb)[inside].max() <= 1


def yuv_of(rgb):
    """BT.601 with 16 to 235, per pixel: y, u, v as float."""
    r, g, b = np.moveaxis(rgb.astype(float) / 255, -1, 0)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return y, u, v


def packed_yuv(rgb, order):
    y, u, v = (np.rint(p).astype(np.uint8) for p in yuv_of(rgb))
    parts = {"0": y[:, ::2], "1": y[:, 1::2], "u": u[:, ::2], "v": v[:, ::2]}
    return np.stack([parts[c] for c in order], axis=2)


def planar_yuv(rgb, order):
    y, u, v = (np.rint(p).astype(np.uint8) for p in yuv_of(rgb))
    parts = {"u": u[::2, ::2], "v": v[::2, ::2]}
    colours = np.stack([parts[c] for c in order], axis=2)
    return np.concatenate([y, colours.reshape(len(colours), -1)])


PACKED_YUV = {"uyvy": "u0v1", "yuv422": "u0v1", "yuyv": "0u1v", "yuv422_yuy2": "0u1v"}
PLANAR_YUV = {"nv12": "uv", "nv21": "vu"}


def blocks(height, width, data):
    """Colours that a picture with a quarter of the colour keeps: one for each two by two pixels."""
    few = data.draw(arrays.arrays(np.uint8, (height // 2, width // 2, 3)))
    return few.repeat(2, axis=0).repeat(2, axis=1)


@given(
    st.sampled_from(sorted({**PACKED_YUV, **PLANAR_YUV})), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 5), st.data(),
)  # fmt: skip
def test_yuv_of_any_size_gives_the_image(encoding, half_height, half_width, padding, data):
    rgb = blocks(2 * half_height, 2 * half_width, data)
    if encoding in PACKED_YUV:
        entries = packed_yuv(rgb, PACKED_YUV[encoding])
    else:
        entries = planar_yuv(rgb, PLANAR_YUV[encoding])
    out = decoded(entries, encoding, 2 * half_width, padding)
    assert np.abs(out.astype(int) - rgb).max() <= 3


# ---- which library


@pytest.fixture
def fresh():
    image_encodings.converter.cache_clear()
    yield
    image_encodings.converter.cache_clear()


def module_of(convert):
    return SimpleNamespace(CvBridge=lambda: SimpleNamespace(imgmsg_to_cv2=convert))


def import_with(monkeypatch, **modules: ModuleType | Exception):
    real = importlib.import_module

    def fake(name):
        found = modules.get(name.replace(".", "_"))
        if isinstance(found, Exception):
            raise found
        return found or real(name)

    monkeypatch.setattr(image_encodings.importlib, "import_module", fake)


def test_converter_with_cv_bridge_gives_it_native_unpadded_rows(monkeypatch, fresh):
    seen = []

    def convert(message, encoding):
        seen.append((message.encoding, message.step, bytes(message.data), encoding))
        return np.zeros((message.height, message.width, 3), np.uint16)

    import_with(monkeypatch, cv_bridge=module_of(convert))
    entries = np.arange(12, dtype=np.uint16).reshape(3, 4)
    out = decoded(entries, "bayer_rggb16", 4, padding=3, big_endian=True)
    assert out.shape == (3, 4, 3)
    native = entries.astype("=u2").tobytes()
    assert seen[-1] == ("bayer_rggb16", 8, native, "rgb16")


@pytest.mark.parametrize(
    "bridge", [ImportError("numpy.core failed"), module_of(lambda *_: 1 / 0)], ids=["no", "bad"]
)
def test_converter_where_cv_bridge_fails_uses_the_other_library(monkeypatch, fresh, bridge):
    import_with(monkeypatch, cv_bridge=bridge)
    out = decoded(np.full((6, 8), 90, np.uint8), "bayer_rggb8", 8)
    assert (out == 90).all()


def test_converter_without_a_library_names_what_to_install(monkeypatch, fresh):
    import_with(monkeypatch, cv_bridge=ImportError("no"), rosbags_image=ImportError("no cv2"))
    with pytest.raises(ImageError, match="camera wrist: no library .*install cv_bridge"):
        decoded(np.full((4, 8), 90, np.uint8), "yuyv", 4)
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 12)
    assert (decoded(rgb, "rgb8", 4).reshape(2, 12) == rgb).all(), "needs none"


def test_converter_that_fails_raises_an_image_error(monkeypatch, fresh):
    def convert(message, encoding):
        if message.width > 4:
            raise RuntimeError("too wide for me")
        return np.zeros((message.height, message.width, 3), np.uint8)

    import_with(monkeypatch, cv_bridge=module_of(convert))
    with pytest.raises(ImageError, match="camera wrist: .*too wide for me"):
        decoded(np.full((4, 8), 90, np.uint8), "bayer_rggb8", 8)


def test_library_table_has_known_names_only():
    for name, entry in LIBRARY.items():
        assert entry.name in LIBRARY, name
