# SPDX-License-Identifier: Apache-2.0
"""Bags that the rosbags library would refuse or read in part for a detail."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml
from external_sessions import SECOND, convert, drivers, session, write_mcap, write_session
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from rlif_bags.reading.files import BagError
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.repair import repair_bag

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
    assert drivers(steps) == "ppppo|" and not report.notes
    assert any("/add/_service_event" in line for line in describe_bag(file))
    repair_bag(file, tmp_path / "whole")
    assert drivers(convert(tmp_path / "whole")[0]) == "ppppo|"
    with pytest.raises(BagError, match=r"no definition of the type of /add/_service_event"):
        convert(file, command="/add/_service_event")


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_tolerant_reader_qos_edited_in_metadata_is_read(
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
    assert drivers(steps) == "ppppo|" and not report.notes
    with open_bag(bag) as reader:
        counts: dict[str, int] = {}
        for connection in reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    assert counts["/arm/pose"] == sum(m[0] == "/arm/pose" for m in session(5))


def with_strange_channels(writer: McapWriter) -> None:
    """Topics that no ROS 2 bag has."""
    plain = writer.register_channel("/bytes", "cdr", 0)
    schema = writer.register_schema("thing", "jsonschema", b"{}")
    for channel in (plain, writer.register_channel("/json", "json", schema)):
        writer.add_message(channel, SECOND // 2, b"{}", 0)


@pytest.mark.parametrize("finished", [True, False])
def test_tolerant_reader_topics_not_of_ros_are_left_out(tmp_path: Path, finished: bool) -> None:
    """Regression: the whole bag was refused, or its repair ended in a traceback."""
    file = tmp_path / "strange.mcap"
    write_mcap(file, session(5), with_strange_channels, chunk_size=4096)
    if not finished:
        file.write_bytes(file.read_bytes()[:-4000])
    steps, report = convert(file)
    assert drivers(steps) == "ppppo|"
    notes = "\n".join(report.notes)
    assert "/bytes: its messages are without a schema" in notes
    assert "/json: its messages are in 'json', expected cdr" in notes
