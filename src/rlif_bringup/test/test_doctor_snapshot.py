# SPDX-License-Identifier: Apache-2.0
"""What is computed of what the doctor has received."""

from __future__ import annotations

import pytest

from rlif_bringup.doctor_snapshot import Traffic, image_problem


def test_rate_of_traffic_needs_two_messages():
    assert Traffic("/a", 11, 2.0).rate == 5.0
    assert Traffic("/a", 1, 0.0).rate == 0.0


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ((2, 1, "rgb8", [1, 2, 3, 4, 5, 6]), ""),
        ((2, 1, "bgr8", [1, 2, 3, 4, 5, 6]), "rgb8"),
        ((2, 1, "rgb8", [1, 2, 3]), "3 bytes, expected 6"),
        ((2, 1, "rgb8", [0] * 6), "lens cap"),
    ],
)
def test_image_problem_of_a_useless_image_names_it(image, word):
    assert (word in image_problem(*image)) if word else not image_problem(*image)
