# SPDX-License-Identifier: Apache-2.0
"""Bags that were not finished: what is whole in them becomes a whole bag.

The mcap package for Python has no `recover` (its command line, a program apart, has), rosbags and
`ros2 bag convert` refuse a file that is cut inside a record.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import Stores, TypesysError, get_typestore

from rlif_bags.reading.files import (
    MCAP,
    ZSTD,
    BagError,
    new_bag,
    refuse_existing,
    refuse_inside,
    storage_files,
    unpacked_message,
)
from rlif_bags.reading.types import definition_types

# What the library raises where a file ends in the middle of a record.
_CUT = (
    McapError, zstandard.ZstdError, struct.error, EOFError, ValueError, IndexError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class RepairReport:
    """kept: messages by topic; cut: what ended each unfinished file, by its name; left_out: why
    topics cannot be copied"""

    kept: Counter[str] = field(default_factory=Counter)
    cut: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What was cut off or left out, as lines of text."""
        return [
            f"{name}: {why}" for part in (self.cut, self.left_out) for name, why in part.items()
        ]


@contextmanager
def unpacked(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of an MCAP file, also of one that was compressed as a whole."""
    with file.open("rb") as stream:
        if file.suffix != ZSTD:
            yield stream
            return
        raw: Any = zstandard.open(stream, "rb")  # a raw stream, unlike its type
        with io.BufferedReader(raw) as whole:
            yield whole


def _whole_records(file: Path, cut: dict[str, str], chunks: bool = False) -> Iterator[McapRecord]:
    """Records up to the end or to where the file is cut; the latter is noted in `cut`.

    chunks: as they are stored, instead of the records in them
    """
    with unpacked(file) as stream:
        records = StreamReader(stream, validate_crcs=True, emit_chunks=chunks).records
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except _CUT as error:
                size = "" if file.suffix == ZSTD else f" of {file.stat().st_size}"
                reason = f"{type(error).__name__} {error}".rstrip()
                cut[file.name] = f"cut near byte {stream.tell()}{size}: {reason}"
                return
            yield record


def _first_content(file: Path) -> McapRecord | None:
    """The first chunk of an MCAP file, or its first message if that is in no chunk."""
    records = _whole_records(file, {}, chunks=True)
    return next((r for r in records if isinstance(r, (Chunk, Message))), None)


def _is_compressed(files: Sequence[Path]) -> bool:
    """Whether the chunks of these files are, by the first that there is."""
    contents = map(_first_content, files)
    return next((bool(c.compression) for c in contents if isinstance(c, Chunk)), False)


def is_unordered(file: Path) -> bool:
    """Whether a finished MCAP file has messages without chunks, and not by log time.

    The library reads such a file up to there: without chunks there is nothing to sort. The preset
    `fastwrite` of `ros2 bag record` writes none.
    """
    if not isinstance(_first_content(file), Message):
        return False
    newest = 0
    for record in _whole_records(file, {}):
        if isinstance(record, Message):
            if record.log_time < newest:
                return True
            newest = record.log_time
    return False


def _definition(channel: Channel, schema: Schema | None) -> tuple[str, str]:
    """Text and hash of a channel's type. ValueError where it has none that a bag can hold."""
    if schema is None or channel.message_encoding != "cdr":
        kind = "without a schema" if schema is None else f"in {channel.message_encoding!r}"
        raise ValueError(f"its messages are {kind}, expected cdr")
    if schema.encoding not in ("ros2msg", "ros2idl"):
        raise ValueError(f"its definition is in {schema.encoding!r}, expected ros2msg or ros2idl")
    text, known = schema.data.decode(), channel.metadata.get("topic_type_hash", "")
    if known and schema.encoding == "ros2msg":
        return text, known  # as it is, whether this library can read it or not
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(definition_types(text, schema.name, idl=schema.encoding == "ros2idl"))
        return store.generate_msgdef(schema.name, ros_version=2)[0], store.hash_rihs01(schema.name)
    except (TypesysError, LookupError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"its definition cannot be read: {reason}") from error


def _copy_file(
    file: Path, writer: Writer, connections: dict[tuple[str, str], Connection], report: RepairReport
) -> None:
    """Write the channels and messages of one file. connections: by topic and type, of all files."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Connection | None] = {}  # None: it cannot be copied

    def connect(channel: Channel) -> Connection | None:
        schema = schemas.get(channel.schema_id)
        key = (channel.topic, "" if schema is None else schema.name)
        if key not in connections:
            try:
                text, digest = _definition(channel, schema)
            except ValueError as error:
                report.left_out[channel.topic] = str(error)
                return None
            offered: list[Qos] = parse_qos(channel.metadata.get("offered_qos_profiles", ""))
            connections[key] = writer.add_connection(
                *key, msgdef=text, rihs01=digest, offered_qos_profiles=offered
            )
        return connections[key]

    for record in _whole_records(file, report.cut):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in channels:
            channels[record.id] = connect(record)
        elif isinstance(record, Message) and (connection := channels[record.channel_id]):
            writer.write(connection, record.log_time, unpacked_message(record.data))
            report.kept[connection.topic] += 1


def repair_bag(source: Path, output: Path, compress: bool = False) -> RepairReport:
    """Write all whole messages of `source` to the new bag `output`; `source` stays as it is.

    Its chunks are compressed (zstd) with `compress`, and where those of the source are.
    BagError if there is nothing to read, or `output` exists; OSError if it cannot be written.
    """
    files = storage_files(source, MCAP)
    if not files:
        raise BagError(f"{source}: found no MCAP file; only MCAP bags can be repaired")
    refuse_existing(output)
    refuse_inside([source], output)
    report, connections = RepairReport(), dict[tuple[str, str], Connection]()
    with new_bag(output, compress or _is_compressed(files)) as writer:
        for file in files:
            _copy_file(file, writer, connections, report)
        if not report.kept:
            details = "".join(f"; {line}" for line in report.lines())
            raise BagError(f"{source}: holds no whole message{details}")
    return report
