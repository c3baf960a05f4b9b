# SPDX-License-Identifier: Apache-2.0
"""Opening a bag and reading its messages: damage is noted, never silently dropped.

What rosbags lacks, and is added here: it refuses an MCAP file without its end and a bag whose
metadata.yaml does not name its files; it ignores a SQLite file's write-ahead log; it reads a file
without chunks only in the order of its messages; and it ends at damage without an error.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
import zstandard
from mcap.exceptions import McapError
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from rlif_bags.reading.files import (
    MCAP,
    METADATA,
    ROS1,
    SQLITE,
    ZSTD,
    BagError,
    is_bag,
    is_one_recording,
    load_yaml,
    part_of,
    storage_files,
    unfinished_files,
    unpacked_message,
)
from rlif_bags.reading.repair import RepairReport, is_unordered, repair_bag
from rlif_bags.reading.tolerant_reader import open_reader
from rlif_bags.reading.types import complete_types

STEP_TYPE = "rlif_msgs/msg/Step"


@contextmanager
def open_bag(path: Path, notes: list[str] | None = None) -> Iterator[AnyReader]:
    """A reader of one bag: a directory, an .mcap or .db3 file, or a ROS 1 .bag.

    An unfinished bag (a killed recorder) is read through a repaired copy in a temporary directory.
    `notes` takes messages for the user. BagError names the file and what to do.
    """
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if not is_bag(path):
        raise BagError(f"{path}: is no bag; name one in it")
    noted = notes if notes is not None else []
    with ExitStack() as stack:
        readable = _readable(path, noted, stack)
        try:
            reader = stack.enter_context(open_reader(readable, path))
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            reader = _through_copy(path, readable, error, noted, stack)
        complete_types(reader, path)
        yield reader


def _through_copy(
    path: Path, readable: list[Path], error: Exception, notes: list[str], stack: ExitStack
) -> AnyReader:
    """A reader of the copy of a bag that the library cannot read as it is. BagError if it is none."""
    refused = BagError(f"{path}: not a readable bag: {_describe_error(error)}")
    if readable != [path] or not storage_files(path, MCAP):
        raise refused from error
    try:
        copy, report = _repaired(path, stack)
    except BagError:
        raise refused from error
    details = "".join(f"; {line}" for line in report.lines())
    notes.append(f"{path}: read through a copy, for {_describe_error(error)}{details}")
    return stack.enter_context(open_reader([copy], path))


def _readable(path: Path, notes: list[str], stack: ExitStack) -> list[Path]:
    """What the library can read of a bag: itself, or a copy that lives as long as `stack`."""
    if renamed := _renamed(path, notes):
        return renamed
    if files := storage_files(path, MCAP):
        return [_readable_mcap(path, files, notes, stack)]
    if files := storage_files(path, SQLITE):
        return _readable_sqlite(path, files, notes, stack)
    return storage_files(path, ROS1) or [path]


def _renamed(path: Path, notes: list[str]) -> list[Path]:
    """The files of a bag whose metadata.yaml names others, since they were renamed; else none.

    `ros2 bag` refuses such a bag; its content is in the files, too.
    """
    if not (path / METADATA).is_file():
        return []
    try:
        listed, _ = _listed(path)
    except BagError:  # the reader reports what is wrong with it
        return []
    files = [file for kind in (MCAP, SQLITE) for file in storage_files(path, kind)]
    if len(files) != len(listed) or not is_one_recording(files):
        return []
    if any(file.name in listed or file.suffix == ZSTD for file in files):
        return []
    if unfinished_files(path) or _write_ahead_logs(path):
        return []
    notes.append(
        f"{path}: metadata.yaml names {', '.join(sorted(listed))}, which is not there; read from "
        f"{', '.join(file.name for file in files)}"
    )
    return files


def _readable_mcap(path: Path, files: list[Path], notes: list[str], stack: ExitStack) -> Path:
    why = _unfinished(path, files, notes)
    unordered = [] if why else [file.name for file in files if is_unordered(file)]
    if not why and not unordered:
        return path
    copy, report = _repaired(path, stack)
    details = "; ".join(report.lines())
    if why:
        notes.append(
            f"{path} was not finished ({details or why}); read{' up to there' * bool(report.cut)} "
            "through a copy. `rlif bag repair` writes a finished bag"
        )
    else:
        notes.append(
            f"{path}: {', '.join(unordered)}: not in the order of time; read through a sorted copy"
            f"{f' ({details})' * bool(details)}"
        )
    return copy


def _readable_sqlite(
    path: Path, files: list[Path], notes: list[str], stack: ExitStack
) -> list[Path]:
    logs, loose = _write_ahead_logs(path), path.is_dir() and not (path / METADATA).exists()
    parts: list[Path] = []
    if path.is_dir() and not loose:
        with suppress(BagError):  # the library reports what is wrong with metadata.yaml
            parts = _unlisted(path, files, _listed(path)[0], notes)
    if logs or (loose and any(file.suffix == ZSTD for file in files)):
        path_of = _sqlite_copy(path, _temporary(stack), bool(loose or parts))
        files = storage_files(path_of, SQLITE)
        if logs:
            names = ", ".join(log.name for log in logs)
            notes.append(f"{path} was not closed; read with its write-ahead log ({names})")
    else:
        path_of = path
    if not loose and not parts:
        return [path_of]
    notes.append(
        f"{path} was not finished (no metadata.yaml{' of all files' * bool(parts)}); read from its "
        "files"
    )
    return _those_readable(path, files, notes)


def _those_readable(path: Path, files: Sequence[Path], notes: list[str]) -> list[Path]:
    """The SQLite files that can be read one by one. BagError if none can."""
    found, problem = [], ""
    for file in files:
        try:
            with open_reader([file], path):
                found.append(file)
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            problem = f"{file.name}: {_describe_error(error)}"
            notes.append(f"{path}: left out, not readable: {problem}")
    if not found:
        raise BagError(f"{path}: not a readable bag: {problem}")
    return found


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="rlif-bag-")))


def _repaired(path: Path, stack: ExitStack) -> tuple[Path, RepairReport]:
    """A whole copy of an MCAP bag. BagError if nothing in it can be copied, or it does not fit."""
    copy = _temporary(stack) / "repaired"
    try:
        return copy, repair_bag(path, copy)
    except OSError as error:
        raise _no_room(path, copy.parent, error) from error


def _no_room(path: Path, temporary: Path, error: Exception) -> BagError:
    return BagError(
        f"{path}: no readable copy of it can be made in {temporary.parent}: {error}; TMPDIR names "
        "another directory for it"
    )


def _listed(path: Path) -> tuple[set[str], int]:
    """Files and number of messages by metadata.yaml. BagError reports what is wrong with that."""
    try:
        content = load_yaml((path / METADATA).read_text(encoding="utf-8"))
        known = content["rosbag2_bagfile_information"]
        return {Path(p).name for p in known["relative_file_paths"]}, int(known["message_count"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise BagError(f"metadata.yaml is damaged: {_describe_error(error)}") from error


def _unlisted(path: Path, files: Sequence[Path], listed: set[str], notes: list[str]) -> list[Path]:
    """Parts of the recording that metadata.yaml does not name; others are noted, and not read."""
    recordings = {part_of(Path(name))[0] for name in listed}
    others = [file for file in files if file.name not in listed]
    parts = [file for file in others if part_of(file)[0] in recordings]
    if strange := sorted(file.name for file in others if file not in parts):
        notes.append(
            f"{path}: not read, since metadata.yaml does not name it: {', '.join(strange)}"
        )
    return parts


def read_messages(
    reader: AnyReader, path: Path, connections: Collection[Connection], notes: list[str]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Connection, log time (ns) and bytes of the messages, by log time.

    At damage it ends; a note tells where that was, and how many messages should have followed.
    """
    found, stamp = 0, 0
    messages = reader.messages(connections)
    while True:
        try:
            connection, stamp, data = next(messages)
        except StopIteration:
            problem = ""
            break
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            problem = _describe_error(error)
            break
        found += 1
        yield connection, stamp, unpacked_message(data)
    lost = sum(c.msgcount for c in connections) - found
    if problem or lost > 0:
        topics = ", ".join(sorted({c.topic for c in connections}))
        notes.append(
            f"{path}: {topics}: damaged after {stamp} ns ({problem or 'the index promises more'}); "
            f"{max(0, lost)} of {found + max(0, lost)} messages cannot be read"
        )


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _unfinished(path: Path, files: Sequence[Path], notes: list[str]) -> str:
    """Why an MCAP bag has to be repaired before it is read; empty: it need not be."""
    if unfinished_files(path):
        return "no end"
    if not path.is_dir():
        return ""
    if not (path / METADATA).exists():
        return "no metadata.yaml"
    # Killed between two files, or before the last metadata.yaml: it lacks what came last.
    try:
        listed, count = _listed(path)
    except BagError as error:
        return str(error)
    if _unlisted(path, files, listed, notes):
        return "metadata.yaml does not name all files"
    if "rlif" in _libraries(files) and count != _counted(files):
        return "metadata.yaml is older than the files"
    return ""


def _write_ahead_logs(path: Path) -> list[Path]:
    """What a killed `ros2 bag record` left beside its SQLite files: messages not yet in them."""
    logs = path.glob("*.db3-wal") if path.is_dir() else [path.with_name(f"{path.name}-wal")]
    return [log for log in logs if log.suffix == ".db3-wal" and log.exists() and log.stat().st_size]


def _sqlite_copy(path: Path, directory: Path, unpack: bool) -> Path:
    """A copy of a SQLite bag with what is in its logs; the source stays as it is.

    unpack: what is compressed, too; the library does that with what metadata.yaml names
    """
    copy = directory / path.name
    try:
        _copy_sqlite(path, copy, unpack)
    except (OSError, zstandard.ZstdError) as error:
        raise _no_room(path, directory, error) from error
    return copy


def _copy_sqlite(path: Path, copy: Path, unpack: bool) -> None:
    if path.is_dir():
        copy.mkdir()
        for file in path.iterdir():
            if file.is_file():
                shutil.copyfile(file, copy / file.name)  # without its mode: it is written to
    else:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copyfile(file, copy.parent / file.name)
    if unpack:
        for packed in copy.glob(f"*{SQLITE}{ZSTD}"):
            if not packed.with_suffix("").exists():
                with packed.open("rb") as stream, packed.with_suffix("").open("wb") as whole:
                    zstandard.ZstdDecompressor().copy_stream(stream, whole)
            packed.unlink()
    for file in [copy] if copy.is_file() else copy.glob(f"*{SQLITE}"):
        try:
            with closing(sqlite3.connect(file)) as database:
                database.execute("pragma wal_checkpoint(truncate)")
        except sqlite3.DatabaseError as error:
            raise BagError(f"{path}: not a readable bag: {file.name}: {error}") from error


def _counted(files: Collection[Path]) -> int:
    """Messages by the files' own statistics; -1 where one has none."""
    total = 0
    for file in files:
        with file.open("rb") as stream:
            try:
                summary = make_reader(stream).get_summary()
            except (McapError, ValueError, EOFError, OSError):
                return -1
        if summary is None or summary.statistics is None:
            return -1
        total += summary.statistics.message_count
    return total


def _libraries(files: Collection[Path]) -> set[str]:
    """Which programs wrote these files."""
    found = set()
    for file in files:
        with file.open("rb") as stream:
            try:
                found.add(make_reader(stream).get_header().library)
            except (McapError, ValueError, EOFError, OSError):
                continue
    return found
