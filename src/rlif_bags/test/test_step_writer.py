# SPDX-License-Identifier: Apache-2.0
"""Bags of Steps as rosbag2 of Jazzy asks for them, whatever writes them.

The tables are what its reader requires, found by reading bags with it; `ros2 bag` is not needed here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from rosbags.rosbag2.metadata import parse_qos
from step_bags import make_episodes, make_step, write_bag

from rlif_bags.reading.repair import repair_bag
from rlif_bags.step_writer import StepWriter, step_bytes, step_typestore
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic, qos_profile
from rlif_intervention.message_definitions import definition, type_hash


def test_step_writer_after_an_exception_leaves_no_bag(tmp_path: Path) -> None:
    with pytest.raises(KeyError), StepWriter(tmp_path / "bag") as writer:
        writer.write(make_step(0, 0, 5), 0)
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


SPAN = {"duration": {"nanoseconds": int}, "starting_time": {"nanoseconds_since_epoch": int}}
DURATION = {"sec": int, "nsec": int}
QOS = {
    "history": {"keep_last", "keep_all", "system_default", "unknown"},
    "depth": int,
    "reliability": {"reliable", "best_effort", "system_default", "unknown"},
    "durability": {"transient_local", "volatile", "system_default", "unknown"},
    "deadline": DURATION,
    "lifespan": DURATION,
    "liveliness": {"automatic", "manual_by_topic", "system_default", "unknown"},
    "liveliness_lease_duration": DURATION,
    "avoid_ros_namespace_conventions": bool,
}


TOPIC = {
    "name": str,
    "type": str,
    "serialization_format": {"cdr"},
    "offered_qos_profiles": [QOS],
    "type_description_hash": str,
}


# Version 9. All of it is asked for: what is missing, or of another type, is an error there.
METADATA = {
    "version": {9},
    "storage_identifier": {"mcap"},
    **SPAN,
    "message_count": int,
    "topics_with_message_count": [{"topic_metadata": TOPIC, "message_count": int}],
    "compression_format": {""},
    "compression_mode": {""},  # of chunks is the file's own affair
    "relative_file_paths": [str],
    "files": [{"path": str, **SPAN, "message_count": int}],
    "custom_data": type(None),  # or a mapping of text to text
    "ros_distro": str,
}


def assert_fits(found: Any, expected: Any, where: str = "") -> None:
    """As a table asks: a type, a set of values, a list of one kind, or a mapping."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and set(found) == set(expected), where
        for name, kind in expected.items():
            assert_fits(found[name], kind, f"{where}.{name}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        for entry in found:
            assert_fits(entry, expected[0], f"{where}[]")
    elif isinstance(expected, set):
        assert found in expected, f"{where}: {found!r}"
    else:
        assert type(found) is expected, f"{where}: {found!r}"


STEP = "rlif_msgs/msg/Step"


def record(path: Path, finish: bool = True, **config: Any) -> BagWriter:
    now = [0.0]
    writer = BagWriter(BagConfig(path, **config), clock=lambda: now[0])
    qos = (qos_profile(), qos_profile("best_effort", depth=0, history="unknown"))
    writer.add_topic(Topic("/replay", STEP, definition(STEP), type_hash(STEP), qos))
    store = step_typestore()
    for step in make_episodes(3):
        writer.write("/replay", 10**18 + step.sequence, step_bytes(store, step, step.sequence))
        now[0] += 1.0
        writer.flush_if_due()
    if finish:
        writer.close()
    else:
        writer.flush()
    return writer


def repaired(path: Path) -> None:
    killed = record(path.with_name("killed"), finish=False, split_seconds=7.0, compression="zstd")
    repair_bag(path.with_name("killed"), path)
    killed.close()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "recorded": record,
    "in several files": lambda path: record(path, split_seconds=4.0),
    "compressed": lambda path: record(path, compression="zstd"),
    "repaired": repaired,
    "of Steps": lambda path: write_bag(path, make_episodes(3)),
}


@pytest.fixture(params=WRITERS)
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    WRITERS[request.param](tmp_path / "bag")
    return tmp_path / "bag"


def metadata_of(bag: Path) -> Any:
    return yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


def test_bag_metadata_has_what_rosbag2_asks_for(bag: Path) -> None:
    content = metadata_of(bag)
    assert_fits(content, METADATA)
    files = content["files"]
    assert [f["path"] for f in files] == content["relative_file_paths"]
    # `ros2 bag reindex` looks for these names.
    numbered = [f"{bag.name}_{number}.mcap" for number in range(len(files))]
    assert content["relative_file_paths"] == numbered
    assert set(content["relative_file_paths"]) == {p.name for p in bag.glob("*.mcap")}
    counts = [t["message_count"] for t in content["topics_with_message_count"]]
    assert content["message_count"] == 18 == sum(f["message_count"] for f in files) == sum(counts)


def test_bag_metadata_while_recording_is_whole(tmp_path: Path) -> None:
    writer = record(tmp_path / "bag", finish=False, split_seconds=4.0)
    assert_fits(metadata_of(tmp_path / "bag"), METADATA)
    writer.close()


def test_bag_files_agree_with_metadata(bag: Path) -> None:
    """Read alone, a file is known by what is in it; messages are played in order by its index."""
    (topic,) = (t["topic_metadata"] for t in metadata_of(bag)["topics_with_message_count"])
    total = 0
    for file in metadata_of(bag)["files"]:
        with (bag / file["path"]).open("rb") as stream:
            reader = make_reader(stream)
            assert reader.get_header().profile == "ros2"
            summary = reader.get_summary()
            assert summary is not None and summary.statistics is not None
            records = list(reader.iter_metadata())
        for channel in summary.channels.values():
            assert (channel.topic, channel.message_encoding) == ("/replay", "cdr")
            schema = summary.schemas[channel.schema_id]
            assert (schema.name, schema.encoding) == (STEP, "ros2msg")
            assert "MSG: sensor_msgs/Image" in schema.data.decode()
            # Optional; the library leaves it out, the recorder does not.
            known = channel.metadata.get("topic_type_hash", topic["type_description_hash"])
            assert known == topic["type_description_hash"]
            offered = yaml.safe_load(channel.metadata["offered_qos_profiles"])
            assert_fits(offered, [QOS])
            assert offered == topic["offered_qos_profiles"]
            assert parse_qos(channel.metadata["offered_qos_profiles"]) == parse_qos(offered)
        count = summary.statistics.message_count
        assert count == file["message_count"]
        assert all(c.message_index_offsets for c in summary.chunk_indexes) or not count
        total += count
        for record_ in records:
            assert record_.name == "rosbag2"
            inner = yaml.safe_load(record_.metadata["serialized_metadata"])
            assert inner["version"] == 9 and inner["storage_identifier"] == "mcap"
    assert total == 18


def test_bag_metadata_hash_is_that_of_the_type(bag: Path) -> None:
    (topic,) = (t["topic_metadata"] for t in metadata_of(bag)["topics_with_message_count"])
    assert topic["type_description_hash"] == type_hash(STEP)
    assert len(topic["offered_qos_profiles"]) >= 1
