"""Opening a bag and reading its messages: what is damaged in it is said, never silently dropped.

Definitions come from the bag. Where it has none, as SQLite bags up to Humble, they are those of
the distribution that recorded it, and of the packages that are installed here.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
import zstandard
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from mcap.exceptions import McapError
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from rlif_learner.bags_files import (
    MCAP,
    METADATA,
    SQLITE,
    ZSTD,
    BagError,
    storage_files,
    unfinished_files,
)
from rlif_learner.bags_repair import is_unordered, repair_bag

STEP_TYPE = "rlif_msgs/msg/Step"
_WITHOUT_NAME = "humble"  # bags without definitions that do not name their distribution


@contextmanager
def open_bag(path: Path, notes: list[str] | None = None) -> Iterator[AnyReader]:
    """A reader of one bag: a directory, an .mcap or .db3 file, or a ROS 1 .bag.

    An unfinished bag (a killed recorder) is read through a repaired copy in a temporary directory.
    `notes` takes what a person should know. BagError names the file and what to do.
    """
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    said = notes if notes is not None else []
    with ExitStack() as stack:
        readable = _readable(path, said, stack)
        try:
            reader = stack.enter_context(_reader(readable, path))
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            raise BagError(f"{path}: not a readable bag: {_words(error)}") from error
        _complete_types(reader, path)
        yield reader


def _readable(path: Path, notes: list[str], stack: ExitStack) -> list[Path]:
    """What the library can read of a bag: itself, or a copy that lives as long as `stack`."""
    why, loose = _unfinished(path), not (path / METADATA).exists() and path.is_dir()
    packed = loose and any(f.suffix == ZSTD for f in storage_files(path, SQLITE))
    logs, unordered = _write_ahead_logs(path), []
    if not why:
        unordered = [f for f in storage_files(path, MCAP) if is_unordered(f)]
    if not (why or unordered or logs or packed):
        return _loose(path, storage_files(path, SQLITE), notes) if loose else [path]
    temporary = Path(stack.enter_context(TemporaryDirectory(prefix="rlif-bag-")))
    try:
        if why or unordered:
            copy = temporary / "repaired"
            report = repair_bag(path, copy)
        else:
            copy = _sqlite_copy(path, temporary)
    except (OSError, zstandard.ZstdError) as error:
        raise BagError(
            f"{path}: no readable copy of it can be made in {temporary.parent}: {error}; TMPDIR "
            "names another directory for it"
        ) from error
    if why:
        names = ", ".join(f"{k}: {v}" for k, v in report.cut.items()) or why
        notes.append(
            f"{path} was not finished ({names}); read up to there. `rlif bag repair` makes it "
            "whole for good"
        )
    elif unordered:
        names = ", ".join(file.name for file in unordered)
        notes.append(f"{path}: {names}: not in the order of time; read through a sorted copy")
    elif logs:
        names = ", ".join(log.name for log in logs)
        notes.append(f"{path} was not closed; read with its write-ahead log ({names})")
    return _loose(path, storage_files(copy, SQLITE), notes) if loose and not why else [copy]


def _loose(path: Path, files: Sequence[Path], notes: list[str]) -> list[Path]:
    """The SQLite files of a bag without metadata.yaml that can be read. BagError if none can."""
    notes.append(f"{path} has no metadata.yaml: it was not finished; read from its files")
    found, problem = [], "no file in it"
    for file in files:
        try:
            with _reader([file], path):
                found.append(file)
        except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
            problem = f"{file.name}: {_words(error)}"
            notes.append(f"{path}: left out, not readable: {problem}")
    if not found:
        raise BagError(f"{path}: not a readable bag: {problem}")
    return found


@contextmanager
def _reader(paths: list[Path], bag: Path) -> Iterator[AnyReader]:
    """The library's, with types to fall back on only where the bag has none: they take time."""
    reader = AnyReader(paths)
    try:
        reader.open()
    except AnyReaderError as error:
        if "no type definitions" not in str(error):
            raise
        reader = AnyReader(paths, default_typestore=_fallback_types(bag))
        reader.open()
    with closing(reader):
        yield reader


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
            problem = _words(error)
            break
        found += 1
        yield connection, stamp, data
    lost = sum(c.msgcount for c in connections) - found
    if problem or lost > 0:
        topics = ", ".join(sorted({c.topic for c in connections}))
        notes.append(
            f"{path}: {topics}: damaged after {stamp} ns ({problem or 'the index promises more'}); "
            f"{max(0, lost)} of {found + max(0, lost)} messages cannot be read"
        )


def require_types(reader: AnyReader, path: Path, connections: Collection[Connection]) -> None:
    """BagError names the topics whose type nobody knows."""
    unknown = sorted(
        {f"{c.topic} ({c.msgtype})" for c in connections
         if c.msgtype not in reader.typestore.fielddefs}
    )  # fmt: skip
    if unknown:
        raise BagError(
            f"{path}: no definition of the type of {', '.join(unknown)}, in the bag or installed; "
            "source a workspace that has it"
        )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _unfinished(path: Path) -> str:
    """Why a bag has to be repaired before it is read; empty: it need not be."""
    files = storage_files(path, MCAP)
    if unfinished_files(path):
        return "no end"
    if not path.is_dir() or not files:
        return ""
    metadata = path / METADATA
    if not metadata.exists():
        return "no metadata.yaml"
    # Killed between two files, or before the last metadata.yaml: it lacks what came last.
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        known = content["rosbag2_bagfile_information"]
        listed = {Path(p).name for p in known["relative_file_paths"]}
        if listed == {f.name for f in files} and known["message_count"] == _counted(files):
            return ""
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        return f"metadata.yaml is damaged: {_words(error)}"
    return "metadata.yaml is older than the files" if "rlif" in _libraries(files) else ""


def _write_ahead_logs(path: Path) -> list[Path]:
    """What a killed `ros2 bag record` left beside its SQLite files: messages not yet in them."""
    logs = path.glob("*.db3-wal") if path.is_dir() else [path.with_name(f"{path.name}-wal")]
    return [log for log in logs if log.suffix == ".db3-wal" and log.exists() and log.stat().st_size]


def _sqlite_copy(path: Path, directory: Path) -> Path:
    """A copy of a SQLite bag, unpacked, with what is in its logs; the source stays as it is."""
    copy = directory / path.name
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, directory)
    if not (copy / METADATA).exists():  # what that lists, the library unpacks
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
    return copy


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


def _fallback_types(path: Path) -> Typestore:
    """Common messages of the distribution that recorded the bag."""
    name = _WITHOUT_NAME
    metadata = path / METADATA
    if metadata.is_file():
        try:
            content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
            name = content["rosbag2_bagfile_information"].get("ros_distro") or name
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
            pass  # the reader says what is wrong with it
    known = {store.value for store in Stores}
    return get_typestore(Stores(f"ros2_{name}" if f"ros2_{name}" in known else "ros2_humble"))


def _complete_types(reader: AnyReader, path: Path) -> None:
    """Types of topics that came without a definition, where they can be had."""
    missing = {c.msgtype for c in reader.connections} - set(reader.typestore.fielddefs)
    if not missing or not reader.is2:
        return
    store = _fallback_types(path)
    for kind in sorted(missing):
        if kind not in store.fielddefs:
            _add_installed(store, kind)
        if kind in store.fielddefs:
            new = {k: v for k, v in store.fielddefs.items() if k not in reader.typestore.fielddefs}
            reader.typestore.register(new)


def _add_installed(store: Typestore, kind: str) -> None:
    """The type `package/msg/Name` and those it uses, from the installed packages, if all are."""
    found: dict[str, str] = {}
    todo = [kind]
    try:
        while todo:
            name = todo.pop()
            package, _, short = name.split("/")
            text = (Path(get_package_share_directory(package)) / "msg" / f"{short}.msg").read_text()
            found[name] = text
            types = get_types_from_msg(text, name)
            used = {t for _, fields in types.values() for t in _named(fields)}
            todo += [t for t in used if t not in store.fielddefs and t not in found]
        for name, text in found.items():
            store.register(get_types_from_msg(text, name))
    except (PackageNotFoundError, LookupError, OSError, ValueError, TypesysError):
        return  # `require_types` names the topic


def _named(fields: object) -> Iterator[str]:
    """Names of message types in a library's description of fields."""
    if isinstance(fields, str):
        if fields.count("/") == 2:
            yield fields
    elif isinstance(fields, (list, tuple)):
        for part in fields:
            yield from _named(part)
