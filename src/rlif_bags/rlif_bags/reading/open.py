# SPDX-License-Identifier: Apache-2.0
"""Opening a bag: what is damaged or unfinished is read as far as it goes, with a note.

A bag is read from its files one by one, and merged by log time. The rosbags library reads what
metadata.yaml names instead, and refuses a bag where that is missing, damaged, older than the files,
or names others. What it lacks for the files themselves is added here: it refuses an MCAP file
without its end, reads one without chunks only in the order of its messages, and ignores a SQLite
file's write-ahead log.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from rlif_bags.reading.bag import OpenBag, describe_error, file_reader
from rlif_bags.reading.files import (
    MCAP,
    ROS1,
    SQLITE,
    STORAGE,
    ZSTD,
    BagError,
    bag_errors,
    is_bag,
    is_finished,
    part_of,
    read_metadata,
    storage_files,
)
from rlif_bags.reading.repair import is_unordered, repair_bag, unpacked

STEP_TYPE = "rlif_msgs/msg/Step"


@contextmanager
def open_bag(path: Path, notes: list[str] | None = None) -> Iterator[OpenBag]:
    """One bag: a directory, an .mcap or .db3 file, or a ROS 1 .bag.

    What the library cannot read as it is, it reads through a copy in a temporary directory.
    `notes` takes messages for the user. BagError names the file and what to do.
    """
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if not is_bag(path):
        raise BagError(f"{path}: is no bag; name one in it")
    noted = notes if notes is not None else []
    with ExitStack() as stack:
        files = _Files(path, noted, stack)
        listed, count = _listed(path, noted)
        recorded = _recorded(path, listed, noted)
        readable = [whole for file in recorded for whole in files.readable(file)]
        if not readable:
            problems = "; ".join(files.problems) or "it has no files"
            raise BagError(f"{path}: not a readable bag: {problems}")
        bag = OpenBag(path, readable, noted, stack)
        named = listed == {file.name.removesuffix(ZSTD) for file in recorded}
        if named and count < sum(c.msgcount for c in bag.connections):
            noted.append(f"{path}: metadata.yaml is older than the files; read from these")
        yield bag


def _listed(path: Path, notes: list[str]) -> tuple[set[str], int]:
    """Names and number of messages by metadata.yaml; none and -1 where there is no (readable) one."""
    if not path.is_dir() or storage_files(path, ROS1):
        return set(), -1
    try:
        known = read_metadata(path)
        names = {Path(name).name.removesuffix(ZSTD) for name in known["relative_file_paths"]}
        return names, int(known["message_count"])
    except (BagError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, BagError) else "metadata.yaml is damaged"
        notes.append(f"{path} was not finished ({reason}); read from its files")
    return set(), -1


def _recorded(path: Path, listed: set[str], notes: list[str]) -> list[Path]:
    """The files of a bag. Those of the same recording that metadata.yaml does not name are read
    too; those of another one are not, unless it names none of all."""
    files = next((found for kind in STORAGE if (found := storage_files(path, kind))), [])
    names = {file: file.name.removesuffix(ZSTD) for file in files}
    gone = sorted(listed - set(names.values()))
    if len(gone) < len(listed):
        recordings = {part_of(Path(name))[0] for name in listed}
        own = [file for file in files if part_of(file)[0] in recordings]
        if others := sorted({file.name for file in files} - {file.name for file in own}):
            notes.append(
                f"{path}: not read, since metadata.yaml does not name it: {', '.join(others)}"
            )
        if any(names[file] not in listed for file in own):
            notes.append(f"{path} was not finished (metadata.yaml does not name all files)")
        files = own
    if gone:
        notes.append(
            f"{path}: metadata.yaml names {', '.join(gone)}, which is not there; read from "
            f"{', '.join(file.name for file in files)}"
        )
    return files


class _Files:
    """The files of the bag at `path`, or copies of them that live as long as `stack`.

    problems: why files cannot be read at all
    """

    def __init__(self, path: Path, notes: list[str], stack: ExitStack) -> None:
        self._path, self._notes, self._stack = path, notes, stack
        self.problems: list[str] = []

    def readable(self, file: Path) -> list[Path]:
        """The file, or a copy of what is whole in it; nothing if nothing is."""
        log = file.with_name(f"{file.name}-wal")
        if file.suffix == ZSTD:
            file = self._unpacked(file)
        if file.suffix == MCAP and not is_finished(file):
            return self._whole(file, "was not finished, read up to there through a copy")
        if file.suffix == MCAP and is_unordered(file):
            return self._whole(file, "not in the order of time; read through a sorted copy")
        if file.suffix == SQLITE and log.exists() and log.stat().st_size:
            self._notes.append(
                f"{self._path} was not closed; read with its write-ahead log ({log.name})"
            )
            file = with_log(file, self._temporary())
        try:
            with file_reader(file):
                return [file]
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            problem = describe_error(error)
        if file.suffix == MCAP:
            return self._whole(file, f"read through a copy, for {problem}")
        self._leave_out(f"{file.name}: {problem}")
        return []

    def _leave_out(self, problem: str) -> None:
        self.problems.append(problem)
        self._notes.append(f"{self._path}: left out, not readable: {problem}")

    def _temporary(self) -> Path:
        return Path(self._stack.enter_context(TemporaryDirectory(prefix="rlif-bag-")))

    def _unpacked(self, file: Path) -> Path:
        """The file as it was before it was compressed, as far as it goes."""
        copy = self._temporary() / file.stem
        cut = suppress(zstandard.ZstdError)
        with cut, self._room(copy), unpacked(file) as stream, copy.open("wb") as whole:
            shutil.copyfileobj(stream, whole)
        return copy

    def _whole(self, file: Path, why: str) -> list[Path]:
        """A copy of what is whole in an MCAP file; nothing if that is nothing."""
        copy = self._temporary() / "repaired"
        try:
            with self._room(copy):
                report = repair_bag(file, copy)
        except BagError as error:
            self._leave_out(str(error))
            return []
        details = f" ({'; '.join(report.lines())})" * bool(report.lines())
        hint = "; `rlif bag repair` writes a finished bag" * ("not finished" in why)
        self._notes.append(f"{self._path}: {file.name} {why}{details}{hint}")
        return storage_files(copy, MCAP)

    def _room(self, copy: Path) -> AbstractContextManager[None]:
        """BagError where there is no room for a copy."""
        where = f"{self._path}: no copy of it can be made in {copy.parent.parent}"
        return bag_errors(where, OSError, remedy="TMPDIR names another directory for it")


def with_log(file: Path, directory: Path) -> Path:
    """A copy of a SQLite file with the messages that are in its write-ahead log only."""
    for part in (file, file.with_name(f"{file.name}-wal")):
        shutil.copyfile(part, directory / part.name)  # without its mode: it is written to
    copy = directory / file.name
    unreadable = bag_errors(f"{file}: not a readable bag", sqlite3.DatabaseError)
    with unreadable, closing(sqlite3.connect(copy)) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    return copy
