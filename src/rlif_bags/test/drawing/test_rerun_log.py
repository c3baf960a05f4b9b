# SPDX-License-Identifier: Apache-2.0
"""Episodes for Rerun."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from step_bags import Cli, make_episodes, rlif, write_bag


@pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None,
    reason="Rerun is not installed (pip install rerun-sdk)",
)
def test_show_in_rerun_file_holds_all_steps(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(3, images=True))
    file = tmp_path / "out.rrd"
    args = (bag, "-o", tmp_path / "out", "--episodes", "2-3", "--rerun", file)
    assert str(file) in cli.succeeds("show", *args)
    from rerun.chunk import RrdReader

    rows: Counter[str] = Counter()
    for chunk in RrdReader(file).stream():
        rows[str(chunk.entity_path)] += chunk.num_rows
    expected = {"camera_0": 12, "camera_1": 12, "state": 12, "action": 10, "reward": 10,
                "driver": 10, "events": 4}  # fmt: skip
    assert {k.strip("/"): n for k, n in rows.items() if k.strip("/") in expected} == expected
    assert rlif("show", *args) == 1, "never written over"
