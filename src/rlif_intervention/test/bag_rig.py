# SPDX-License-Identifier: Apache-2.0
"""Topics, messages and readers that the tests of bags share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcap.records import Message
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic, qos_profile

BOOL = Topic(
    "/flag",
    "std_msgs/msg/Bool",
    "bool data\n",
    "RIHS01_feb91e995ff9ebd09c0cb3d2aed18b11077585839fb5db80193b62d74528f6c9",
    (qos_profile(depth=3),),
)
INT = Topic("/count", "std_msgs/msg/Int64", "int64 data\n", "", (qos_profile("best_effort"),))


def bool_message(value: bool) -> bytes:
    return b"\x00\x01\x00\x00" + bytes([value])


def int_message(value: int) -> bytes:
    return b"\x00\x01\x00\x00" + value.to_bytes(8, "little")


def config(path: Path, **settings: Any) -> BagConfig:
    return BagConfig(path / "bag", required_free_mib=0, **settings)


def write_some(writer: BagWriter, count: int = 100) -> list[tuple[str, int, bytes]]:
    written = []
    for topic in (BOOL, INT):
        writer.add_topic(topic)
    for i in range(count):
        topic, data = (BOOL, bool_message(i % 4 == 0)) if i % 2 else (INT, int_message(i))
        writer.write(topic.name, 1_000_000 + i, data)
        written.append((topic.name, 1_000_000 + i, data))
    return written


def read_all(directory: Path) -> list[tuple[str, int, bytes]]:
    with AnyReader([directory]) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


def messages_of_unfinished(path: Path) -> list[bytes]:
    """What a reader gets out of a file without an end."""
    found = []
    with path.open("rb") as stream:
        try:
            for record in StreamReader(stream).records:
                if isinstance(record, Message):
                    found.append(record.data)
        except Exception as error:  # noqa: BLE001  whatever a cut file makes the library raise
            assert not isinstance(error, AssertionError)
    return found
