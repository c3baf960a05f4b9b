# SPDX-License-Identifier: Apache-2.0
"""Bags of any storage, unfinished or damaged: read as far as they go, with a note."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from external_sessions import (
    SECOND,
    convert,
    data_file,
    session,
    sources_of,
    write_mcap,
    write_session,
)
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore
from step_bags import assert_equal_steps, make_episodes, write_bag, write_unfinished_bag

from rlif_bags.external.report import ConversionReport
from rlif_bags.reading.files import BagError, bag_paths
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.open import open_bag, with_log
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.replay import recorded_steps
from rlif_bags.step_writer import step_bytes, step_typestore


def test_open_bag_without_metadata_is_read(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bag = write_bag(tmp_path / "bag", steps)
    (bag / "metadata.yaml").unlink()
    assert_equal_steps(list(StepReader(bag)), steps)
    assert_equal_steps(list(StepReader(data_file(bag))), steps)


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"something else"])
def test_open_bag_no_bag_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mcap").write_bytes(content)
    with pytest.raises(BagError, match=r"bad\.mcap"), open_bag(tmp_path / "bad.mcap"):
        pass


def test_open_bag_temporary_copy_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    write_unfinished_bag(tmp_path / "bag", make_episodes(2))
    list(StepReader(tmp_path / "bag"))
    assert list((tmp_path / "tmp").iterdir()) == []
    shutil.rmtree(tmp_path / "bag")


def test_open_bag_unknown_definition_language_is_named(tmp_path: Path) -> None:
    with (tmp_path / "odd.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("lab_msgs/msg/Stick", "protobuf", b"?")
        writer.add_message(
            writer.register_channel("/stick", "cdr", schema), 1, b"\x00\x01\x00\x00", 1
        )
        writer.finish()
    with pytest.raises(BagError, match=r"odd\.mcap.*protobuf"):
        describe_bag(tmp_path / "odd.mcap")


def damage(file: Path, at: float, size: int = 200) -> None:
    data = bytearray(file.read_bytes())
    start = int(len(data) * at)
    for index in range(start, min(len(data), start + size)):
        data[index] ^= 0x5A
    file.write_bytes(bytes(data))


def test_read_messages_damage_inside_is_noted(tmp_path: Path) -> None:
    """The library skips to the end of such a chunk without a word."""
    steps = make_episodes(200, images=True)
    bag = write_bag(tmp_path / "bag", steps)
    damage(data_file(bag), 0.5, 3000)
    reader = StepReader(bag)
    found = list(reader)
    note = next(n for n in reader.notes if "damaged" in n)
    left_out = sum(reader.skipped.values())
    assert 0 < len(found) < len(steps) and str(bag) in note and "/replay" in note
    assert f"{len(steps) - len(found) - left_out} of {len(steps)} messages cannot be read" in note
    assert len([*recorded_steps(bag)]) <= len(found) + left_out


@pytest.mark.parametrize("mode", [CompressionMode.STORAGE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_read_messages_damage_in_compressed_bag_is_noted_or_refused(
    tmp_path: Path, mode: CompressionMode, where: float
) -> None:
    bag = write_session(tmp_path / "bag", session(40), StoragePlugin.MCAP, mode)
    damage(data_file(bag), where)
    report = ConversionReport()
    try:
        steps, report = convert(bag)
    except BagError as error:
        assert str(bag) in str(error)
    else:
        noted = report.notes or sources_of(steps)[-1] == "|"
        assert noted and (report.notes or len(steps) == 41)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_open_bag_killed_with_compressed_files_is_read_whole(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    """Regression: only the file that was being written was read, and without a note.

    What `ros2 bag record --compression-mode file` leaves: closed files compressed, the one before
    the last perhaps half, the last one open; no metadata.yaml.
    """
    messages = session(10)
    expected, _ = convert(write_session(tmp_path / "plain", messages))
    killed, third = tmp_path / "killed", len(messages) // 3
    killed.mkdir()
    for number in range(3):
        part = messages[number * third : (number + 1) * third if number < 2 else None]
        file = data_file(write_session(tmp_path / f"part{number}", part, plugin))
        name = killed / f"killed_{number}{file.suffix}"
        packed = zstandard.ZstdCompressor().compress(file.read_bytes())
        if number == 0:
            name.with_suffix(f"{file.suffix}.zstd").write_bytes(packed)
            continue
        shutil.copy(file, name)
        if number == 1:
            name.with_suffix(f"{file.suffix}.zstd").write_bytes(packed[:1000])
    before = {f.name: f.read_bytes() for f in killed.iterdir()}
    steps, report = convert(killed)
    assert sources_of(steps) == sources_of(expected) and len(steps) == len(expected)
    assert any("metadata.yaml" in note for note in report.notes)
    assert {f.name: f.read_bytes() for f in killed.iterdir()} == before
    assert bag_paths([tmp_path])[0] == killed, "among others in a directory"


def test_open_bag_unordered_without_chunks_is_read_whole(tmp_path: Path) -> None:
    """Regression: it was taken for damaged, and read up to the first message out of order."""
    messages = session(5)
    messages[200], messages[201] = messages[201], messages[200]
    file = write_mcap(tmp_path / "fast.mcap", messages, use_chunking=False)
    expected, _ = convert(write_session(tmp_path / "plain", session(5)))
    steps, report = convert(file)
    assert sources_of(steps) == sources_of(expected)
    assert [note for note in report.notes if "sorted copy" in note] and not report.late


def test_open_bag_metadata_older_than_the_file_hides_no_topic(tmp_path: Path) -> None:
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
    steps = make_episodes(1)
    for step in steps:
        writer.write("/replay", step.sequence, step_bytes(store, step, step.sequence))
    writer.close()
    (tmp_path / "bag/metadata.yaml").write_text(stale)
    reader = StepReader(tmp_path / "bag")
    assert_equal_steps(list(reader), steps)
    assert any("metadata.yaml is older" in note for note in reader.notes)


def data_file_of(bag: Path) -> Path:
    return next(bag.glob("*.db3"))


def test_open_bag_killed_sqlite_is_read_with_its_log(tmp_path: Path) -> None:
    """Its last messages are in a file beside it, which the library does not look at."""
    bag = write_session(tmp_path / "bag", session(5), StoragePlugin.SQLITE3)
    expected, _ = convert(bag)
    file = data_file(bag)
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
    steps, report = convert(killed)
    assert sources_of(steps) == sources_of(expected)
    assert any("write-ahead log" in note for note in report.notes)
    single, _ = convert(data_file_of(killed))
    assert sources_of(single) == sources_of(expected)
    assert {f.name: f.read_bytes() for f in killed.iterdir()} == before


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_open_bag_part_that_metadata_does_not_name_is_read(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    """Regression: what came after metadata.yaml was written was not read, without a note."""
    messages = session(10)
    expected, _ = convert(write_session(tmp_path / "plain", messages))
    half = len(messages) // 2
    bag = write_session(tmp_path / "bag", messages[:half], plugin)
    metadata, first = bag / "metadata.yaml", data_file(bag)
    metadata.write_text(metadata.read_text().replace(first.name, f"bag_0{first.suffix}"))
    first.rename(bag / f"bag_0{first.suffix}")
    rest = data_file(write_session(tmp_path / "rest", messages[half:], plugin))
    shutil.copy(rest, bag / f"bag_1{first.suffix}")
    shutil.copy(rest, bag / f"other{first.suffix}")
    steps, report = convert(bag)
    assert sources_of(steps) == sources_of(expected)
    notes = "\n".join(report.notes)
    assert "was not finished" in notes
    (bag / f"bag_1{first.suffix}").unlink()
    _, report = convert(bag)
    assert f"does not name it: other{first.suffix}" in "\n".join(report.notes)


def test_open_bag_message_compression_without_metadata_is_read(tmp_path: Path) -> None:
    bag = write_session(
        tmp_path / "bag", session(5), StoragePlugin.SQLITE3, CompressionMode.MESSAGE
    )
    expected, _ = convert(bag)
    (bag / "metadata.yaml").unlink()
    steps, report = convert(bag)
    assert sources_of(steps) == sources_of(expected) and not report.refused


def test_with_log_copy_of_a_read_only_file_is_writable(tmp_path: Path) -> None:
    bag = write_session(tmp_path / "bag", session(5), StoragePlugin.SQLITE3)
    file = data_file_of(bag)
    (bag / f"{file.name}-wal").write_bytes(b"not a log: it is ignored")
    file.chmod(0o444)
    copy = with_log(file, tmp_path)
    assert copy.stat().st_mode & 0o200


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize(
    "mode", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE]
)
def test_open_bag_storage_and_compression_make_no_difference(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode
) -> None:
    plain, _ = convert(write_session(tmp_path / "plain", session(5)))
    other, report = convert(write_session(tmp_path / "other", session(5), plugin, mode))
    assert [s.state.tolist() for s in other] == [s.state.tolist() for s in plain]
    assert sources_of(other) == sources_of(plain) and not report.notes


def test_open_bag_ros_1_is_read(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(tmp_path / "old.bag") as writer:
        connections: dict[str, Any] = {}
        for topic, stamp, kind, message in session(5):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            old = message.header
            new = store.types["std_msgs/msg/Header"](seq=0, stamp=old.stamp, frame_id=old.frame_id)
            values = {**{k: getattr(message, k) for k in message.__dataclass_fields__ if k[0] != "_"},
                      "header": new}  # fmt: skip
            values = {k: v for k, v in values.items() if not k.startswith("__")}
            data = store.serialize_ros1(store.types[kind](**values), kind)
            writer.write(connections[topic], stamp, data)
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "old.bag", tmp_path / "one/old.bag")
    steps, report = convert(tmp_path / "one")
    assert len(steps) == 6 and not report.notes, "a folder with nothing but a bag is that bag"
    steps, _ = convert(tmp_path / "old.bag")
    assert len(steps) == 6 and steps[0].action.tolist() == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("parts", [1, 2])
def test_open_bag_files_renamed_after_recording_are_read(
    tmp_path: Path, plugin: StoragePlugin, parts: int
) -> None:
    """Regression: SQLite was refused, MCAP read through a copy."""
    messages = session(5)
    bag = write_session(tmp_path / "bag", messages, plugin)
    (file,) = (f for f in bag.iterdir() if f.suffix != ".yaml")
    if parts == 2:
        shutil.copy(file, bag / f"monday_1{file.suffix}")
        metadata = bag / "metadata.yaml"
        content = yaml.safe_load(metadata.read_text())
        content["rosbag2_bagfile_information"]["relative_file_paths"].append("gone_1.mcap")
        metadata.write_text(yaml.safe_dump(content))
    file.rename(bag / f"monday_0{file.suffix}")
    before = sorted(f.name for f in bag.iterdir())
    notes: list[str] = []
    with open_bag(bag, notes) as opened:
        assert sum(c.msgcount for c in opened.connections) == parts * len(messages)
    assert sorted(f.name for f in bag.iterdir()) == before
    (note,) = notes
    assert f"metadata.yaml names {file.name}" in note and "not there; read from monday_0" in note


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_open_bag_qos_edited_in_metadata_is_read(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode
) -> None:
    """Regression: none of its messages was; they were called damaged."""
    bag = write_session(tmp_path / "bag", session(5), plugin, mode)
    metadata = bag / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    topics = content["rosbag2_bagfile_information"]["topics_with_message_count"]
    pose = next(t for t in topics if t["topic_metadata"]["name"] == "/arm/pose")
    never = {"sec": 0, "nsec": 0}
    pose["topic_metadata"]["offered_qos_profiles"] = [{
        "history": "keep_last", "depth": 3, "reliability": "best_effort", "durability": "volatile",
        "deadline": never, "lifespan": never, "liveliness": "automatic",
        "liveliness_lease_duration": never, "avoid_ros_namespace_conventions": False,
    }]  # fmt: skip
    metadata.write_text(yaml.safe_dump(content))
    steps, report = convert(bag)
    assert sources_of(steps) == "ppppo|" and not report.notes
    with open_bag(bag) as opened:
        count = sum(c.msgcount for c in opened.connections if c.topic == "/arm/pose")
    assert count == sum(m[0] == "/arm/pose" for m in session(5))


def with_strange_channels(writer: McapWriter) -> None:
    """Topics that no ROS 2 bag has."""
    plain = writer.register_channel("/bytes", "cdr", 0)
    schema = writer.register_schema("thing", "jsonschema", b"{}")
    for channel in (plain, writer.register_channel("/json", "json", schema)):
        writer.add_message(channel, SECOND // 2, b"{}", 0)


@pytest.mark.parametrize("finished", [True, False])
def test_open_bag_topics_not_of_ros_are_left_out(tmp_path: Path, finished: bool) -> None:
    """Regression: the whole bag was refused, or its repair ended in a traceback."""
    file = tmp_path / "strange.mcap"
    write_mcap(file, session(5), with_strange_channels, chunk_size=4096)
    if not finished:
        file.write_bytes(file.read_bytes()[:-4000])
    steps, report = convert(file)
    assert sources_of(steps) == "ppppo|"
    notes = "\n".join(report.notes)
    assert "/bytes: its messages are without a schema" in notes
    assert "/json: its messages are in 'json', expected cdr" in notes
