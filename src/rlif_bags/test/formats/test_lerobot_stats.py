# SPDX-License-Identifier: Apache-2.0
"""Statistics of LeRobot datasets."""

from __future__ import annotations

import numpy as np

from rlif_bags.formats.lerobot_stats import Stats, add_stats, vector_stats


def test_add_stats_of_parts_equal_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    total: dict[str, Stats] = {}
    for part in np.split(rows, [7, 30]):
        add_stats(total, {"x": vector_stats(part)})
    found, whole = total["x"], vector_stats(rows)
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(found[name], whole[name]), name
    assert np.all(found["q01"] <= found["q50"]) and np.all(found["q50"] <= found["q99"])
