# SPDX-License-Identifier: Apache-2.0
"""Message definitions that a bag does not bring along."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
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
from rosbags.rosbag2 import StoragePlugin

from rlif_bags.reading.files import BagError
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.repair import repair_bag


def old_sqlite(path: Path, messages: list[Any]) -> Path:
    """A bag as Humble records it: no definitions, metadata of version 5."""
    write_session(path, messages, StoragePlugin.SQLITE3)
    database = sqlite3.connect(data_file(path))
    database.execute("drop table message_definitions")
    database.execute("drop table schema")
    database.execute("alter table topics drop column type_description_hash")
    database.commit()
    database.close()
    metadata = path / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    information = content["rosbag2_bagfile_information"]
    information["version"] = 5
    for name in ("ros_distro", "custom_data"):
        information.pop(name, None)
    for entry in information["topics_with_message_count"]:
        entry["topic_metadata"].pop("type_description_hash")
    metadata.write_text(yaml.safe_dump(content))
    return path


def test_fallback_types_humble_sqlite_without_definitions_is_read(tmp_path: Path) -> None:
    plain, _ = convert(write_session(tmp_path / "new", session(5)))
    steps, report = convert(old_sqlite(tmp_path / "old", session(5)))
    assert [s.state.tolist() for s in steps] == [s.state.tolist() for s in plain]
    assert sources_of(steps) == sources_of(plain) and not report.notes
    assert any("/arm/pose" in line for line in describe_bag(tmp_path / "old"))


def test_require_types_unknown_type_is_named(tmp_path: Path) -> None:
    bag = old_sqlite(tmp_path / "old", session(5))
    database = sqlite3.connect(data_file(bag))
    database.execute("update topics set type = 'lab_msgs/msg/Stick' where name = '/joy'")
    database.commit()
    database.close()
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("sensor_msgs/msg/Joy", "lab_msgs/msg/Stick"))
    with pytest.raises(BagError, match=r"/joy \(lab_msgs/msg/Stick\)"):
        convert(bag)
    assert describe_bag(bag), "its topics are listed all the same"


EVENT = "example_interfaces/srv/AddTwoInts_Event"


# As Jazzy writes it for a service: the request and the response in one, which is no message.
SERVICE = f"MSG: {EVENT}\nint64 a\nint64 b\n---\nint64 sum\n"


def with_service(writer: McapWriter, digest: str) -> None:
    """A topic /add/_service_event."""
    schema = writer.register_schema(EVENT, "ros2msg", SERVICE.encode())
    metadata = {"topic_type_hash": digest} if digest else {}
    channel = writer.register_channel("/add/_service_event", "cdr", schema, metadata)
    writer.add_message(channel, SECOND // 2, b"\0\1\0\0", 0)


@pytest.mark.parametrize("digest", ["", "RIHS01_" + "0" * 64])
def test_tolerant_reader_unreadable_definition_costs_its_topic_only(
    tmp_path: Path, digest: str
) -> None:
    """Regression: a service's events beside the topics, and the whole bag was refused."""
    strange = partial(with_service, digest=digest)
    file = write_mcap(tmp_path / "with_service.mcap", session(5), strange)
    steps, report = convert(file)
    assert sources_of(steps) == "ppppo|" and not report.notes
    assert any("/add/_service_event" in line for line in describe_bag(file))
    repair_bag(file, tmp_path / "whole")
    assert sources_of(convert(tmp_path / "whole")[0]) == "ppppo|"
    with pytest.raises(BagError, match=r"no definition of the type of /add/_service_event"):
        convert(file, command="/add/_service_event")


def with_other_joy(writer: McapWriter) -> None:
    """A topic of a Joy as it was before a field was added to it."""
    text = "std_msgs/Header header\nfloat32[] axes\n" + "=" * 80
    text += "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n" + "=" * 80
    text += "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    schema = writer.register_schema("sensor_msgs/msg/Joy", "ros2msg", text.encode())
    channel = writer.register_channel("/old/joy", "cdr", schema)
    writer.add_message(channel, SECOND // 2, b"\0\1\0\0" + bytes(16), 0)


def test_bag_types_two_definitions_of_a_type_are_refused_by_its_name(tmp_path: Path) -> None:
    """Regression: the last one won, and the other's messages were read as what they are not."""
    file = write_mcap(tmp_path / "two.mcap", session(5), with_other_joy)
    with pytest.raises(BagError, match=r"two definitions of sensor_msgs/msg/Joy"):
        convert(file)
