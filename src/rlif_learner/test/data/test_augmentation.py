# SPDX-License-Identifier: Apache-2.0
"""The random shift against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_learner.data.augmentation import random_shift, shift_cameras, shift_pixels, shift_rows


def shifted_by_a_loop(image, move):
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row = min(max(y + move[0], 0), height - 1)
            column = min(max(x + move[1], 0), width - 1)
            out[y, x] = image[row, column]
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3])),
    st.integers(0, 2**31 - 1),
)
def test_random_shift_equals_a_loop_over_pixels(shape, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    moves = rng.integers(-9, 10, (shape[0], 2))  # beyond the image, too
    kept = images.copy()
    expected = [shifted_by_a_loop(*pair) for pair in zip(images, moves, strict=True)]
    for shift in (random_shift, shift_pixels, shift_rows):  # shift_pixels is what a GPU runs
        found = shift(torch.from_numpy(images), torch.from_numpy(moves))
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found.numpy(), np.stack(expected))
        np.testing.assert_array_equal(images, kept)


def test_no_shift_is_the_image_and_edges_are_repeated():
    image = torch.arange(12, dtype=torch.uint8).view(1, 3, 4, 1)
    assert torch.equal(random_shift(image, torch.zeros(1, 2, dtype=torch.int64)), image)
    moved = random_shift(image, torch.tensor([[1, -2]]))
    assert moved[0, :, :, 0].tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]
    # Of images that lie otherwise in memory, as those of a camera in a batch.
    strided = image.permute(0, 2, 1, 3)
    assert torch.equal(random_shift(strided, torch.tensor([[-2, 1]])), moved.permute(0, 2, 1, 3))


def test_each_camera_has_its_own_shifts():
    small, large = torch.arange(6, dtype=torch.uint8), torch.arange(20, dtype=torch.uint8)
    images = (small.view(1, 2, 3, 1), large.view(1, 5, 4, 1))
    shifts = torch.tensor([[[1, 0]], [[0, -1]]])
    found = shift_cameras(images, shifts)
    for image, moved, shift in zip(images, found, shifts, strict=True):
        assert torch.equal(moved, random_shift(image, shift)) and not torch.equal(moved, image)
    with pytest.raises(ValueError, match="zip"):
        shift_cameras(images, shifts[:1])
