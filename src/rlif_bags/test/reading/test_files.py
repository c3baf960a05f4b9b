# SPDX-License-Identifier: Apache-2.0
"""Which files are a bag, their names and locks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import zstandard
from external_sessions import data_file, session, write_session
from step_bags import make_episodes, rlif, write_bag

from rlif_bags.reading.files import (
    BagError,
    bag_name,
    bag_paths,
    directory_lock,
)
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.step_writer import StepWriter


def test_bag_paths_directory_of_bags_gives_its_bags(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_bag(tmp_path / name, make_episodes(1))
    assert bag_paths([tmp_path]) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(BagError, match="found no bag"):
        bag_paths([tmp_path / "c"])


def test_bag_paths_files_of_several_recordings_are_several_bags(tmp_path: Path) -> None:
    """Regression: they were merged by time into one, without a note."""
    (tmp_path / "all").mkdir()
    for name in ("ada", "bob", "cyd"):
        bag = write_bag(tmp_path / name, make_episodes(1))
        shutil.copy(data_file(bag), tmp_path / "all" / f"{name}.mcap")
    found = bag_paths([tmp_path / "all"])
    assert [bag.name for bag in found] == ["ada.mcap", "bob.mcap", "cyd.mcap"]
    with pytest.raises(BagError, match="is no bag"):
        list(StepReader(tmp_path / "all"))
    hidden = tmp_path / "all/.partial-dan"
    shutil.copytree(tmp_path / "ada", hidden)
    assert bag_paths([tmp_path / "all"]) == found, "what a killed process has left is none"
    shutil.rmtree(hidden)
    shutil.copytree(tmp_path / "ada", tmp_path / "all/eve")
    packed = zstandard.ZstdCompressor().compress(found[0].read_bytes())
    (tmp_path / "all/fay.mcap.zstd").write_bytes(packed)
    names = [*(bag.name for bag in found), "eve", "fay.mcap.zstd"]
    assert sorted(bag.name for bag in bag_paths([tmp_path / "all"])) == sorted(names)
    assert len(list(StepReader(tmp_path / "all/fay.mcap.zstd"))) == 6
    shutil.rmtree(tmp_path / "all/eve")
    (tmp_path / "all/fay.mcap.zstd").unlink()
    for number, bag in enumerate(found, start=3):
        bag.rename(bag.with_name(f"bag_{number}.mcap"))
    assert bag_paths([tmp_path / "all"]) == [tmp_path / "all"], (
        "the parts of one, of which two are gone"
    )


def test_bag_paths_searches_one_level(tmp_path: Path) -> None:
    """It is a bag, or bags lie in it; what lies deeper is not asked for, and links lead nowhere."""
    write_bag(tmp_path / "deep/deeper/bag", make_episodes(1))
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    with pytest.raises(BagError, match="found no bag"):
        bag_paths([tmp_path])
    assert bag_paths([tmp_path / "deep/deeper"]) == [tmp_path / "deep/deeper/bag"]


def test_directory_lock_bag_being_written_is_left_alone(tmp_path: Path) -> None:
    steps = make_episodes(1)
    with StepWriter(tmp_path / "bag") as writer:
        writer.write(steps[0], 0)
        with pytest.raises(BagError, match="being written"):
            StepWriter(tmp_path / "bag").__enter__()
    assert len(list(StepReader(tmp_path / "bag"))) == 1
    (tmp_path / ".partial-left").mkdir()  # by a killed process
    write_bag(tmp_path / "left", steps)
    assert not (tmp_path / ".partial-left").exists()
    with directory_lock(tmp_path), pytest.raises(BagError), directory_lock(tmp_path):
        pass


def test_bag_name_file_called_bag_is_named_after_its_directory(
    tmp_path: Path, mapping_file: Path
) -> None:
    """Regression: its labels were called after the output."""
    made = write_session(tmp_path / "made", session(5))
    (tmp_path / "monday").mkdir()
    file = next(made.glob("*.mcap")).rename(tmp_path / "monday/bag.mcap")
    assert rlif("relabel", file, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"monday", "monday.conversion.json", "monday.labels.npz", "report.json"}


def test_bag_name_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bag(tmp_path / "run/bag", make_episodes(1))
    write_bag(tmp_path / "peg", make_episodes(1))
    monkeypatch.chdir(tmp_path / "run/bag")
    assert bag_name(Path()) == bag_name(Path("../bag")) == "run"
    monkeypatch.chdir(tmp_path / "peg")
    assert bag_name(Path()) == "peg" and bag_name(Path("peg_0.mcap")) == "peg_0"
    assert bag_name(Path("/bag")) == "bag"


def test_bag_name_link_keeps_its_own_name(tmp_path: Path, bag: Path) -> None:
    """Data stores keep files under a hash, and links to them under names."""
    store = tmp_path / "objects"
    store.mkdir()
    file = next(bag.glob("*.mcap")).rename(store / "SHA-123.mcap")
    (tmp_path / "monday.mcap").symlink_to(file)
    assert bag_name(tmp_path / "monday.mcap") == "monday"
    (tmp_path / "tuesday").symlink_to(store)
    assert bag_name(tmp_path / "tuesday") == "tuesday"
    assert bag_name(tmp_path / "objects/..") == tmp_path.name
