# SPDX-License-Identifier: Apache-2.0
"""`rlif export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from step_bags import Cli, export_arrays, make_episodes, rlif, write_bag

from rlif_bags.reading.files import directory_lock


def test_export_of_different_robots_fails_and_leaves_nothing(tmp_path: Path, cli: Cli) -> None:
    bags = [write_bag(tmp_path / "a", make_episodes(2))]
    other = [replace(s, state=s.state[:2]) for s in make_episodes(1)]
    bags.append(write_bag(tmp_path / "b", other))
    assert "b: found Steps of {'state': 2" in cli.fails("export", *bags, "-o", tmp_path / "out.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_export_existing_output_is_refused(tmp_path: Path, cli: Cli) -> None:
    export_arrays(tmp_path, make_episodes(1))
    assert "exists already" in cli.fails("export", tmp_path / "bag", "-o", tmp_path / "out.npz")


def test_export_after_a_killed_one_succeeds(tmp_path: Path, cli: Cli) -> None:
    left = tmp_path / ".partial-out.npz"
    (left / "videos").mkdir(parents=True)
    (left / "observations.rows").write_bytes(b"half")
    export_arrays(tmp_path, make_episodes(1))
    assert not left.exists()
    (tmp_path / "out.npz").unlink()
    left.mkdir()
    with directory_lock(left):
        error = cli.fails("export", tmp_path / "bag", "-o", tmp_path / "out.npz")
    assert "is being written by another process" in error


@pytest.mark.parametrize("name", ["sets/monday/peg.npz", "sets/monday/peg-v0"])
def test_export_makes_the_directories_above_the_output(
    tmp_path: Path, name: str, bag: Path
) -> None:
    args = [bag, "-o", tmp_path / name]
    if name.endswith("-v0"):
        pytest.importorskip("minari", reason="minari is not installed: pip install --group export")
        args += ["--format", "minari"]
    assert rlif("export", *args) == 0
    assert [p.name for p in (tmp_path / "sets/monday").iterdir()] == [Path(name).name]
