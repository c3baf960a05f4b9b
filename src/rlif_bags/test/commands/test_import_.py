# SPDX-License-Identifier: Apache-2.0
"""`rlif import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_bags import (
    Cli,
    demonstrations,
    export_arrays,
    imported,
    make_episodes,
    rlif,
    write_bag,
)

from rlif_bags.formats.array_file import read_arrays
from rlif_bags.reading.step_reader import StepReader
from rlif_learner.data.steps import Outcome, Source

try:  # here, since its import starts `uname`, which a test without marks may not
    import h5py
except ImportError:
    h5py = None


def test_import_dones_end_episodes(tmp_path: Path) -> None:
    rows = {"observations": np.zeros((12, 3)), "actions": np.zeros((12, 2))}
    np.savez(tmp_path / "x.npz", **rows, dones=np.arange(12) % 6 == 5)
    assert {step.episode_id for step in imported(tmp_path / "x.npz")} == {1, 2}


@pytest.mark.parametrize("name", ["cut.npz", "x.npy"])
def test_import_file_without_arrays_is_refused(tmp_path: Path, cli: Cli, name: str) -> None:
    np.savez(tmp_path / "whole.npz", observations=np.zeros((12, 3)))
    np.save(tmp_path / "x.npy", np.zeros((12, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-40])
    assert "not a readable file of plain arrays" in cli.fails(
        "import", tmp_path / name, "-o", tmp_path / "bag"
    )


def test_import_too_few_camera_names_are_refused(tmp_path: Path, cli: Cli) -> None:
    export_arrays(tmp_path, make_episodes(1, images=True))
    args = (tmp_path / "out.npz", "-o", tmp_path / "again", "--cameras", "wrist")
    message = "found 1 names (wrist), expected one for each camera of the dataset: camera_0, "
    assert message in cli.fails("import", *args)
    assert not (tmp_path / "again").exists()


def test_import_d4rl_hdf5_is_read(tmp_path: Path) -> None:
    if h5py is None:
        pytest.skip("h5py is not installed: pip install --group export")
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for name, array in demonstrations().items():
            file[name] = array
        file.create_group("metadata")
    assert len(imported(tmp_path / "demos.hdf5")) == 7


def test_import_images_without_a_last_one_drop_the_last_action(tmp_path: Path) -> None:
    pictures = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, 3)
    np.savez(tmp_path / "demos.npz", **demonstrations(), **{"images.top": pictures})
    found = imported(tmp_path / "demos.npz")
    assert [s.images[0].flat[0] for s in found] == [0, 1, 2, 3, 4]
    assert [s.is_last for s in found] == [False, False, True, False, True]


def test_import_several_files_keeps_episodes_apart(tmp_path: Path) -> None:
    bags = [write_bag(tmp_path / f"b{i}", make_episodes(2)) for i in range(3)]
    assert rlif("export", *bags, "-o", tmp_path / "out.npz") == 0
    assert np.unique(read_arrays(tmp_path / "out.npz")["episode_ids"]).tolist() == [*range(1, 7)]
    files = [tmp_path / "out.npz"] * 2
    assert rlif("import", *files, "-o", tmp_path / "again") == 0
    found = list(StepReader(tmp_path / "again"))
    assert [s.sequence for s in found] == list(range(72))
    assert sorted({s.episode_id for s in found}) == [*range(1, 13)]


def test_import_refused_file_leaves_no_bag(tmp_path: Path, cli: Cli) -> None:
    np.savez(tmp_path / "bad.npz", observations=np.zeros((3, 2)))
    assert "bad.npz: found no ['actions']" in cli.fails(
        "import", tmp_path / "bad.npz", "-o", tmp_path / "bag"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]


def test_import_pickle_is_refused(tmp_path: Path, cli: Cli) -> None:
    """PITFALLS: unpickling what somebody else wrote."""
    np.savez(tmp_path / "evil.npz", observations=np.array([{}]), actions=np.zeros((1, 1)))
    assert "plain arrays" in cli.fails("import", tmp_path / "evil.npz", "-o", tmp_path / "bag")


def test_import_missing_file_is_named(tmp_path: Path, cli: Cli) -> None:
    for name in ("no.npz", "no.hdf5", "no"):
        assert f"{name}: there is no such file or dataset" in cli.fails(
            "import", tmp_path / name, "-o", tmp_path / "bag"
        )
    assert not list(tmp_path.iterdir())


def test_import_arrays_without_episodes_are_refused(tmp_path: Path, cli: Cli) -> None:
    """Regression: all rows became one episode, without a word."""
    file, bag = tmp_path / "demo.npz", tmp_path / "bag"
    np.savez(file, observations=np.zeros((6, 2)), actions=np.zeros((6, 1)), done=np.ones(6))
    error = cli.fails("import", file, "-o", bag)
    assert "demo.npz: found nothing that separates the episodes" in error and "'done'" in error
    assert f"note: {file}: not used: done" in cli.succeeds(
        "import", file, "-o", bag, "--one-episode"
    )
    assert [s.is_last for s in StepReader(bag)] == [False] * 5 + [True]


def test_import_next_observation_of_another_row_ends_the_episode(tmp_path: Path, cli: Cli) -> None:
    """Older datasets have no timeouts: what came after a reset was taken for what came next."""
    states = np.arange(7.0)[:, None]
    following = np.array([1.0, 2.0, 2.5, 4.0, 5.0, 6.0, 7.0])[:, None]
    file, bag = tmp_path / "demo.npz", tmp_path / "bag"
    np.savez(
        file, observations=states, actions=np.zeros((7, 1)), next_observations=following,
        terminals=np.arange(7) == 4,
    )  # fmt: skip
    assert "1 rows have a next observation that is not the next row's" in cli.succeeds(
        "import", file, "-o", bag
    )
    steps = list(StepReader(bag))
    assert [s.state[0] for s in steps if s.is_last] == [2.5, 5.0, 7.0]
    outcomes = [Outcome.TRUNCATED, Outcome.SUCCESS, Outcome.TRUNCATED]
    assert [s.outcome for s in steps if s.is_last] == outcomes
    np.savez(file, observations=states, actions=np.zeros((7, 1)), next_observations=states[:, :0])
    assert "next_observations: found 0 entries, expected 1" in cli.fails(
        "import", file, "-o", tmp_path / "other"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminals": np.True_}, r"terminals: found shape (), expected [rows]"),
        ({"sources": np.ones((6, 2))}, "sources: found shape (6, 2)"),
        ({"observations": np.array([["a"]] * 6)}, "observations: found <U1, expected real numbers"),
        ({"actions": np.zeros((6, 1), complex)}, "actions: found complex128"),
    ],
)
def test_import_array_of_another_kind_is_named(
    tmp_path: Path, cli: Cli, change: dict[str, Any], message: str
) -> None:
    """Regression: they ended in tracebacks, or were imported with a warning."""
    arrays = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1)), "dones": np.ones(6)}
    np.savez(tmp_path / "demo.npz", **{**arrays, **change})
    assert message in cli.fails("import", tmp_path / "demo.npz", "-o", tmp_path / "bag")


def test_import_column_of_one_number_a_row_is_read(tmp_path: Path) -> None:
    ends = np.array([0, 0, 1, 0, 0, 1])[:, None]
    np.savez(
        tmp_path / "demo.npz", observations=np.zeros((6, 2)), actions=np.zeros((6, 1)),
        terminals=ends, sources=np.ones((6, 1), np.uint8),
    )  # fmt: skip
    steps = imported(tmp_path / "demo.npz")
    assert [s.is_last for s in steps] == [False, False, True] * 2
    assert {s.source for s in steps if not s.is_last} == {Source.POLICY}


def test_import_files_of_different_sizes_are_refused(tmp_path: Path, cli: Cli) -> None:
    for name, size in (("one", 2), ("two", 3)):
        np.savez(
            tmp_path / f"{name}.npz", observations=np.zeros((4, size)), actions=np.zeros((4, 1)),
            dones=np.array([0, 1, 0, 1]),
        )  # fmt: skip
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    error = cli.fails("import", *files, "-o", tmp_path / "bag")
    assert "two.npz: found Steps of {'state': 3, 'action': 1, 'images': {}}, expected {" in error
    assert "--one-episode: found dones" in cli.fails(
        "import", files[0], "-o", tmp_path / "bag", "--one-episode"
    )
    assert not (tmp_path / "bag").exists()
