"""Which files are a bag, and what is read of one that was not finished."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sqlite3
from pathlib import Path

import bag_episodes as own
import bag_sessions as foreign
import pytest
import zstandard
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from rlif_bags.commands import bag as bag_command
from rlif_bags.reading.files import BagError, bag_paths
from rlif_bags.reading.open import _copy_sqlite
from rlif_bags.reading.repair import repair_bag
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.step_writer import step_bytes, step_typestore

SECOND = foreign.SECOND


def test_file_compression_is_read(tmp_path: Path) -> None:
    plain, _ = foreign.convert(foreign.write(tmp_path / "plain", foreign.session(5)))
    for plugin in StoragePlugin:
        bag = foreign.write(
            tmp_path / plugin.name, foreign.session(5), plugin, CompressionMode.FILE
        )
        steps, report = foreign.convert(bag)
        assert foreign.drivers(steps) == foreign.drivers(plain) and not report.notes


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_killed_bag_of_compressed_files_is_read_whole(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    """Regression: only the file that was being written was read, and nothing said so.

    What `ros2 bag record --compression-mode file` leaves: closed files compressed, the one before
    the last perhaps half, the last one open; no metadata.yaml.
    """
    messages = foreign.session(10)
    expected, _ = foreign.convert(foreign.write(tmp_path / "plain", messages))
    killed, third = tmp_path / "killed", len(messages) // 3
    killed.mkdir()
    for number in range(3):
        part = messages[number * third : (number + 1) * third if number < 2 else None]
        file = foreign.data_file(foreign.write(tmp_path / f"part{number}", part, plugin))
        name = killed / f"killed_{number}{file.suffix}"
        packed = zstandard.ZstdCompressor().compress(file.read_bytes())
        if number == 0:
            name.with_suffix(f"{file.suffix}.zstd").write_bytes(packed)
            continue
        shutil.copy(file, name)
        if number == 1:
            name.with_suffix(f"{file.suffix}.zstd").write_bytes(packed[:1000])
    before = {f.name: f.read_bytes() for f in killed.iterdir()}
    steps, report = foreign.convert(killed)
    assert foreign.drivers(steps) == foreign.drivers(expected) and len(steps) == len(expected)
    assert any("metadata.yaml" in note for note in report.notes)
    assert {f.name: f.read_bytes() for f in killed.iterdir()} == before
    assert bag_paths([tmp_path])[0] == killed, "among others in a directory"


def test_a_bag_without_chunks_whose_messages_are_not_in_order_is_read_whole(tmp_path: Path) -> None:
    """Regression: it was taken for damaged, and read up to the first message out of order."""
    messages = foreign.session(5)
    messages[200], messages[201] = messages[201], messages[200]
    file = foreign.write_mcap(tmp_path / "fast.mcap", messages, use_chunking=False)
    expected, _ = foreign.convert(foreign.write(tmp_path / "plain", foreign.session(5)))
    steps, report = foreign.convert(file)
    assert foreign.drivers(steps) == foreign.drivers(expected)
    assert [note for note in report.notes if "sorted copy" in note] and not report.late


def test_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unfinished bag is read through a copy, for which there may be no room."""
    bag = foreign.write(tmp_path / "bag", foreign.session(5))
    (bag / "metadata.yaml").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rlif_bags.reading.repair._Copy.take", full)
    parser = argparse.ArgumentParser()
    bag_command.add_arguments(parser)
    assert bag_command.run(parser.parse_args(["info", str(bag)])) == 1
    error = capsys.readouterr().err
    assert str(bag) in error and "TMPDIR" in error and "No space left" in error
    words = ["repair", str(bag), "-o", str(tmp_path / "new")]
    assert bag_command.run(parser.parse_args(words)) == 1
    assert f"{tmp_path / 'new'}: cannot be written: " in capsys.readouterr().err
    assert not list(tmp_path.glob("*new*")), "no half bag takes the room that is left"


def test_messages_that_were_compressed_one_by_one_are_repaired(tmp_path: Path) -> None:
    bag = foreign.write(
        tmp_path / "bag", foreign.session(5), StoragePlugin.MCAP, CompressionMode.MESSAGE
    )
    expected, _ = foreign.convert(bag)
    repair_bag(bag, tmp_path / "whole")
    steps, report = foreign.convert(tmp_path / "whole")
    assert foreign.drivers(steps) == foreign.drivers(expected) and not report.refused


def test_metadata_that_is_older_than_the_file_hides_no_topic(tmp_path: Path) -> None:
    """Killed after the end of a file and before the last metadata.yaml."""
    from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic

    now = [0.0]
    writer = BagWriter(BagConfig(tmp_path / "bag", required_free_mib=0), clock=lambda: now[0])
    store = step_typestore()
    text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
    writer.flush_if_due()
    stale = (tmp_path / "bag/metadata.yaml").read_text()
    topic = Topic("/replay", "rlif_msgs/msg/Step", text, store.hash_rihs01("rlif_msgs/msg/Step"))
    writer.add_topic(topic)
    steps = own.make_episodes(1)
    for step in steps:
        writer.write("/replay", step.sequence, step_bytes(store, step, step.sequence))
    writer.close()
    (tmp_path / "bag/metadata.yaml").write_text(stale)
    reader = StepReader(tmp_path / "bag")
    own.assert_equal_steps(list(reader), steps)
    assert any("metadata.yaml is older" in note for note in reader.notes)


def test_a_sqlite_bag_that_was_killed_is_read_with_its_log(tmp_path: Path) -> None:
    """Its last messages are in a file beside it, which the library does not look at."""
    bag = foreign.write(tmp_path / "bag", foreign.session(5), StoragePlugin.SQLITE3)
    expected, _ = foreign.convert(bag)
    file = foreign.data_file(bag)
    database = sqlite3.connect(file)
    database.execute("pragma journal_mode = wal")
    rows = database.execute("select * from messages where timestamp > ?", (SECOND,)).fetchall()
    database.execute("delete from messages where timestamp > ?", (SECOND,))
    database.commit()
    database.execute("pragma wal_checkpoint(truncate)")
    marks = ", ".join("?" * len(rows[0]))
    database.executemany(f"insert into messages values ({marks})", rows)
    database.commit()
    killed = tmp_path / "killed"
    shutil.copytree(bag, killed)
    database.close()
    before = {f.name: f.read_bytes() for f in killed.iterdir()}
    steps, report = foreign.convert(killed)
    assert foreign.drivers(steps) == foreign.drivers(expected)
    assert any("write-ahead log" in note for note in report.notes)
    single, _ = foreign.convert(data_file_of(killed))
    assert foreign.drivers(single) == foreign.drivers(expected)
    assert {f.name: f.read_bytes() for f in killed.iterdir()} == before


def data_file_of(bag: Path) -> Path:
    return next(bag.glob("*.db3"))


def test_files_of_several_recordings_in_a_directory_are_several_bags(tmp_path: Path) -> None:
    """Regression: they were merged by time into one, and nothing told."""
    (tmp_path / "all").mkdir()
    for name in ("ada", "bob", "cyd"):
        bag = own.write_bag(tmp_path / name, own.make_episodes(1))
        shutil.copy(foreign.data_file(bag), tmp_path / "all" / f"{name}.mcap")
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


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_part_that_the_metadata_does_not_name_is_read(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    """Regression: what came after metadata.yaml was written was not read, and nothing told."""
    messages = foreign.session(10)
    expected, _ = foreign.convert(foreign.write(tmp_path / "plain", messages))
    half = len(messages) // 2
    bag = foreign.write(tmp_path / "bag", messages[:half], plugin)
    metadata, first = bag / "metadata.yaml", foreign.data_file(bag)
    metadata.write_text(metadata.read_text().replace(first.name, f"bag_0{first.suffix}"))
    first.rename(bag / f"bag_0{first.suffix}")
    rest = foreign.data_file(foreign.write(tmp_path / "rest", messages[half:], plugin))
    shutil.copy(rest, bag / f"bag_1{first.suffix}")
    shutil.copy(rest, bag / f"other{first.suffix}")
    steps, report = foreign.convert(bag)
    assert foreign.drivers(steps) == foreign.drivers(expected)
    notes = "\n".join(report.notes)
    assert "was not finished" in notes
    (bag / f"bag_1{first.suffix}").unlink()
    _, report = foreign.convert(bag)
    assert f"does not name it: other{first.suffix}" in "\n".join(report.notes)


def test_messages_compressed_one_by_one_are_read_without_metadata(tmp_path: Path) -> None:
    bag = foreign.write(
        tmp_path / "bag", foreign.session(5), StoragePlugin.SQLITE3, CompressionMode.MESSAGE
    )
    expected, _ = foreign.convert(bag)
    (bag / "metadata.yaml").unlink()
    steps, report = foreign.convert(bag)
    assert foreign.drivers(steps) == foreign.drivers(expected) and not report.refused


def test_a_copy_is_not_read_only_where_the_bag_is(tmp_path: Path) -> None:
    bag = foreign.write(tmp_path / "bag", foreign.session(5), StoragePlugin.SQLITE3)
    file = data_file_of(bag)
    (bag / f"{file.name}-wal").write_bytes(b"not a log: it is ignored")
    file.chmod(0o444)
    bag.chmod(0o555)
    copy = tmp_path / "copy"
    try:
        _copy_sqlite(bag, copy, unpack=False)
    finally:
        bag.chmod(0o755)
    assert copy.stat().st_mode & 0o200 and (copy / file.name).stat().st_mode & 0o200


def test_a_directory_is_not_searched_to_its_depths(tmp_path: Path) -> None:
    """It is a bag, or bags lie in it; what lies deeper is not asked for, and links lead nowhere."""
    own.write_bag(tmp_path / "deep/deeper/bag", own.make_episodes(1))
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    with pytest.raises(BagError, match="found no bag"):
        bag_paths([tmp_path])
    assert bag_paths([tmp_path / "deep/deeper"]) == [tmp_path / "deep/deeper/bag"]
