"""Bags that were not finished: what is whole in them becomes a whole bag."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

_ZSTD = b"\x28\xb5\x2f\xfd"  # no CDR message begins like this
_MAGIC = b"\x89MCAP0\r\n"
# What the library raises where a file ends in the middle of a record.
_CUT = (
    McapError, zstandard.ZstdError, struct.error, EOFError, ValueError, IndexError, RuntimeError,
)  # fmt: skip


class BagError(RuntimeError):
    """A bag that cannot be read or written; the message names file and remedy."""


@dataclass(frozen=True)
class RepairReport:
    """kept: messages by topic; cut: what ended each unfinished file, by its name"""

    kept: dict[str, int]
    cut: dict[str, str]


def mcap_files(path: Path) -> list[Path]:
    """The MCAP files of a bag (a directory or one file), in the order of their numbers."""
    if path.is_file():
        return [path] if path.suffix == ".mcap" else []

    def number(file: Path) -> tuple[int, str]:
        tail = file.stem.rsplit("_", 1)[-1]
        return (int(tail) if tail.isdecimal() else -1, file.name)

    return sorted(path.glob("*.mcap"), key=number)


def is_finished(file: Path) -> bool:
    """Whether an MCAP file has its end, that is, its index."""
    size = file.stat().st_size
    if size < 2 * len(_MAGIC):
        return False
    with file.open("rb") as stream:
        stream.seek(size - len(_MAGIC))
        return stream.read() == _MAGIC


def unfinished_files(path: Path) -> list[Path]:
    """The MCAP files of a bag that have no end."""
    return [file for file in mcap_files(path) if not is_finished(file)]


def _whole_records(file: Path, cut: dict[str, str]) -> Iterator[McapRecord]:
    """Records up to the end or to where the file is cut; the latter is noted in `cut`."""
    with file.open("rb") as stream:
        records = StreamReader(stream, validate_crcs=True).records
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except _CUT as error:
                cut[file.name] = (
                    f"cut near byte {stream.tell()} of {file.stat().st_size}: "
                    f"{type(error).__name__} {error}".rstrip()
                )
                return
            yield record


def _is_compressed(files: Sequence[Path]) -> bool:
    """Whether the chunks of these files are, by the first that there is."""
    for file in files:
        with file.open("rb") as stream:
            try:
                for record in StreamReader(stream, emit_chunks=True).records:
                    if isinstance(record, Chunk):
                        return bool(record.compression)
            except _CUT:
                continue  # what is wrong with it, the copy says
    return False


def _hash(schema: Schema, channel: Channel) -> str:
    known = channel.metadata.get("topic_type_hash", "")
    if known:
        return known
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(schema.data.decode(), schema.name))
    return store.hash_rihs01(schema.name)


class _Copy:
    """Writes channels and messages of several files into one bag."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas: dict[int, Schema] = {}
        self._connections: dict[tuple[str, str], Connection] = {}
        self._by_channel: dict[int, Connection] = {}
        self.kept: Counter[str] = Counter()

    def begin_file(self) -> None:
        self._schemas, self._by_channel = {}, {}

    def take(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in self._by_channel:
            self._by_channel[record.id] = self._connection(record)
        elif isinstance(record, Message):
            connection = self._by_channel[record.channel_id]
            data = record.data
            if data.startswith(_ZSTD):  # recorded with `--compression-mode message`
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            self._writer.write(connection, record.log_time, data)
            self.kept[connection.topic] += 1

    def _connection(self, channel: Channel) -> Connection:
        schema = self._schemas[channel.schema_id]
        key = (channel.topic, schema.name)
        if key not in self._connections:
            offered: list[Qos] = parse_qos(channel.metadata.get("offered_qos_profiles", ""))
            self._connections[key] = self._writer.add_connection(
                channel.topic,
                schema.name,
                msgdef=schema.data.decode(),
                rihs01=_hash(schema, channel),
                offered_qos_profiles=offered,
            )
        return self._connections[key]


def repair_bag(source: Path, output: Path, compress: bool = False) -> RepairReport:
    """Write all whole messages of `source` to the new bag `output`; `source` stays as it is.

    Its chunks are compressed (zstd) with `compress`, and where those of the source are.
    The output appears under its name when it is complete. BagError if there is nothing to read,
    or `output` exists.
    """
    files = mcap_files(source)
    if not files:
        raise BagError(f"{source}: found no MCAP file; only MCAP bags can be repaired")
    if output.exists():
        raise BagError(f"{output} exists already; name another output")
    partial = output.with_name(f".partial-{output.name}")
    remove_abandoned(partial)
    cut: dict[str, str] = {}
    writer = Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP)
    if compress or _is_compressed(files):
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer, DirectoryLock(partial):
        copy = _Copy(writer)
        for file in files:
            copy.begin_file()
            for record in _whole_records(file, cut):
                copy.take(record)
    if not copy.kept:
        remove_bag(partial)
        raise BagError(f"{source}: holds no whole message; {cut}")
    rename_bag(partial, output)
    return RepairReport(dict(copy.kept), cut)


def rename_bag(partial: Path, output: Path) -> None:
    """Give a finished bag its name: the directory, its file, and metadata.yaml.

    The file gets a number as those of the recorder have: `ros2 bag reindex` finds no others.
    """
    old, new = f"{partial.name}.mcap", f"{output.name}_0.mcap"
    (partial / old).rename(partial / new)
    metadata = partial / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
    information = content["rosbag2_bagfile_information"]
    information["relative_file_paths"] = [new]
    for entry in information["files"]:
        entry["path"] = new
    metadata.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.rename(output)


def remove_bag(bag: Path) -> None:
    for file in bag.iterdir():
        file.unlink()
    bag.rmdir()


class DirectoryLock:
    """Marks a directory as being written by this process; whatever ends it, the mark goes too."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise
        except OSError as error:  # a network file system without locks: no mark, then
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):
                self.close()
                raise

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_abandoned(partial: Path) -> None:
    """Remove what a killed process left of an unfinished bag. BagError while one writes it."""
    if not partial.exists():
        return
    try:
        with DirectoryLock(partial):
            remove_bag(partial)
    except BlockingIOError:
        raise BagError(f"{partial} is being written by another process") from None
