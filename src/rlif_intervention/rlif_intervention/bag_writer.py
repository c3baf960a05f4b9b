# SPDX-License-Identifier: Apache-2.0
"""Serialised messages into a rosbag2 bag (MCAP) that survives a crash; free of ROS.

A bag is a directory: `NAME_0.mcap`, `NAME_1.mcap` … and metadata.yaml. Once a second everything
goes to the operating system, so that a killed process loses at most that second; `rlif bag
repair` gives such a bag its index back. Not thread-safe: `BagRecorder` gives it a thread.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from mcap.writer import CompressionType, Writer

COMPRESSIONS = {
    "none": CompressionType.NONE,
    "zstd": CompressionType.ZSTD,
    "lz4": CompressionType.LZ4,
}
METADATA_VERSION = 9  # of Jazzy and later
_NEVER = 2**63 - 1
_FOREVER = {"sec": 9223372036, "nsec": 854775807}


class BagError(RuntimeError):
    """A bag cannot be written (any more), or not be read."""


@dataclass(frozen=True)
class BagConfig:
    """Where and how.

    directory: of the bag; must not exist yet
    compression: of the chunks: none, zstd or lz4
    split_mib, split_seconds: begin a new file after that much; 0: never
    required_free_mib: recording stops before the disk has less than this
    flush_period: s between two flushes: what a crash can cost
    """

    directory: Path
    compression: str = "none"
    chunk_kib: int = 1024
    split_mib: int = 0
    split_seconds: float = 0.0
    required_free_mib: int = 200
    flush_period: float = 1.0

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ValueError(
                f"compression: found {self.compression!r}, expected one of {sorted(COMPRESSIONS)}"
            )
        if self.directory.exists():
            raise ValueError(
                f"bag_directory: {self.directory} exists already; name another one, bags are "
                "never written over"
            )
        for name in ("split_mib", "split_seconds", "required_free_mib"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 or more")
        if self.chunk_kib < 1 or not self.flush_period > 0.0:
            raise ValueError(
                f"chunk_kib and flush_period: found {self.chunk_kib} and {self.flush_period}, "
                "expected more than 0"
            )


def qos_profile(
    reliability: str = "reliable",
    durability: str = "volatile",
    depth: int = 10,
    history: str = "keep_last",
) -> dict[str, Any]:
    """One offered QoS profile as metadata.yaml has it."""
    return {
        "history": history,
        "depth": depth,
        "reliability": reliability,
        "durability": durability,
        "deadline": dict(_FOREVER),
        "lifespan": dict(_FOREVER),
        "liveliness": "automatic",
        "liveliness_lease_duration": dict(_FOREVER),
        "avoid_ros_namespace_conventions": False,
    }


@dataclass(frozen=True)
class Topic:
    """What a bag knows of a topic.

    name: resolved, with a leading slash; definition: full text in the schema encoding `encoding`
    """

    name: str
    type: str
    definition: str
    hash: str = ""
    qos: tuple[Mapping[str, Any], ...] = ()
    encoding: str = "ros2msg"


@dataclass
class _Counts:
    """Of one file."""

    path: str
    first: int = _NEVER  # ns
    last: int = 0
    topics: dict[str, int] = field(default_factory=dict)

    def add(self, topic: str, time_ns: int) -> None:
        self.first, self.last = min(self.first, time_ns), max(self.last, time_ns)
        self.topics[topic] = self.topics.get(topic, 0) + 1

    @property
    def messages(self) -> int:
        return sum(self.topics.values())


def _span(counts: list[_Counts]) -> tuple[int, int]:
    """Start and duration in ns."""
    first = min((c.first for c in counts if c.messages), default=0)
    last = max((c.last for c in counts if c.messages), default=0)
    return first, max(0, last - first)


def bag_metadata(topics: Mapping[str, Topic], files: list[_Counts]) -> dict[str, Any]:
    """The content of metadata.yaml under `rosbag2_bagfile_information`."""
    totals: dict[str, int] = dict.fromkeys(topics, 0)
    for counts in files:
        for name, count in counts.topics.items():
            totals[name] += count
    start, duration = _span(files)
    return {
        "version": METADATA_VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": duration},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(totals.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [dict(q) for q in topic.qos],
                    "type_description_hash": topic.hash,
                },
                "message_count": totals[topic.name],
            }
            for topic in topics.values()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [c.path for c in files],
        "files": [
            {
                "path": c.path,
                "starting_time": {"nanoseconds_since_epoch": _span([c])[0]},
                "duration": {"nanoseconds": _span([c])[1]},
                "message_count": c.messages,
            }
            for c in files
        ],
        "custom_data": None,
        "ros_distro": os.environ.get("ROS_DISTRO", "unknown"),
    }


class BagWriter:
    """One bag. `write` may raise OSError (full disk) and BagError; `close` always ends it."""

    def __init__(
        self,
        config: BagConfig,
        open_file: Callable[[Path], BinaryIO] = lambda path: path.open("xb"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.bytes_written = 0
        self._open_file, self._clock = open_file, clock
        self._topics: dict[str, Topic] = {}
        self._channels: dict[str, int] = {}
        self._files: list[_Counts] = []
        self._stream: BinaryIO | None = None
        self._writer: Writer | None = None
        self._opened = self._flushed = clock()
        self._done = 0  # bytes of finished files
        self._unflushed: Counter[str] = Counter()  # messages by topic
        self.abandoned: Counter[str] = Counter()  # those that a full disk may not have taken
        try:
            config.directory.mkdir(parents=True)
        except FileExistsError:
            raise BagError(f"{config.directory} exists already; name another one") from None
        self._begin_file()
        self._write_metadata()

    @property
    def message_count(self) -> int:
        return sum(c.messages for c in self._files) - self.abandoned.total()

    def add_topic(self, topic: Topic) -> None:
        """Make a topic known; a second time is ignored."""
        if topic.name not in self._topics:
            self._topics[topic.name] = topic
            self._register(topic)

    def write(self, topic: str, time_ns: int, data: bytes, publish_ns: int | None = None) -> None:
        """Append one CDR message of a known topic, received at `time_ns`."""
        assert self._writer is not None, "the bag is closed"
        self._writer.add_message(
            channel_id=self._channels[topic],
            log_time=time_ns,
            data=data,
            publish_time=time_ns if publish_ns is None else publish_ns,
        )
        self._files[-1].add(topic, time_ns)
        self._unflushed[topic] += 1

    def flush_if_due(self) -> None:
        """Once per `flush_period`: hand all to the operating system, watch the disk, split."""
        now = self._clock()
        if now - self._flushed < self.config.flush_period:
            return
        self._flushed = now
        self.flush()
        free = shutil.disk_usage(self.config.directory).free
        if free < self.config.required_free_mib * 2**20:
            raise BagError(
                f"the disk of {self.config.directory} has {free // 2**20} MiB left, fewer than the "
                f"{self.config.required_free_mib} of required_free_mib: recording stops"
            )
        assert self._stream is not None
        size, age = self._stream.tell(), now - self._opened
        if 0 < self.config.split_mib * 2**20 <= size or 0.0 < self.config.split_seconds <= age:
            self._end_file()
            self._begin_file()
        self._write_metadata()

    def flush(self) -> None:
        assert self._writer is not None and self._stream is not None, "the bag is closed"
        self._writer.flush()
        self._stream.flush()
        self._unflushed.clear()
        self.bytes_written = self._done + self._stream.tell()

    def close(self) -> None:
        """Write index and metadata. Raises what the disk raises, after letting go of the file."""
        if self._writer is None:
            return
        try:
            self._end_file()
        finally:
            if self._stream is not None:
                self._abandon()
            self._write_metadata(final=True)

    def _abandon(self) -> None:
        """Close the file as it is, without an index: there is no room for one."""
        assert self._stream is not None
        raw = getattr(self._stream, "raw", self._stream)
        raw.close()  # below the buffer: what is in it cannot be written
        self.abandoned = Counter(self._unflushed)
        self._writer = self._stream = None

    def _begin_file(self) -> None:
        directory = self.config.directory
        name = f"{directory.name}_{len(self._files)}.mcap"
        self._stream = self._open_file(directory / name)
        self._writer = Writer(
            self._stream,
            chunk_size=self.config.chunk_kib * 1024,
            compression=COMPRESSIONS[self.config.compression],
        )
        self._writer.start(profile="ros2", library="rlif")
        self._files.append(_Counts(name))
        self._opened = self._clock()
        self._channels, self._schemas = {}, dict[str, int]()
        for topic in self._topics.values():
            self._register(topic)

    def _end_file(self) -> None:
        assert self._writer is not None and self._stream is not None
        text = yaml.safe_dump(bag_metadata(self._topics, self._files), sort_keys=False)
        self._writer.add_metadata("rosbag2", {"serialized_metadata": text})
        self._writer.finish()
        self._stream.flush()
        self._unflushed.clear()
        self._done += self._stream.tell()
        self.bytes_written = self._done
        self._stream.close()
        self._writer = self._stream = None

    def _register(self, topic: Topic) -> None:
        assert self._writer is not None, "the bag is closed"
        if topic.type not in self._schemas:
            self._schemas[topic.type] = self._writer.register_schema(
                topic.type, topic.encoding, topic.definition.encode()
            )
        profiles = yaml.safe_dump([dict(q) for q in topic.qos]) if topic.qos else ""
        self._channels[topic.name] = self._writer.register_channel(
            topic.name,
            "cdr",
            self._schemas[topic.type],
            {"offered_qos_profiles": profiles, "topic_type_hash": topic.hash},
        )

    def _write_metadata(self, final: bool = False) -> None:
        """Replace metadata.yaml in one go. JSON, a subset of YAML, while it is written often."""
        content = {"rosbag2_bagfile_information": bag_metadata(self._topics, self._files)}
        text = yaml.safe_dump(content, sort_keys=False) if final else json.dumps(content)
        path = self.config.directory / "metadata.yaml"
        temporary = path.with_suffix(".yaml.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
