# SPDX-License-Identifier: Apache-2.0
"""Bags: readable by others, split, and as rosbag2 expects them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_rig import BOOL, INT, config, int_message, read_all, write_some
from mcap.reader import make_reader
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from rlif_intervention.bag_writer import BagConfig, BagError, BagWriter


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_bag_of_any_compression_is_read_back_by_rosbags(tmp_path: Path, compression: str) -> None:
    writer = BagWriter(config(tmp_path, compression=compression, chunk_kib=1))
    written = write_some(writer)
    writer.close()
    assert read_all(tmp_path / "bag") == written


def test_bag_holds_the_definitions_that_its_messages_need(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer, 4)
    writer.close()
    with AnyReader([tmp_path / "bag"]) as reader:
        values: list[Any] = [
            reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()
        ]
    assert [v.data for v in values] == [0, False, 2, False]


def test_metadata_of_a_closed_bag_is_that_of_rosbag2(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer, 100)
    writer.close()
    metadata = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())
    info = metadata["rosbag2_bagfile_information"]
    assert info["version"] == 9 and info["storage_identifier"] == "mcap"
    assert info["message_count"] == 100
    assert info["starting_time"] == {"nanoseconds_since_epoch": 1_000_000}
    assert info["duration"] == {"nanoseconds": 99}
    assert info["relative_file_paths"] == ["bag_0.mcap"]
    flag = info["topics_with_message_count"][0]
    assert flag["message_count"] == 50
    assert flag["topic_metadata"]["type_description_hash"] == BOOL.hash
    assert flag["topic_metadata"]["offered_qos_profiles"][0]["reliability"] == "reliable"


def test_file_is_what_rosbag2_expects_of_mcap(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer)
    writer.close()
    with (tmp_path / "bag/bag_0.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2" and summary is not None
        assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}
        channel = summary.channels[1]
        assert channel.message_encoding == "cdr" and channel.metadata["topic_type_hash"]
        assert yaml.safe_load(channel.metadata["offered_qos_profiles"])[0]["depth"] == 3
        assert [m.name for m in reader.iter_metadata()] == ["rosbag2"]


def test_bag_that_was_split_reads_as_one(tmp_path: Path) -> None:
    now = [0.0]
    writer = BagWriter(config(tmp_path, split_seconds=10.0), clock=lambda: now[0])
    written = []
    for part in range(3):
        written += write_some(writer, 10) if part == 0 else []
        if part:
            writer.write("/count", 2_000_000 * part, int_message(part))
            written.append(("/count", 2_000_000 * part, int_message(part)))
        now[0] += 11.0
        writer.flush_if_due()
    writer.close()
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())
    files = info["rosbag2_bagfile_information"]["files"]
    assert [f["message_count"] for f in files] == [10, 1, 1, 0]
    assert read_all(tmp_path / "bag") == written


def test_metadata_while_recording_is_there(tmp_path: Path) -> None:
    now = [0.0]
    writer = BagWriter(config(tmp_path), clock=lambda: now[0])
    write_some(writer, 10)
    now[0] = 1.0
    writer.flush_if_due()
    text = (tmp_path / "bag/metadata.yaml").read_text()
    assert yaml.safe_load(text)["rosbag2_bagfile_information"]["message_count"] == 10
    writer.close()


def test_config_with_an_existing_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        config(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("compression", "zip"), ("split_mib", -1), ("flush_period", 0.0), ("chunk_kib", 0)],
)
def test_config_with_a_bad_setting_is_refused_by_name(
    tmp_path: Path, setting: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=setting):
        config(tmp_path, **{setting: value})


def test_writer_with_too_little_room_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    now = [0.0]
    settings = BagConfig(tmp_path / "bag", required_free_mib=10**9)
    writer = BagWriter(settings, clock=lambda: now[0])
    written = write_some(writer)
    now[0] = 2.0
    with pytest.raises(BagError, match="required_free_mib"):
        writer.flush_if_due()
    writer.close()
    assert read_all(tmp_path / "bag") == written, "there was room to finish the bag"


def test_chunks_of_large_messages_are_small(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path, chunk_kib=64))
    writer.add_topic(INT)
    for i in range(200):
        writer.write("/count", i, b"\x00\x01\x00\x00" + bytes(10_000))
    writer.close()
    with (tmp_path / "bag/bag_0.mcap").open("rb") as stream:
        records = StreamReader(stream, emit_chunks=True).records
        sizes = [r.uncompressed_size for r in records if isinstance(r, Chunk)]
    assert len(sizes) > 20 and max(sizes) < 80_000
