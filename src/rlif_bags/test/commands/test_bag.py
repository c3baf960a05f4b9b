# SPDX-License-Identifier: Apache-2.0
"""`rlif bag`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from external_sessions import data_file, session, write_session
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from step_bags import Cli, make_episodes, rlif, write_unfinished_bag


def test_bag_repair_then_info_of_the_new_bag(tmp_path: Path, cli: Cli) -> None:
    write_unfinished_bag(tmp_path / "bag", make_episodes(2))
    assert rlif("bag", "repair", tmp_path / "bag", "-o", tmp_path / "out") == 0
    assert "2 episodes" in cli.succeeds("bag", "info", tmp_path / "out")
    assert "exists already" in cli.fails("bag", "repair", tmp_path / "bag", "-o", tmp_path / "out")


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.FILE])
def test_bag_info_truncated_bag_is_refused_by_name(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode, cli: Cli
) -> None:
    bag = write_session(tmp_path / "bag", session(40), plugin, mode)
    file = data_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert str(bag) in cli.fails("bag", "info", bag)


def test_bag_info_bad_bag_or_name_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mcap").write_bytes(b"nothing")
    bag = write_session(tmp_path / "b", session(5))
    assert rlif("bag", "info", tmp_path / "a.mcap", bag, tmp_path / "typo", bag) == 1
    printed = capsys.readouterr()
    assert printed.out.count(f"{bag}: ") == 1
    assert "a.mcap" in printed.err and "typo: found no bag" in printed.err


def test_bag_info_and_repair_on_a_full_disk_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """An unfinished bag is read through a copy, for which there may be no room."""
    bag = write_session(tmp_path / "bag", session(5))
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rlif_bags.reading.repair.Writer.write", full)
    error = cli.fails("bag", "info", bag)
    assert str(bag) in error and "TMPDIR" in error and "No space left" in error
    assert f"{tmp_path / 'new'}: cannot be written: " in cli.fails(
        "bag", "repair", bag, "-o", tmp_path / "new"
    )
    assert not list(tmp_path.glob("*new*")), "no half bag takes the room that is left"
