# SPDX-License-Identifier: Apache-2.0
"""Statistics of LeRobot datasets."""

from __future__ import annotations

import numpy as np

from rlif_bags.formats.lerobot_stats import RunningStats, vector_stats


def test_running_stats_of_parts_equal_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    running = RunningStats()
    for part in np.split(rows, [7, 30]):
        running.add({"x": vector_stats(part)})
    found, whole = running.result()["x"], vector_stats(rows)
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(found[name], whole[name]), name
    assert np.all(found["q01"] <= found["q50"]) and np.all(found["q50"] <= found["q99"])
