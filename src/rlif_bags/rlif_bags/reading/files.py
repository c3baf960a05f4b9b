# SPDX-License-Identifier: Apache-2.0
"""The files of a bag: which there are, which of them are finished; names, locks and left-overs."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import yaml
import zstandard
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

_MAGIC = b"\x89MCAP0\r\n"
# What NumPy raises where a file of arrays is none, or is cut.
NOT_ARRAYS = (OSError, KeyError, ValueError, AttributeError, TypeError, EOFError, BadZipFile,
              zlib.error)  # fmt: skip
MCAP, SQLITE, ZSTD = ".mcap", ".db3", ".zstd"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins like this
ROS1 = ".bag"
STORAGE = (MCAP, SQLITE, ROS1)
METADATA = "metadata.yaml"


class BagError(RuntimeError):
    """A bag that cannot be read or written; the message names file and remedy."""


@contextmanager
def bag_errors(where: str, *kinds: type[Exception], remedy: str = "") -> Iterator[None]:
    """What raises one of these errors is reported as a BagError, as `where: error; remedy`."""
    try:
        yield
    except kinds as error:
        raise BagError(f"{where}: {error}{remedy and '; '}{remedy}") from error


def unpacked_message(data: bytes) -> bytes:
    """The same, or what is in it: `--compression-mode message`."""
    if data[:4] == _ZSTD_MAGIC:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def storage_files(path: Path, kind: str) -> list[Path]:
    """The files of a bag (a directory or one file) that are of a kind, in the order of numbers.

    `ros2 bag record --compression-mode file` compresses a file that it has closed, and removes it
    when that is done: while both are there, the compressed one may be half.
    """
    if path.is_file():
        return [path] if path.name.removesuffix(ZSTD).endswith(kind) else []

    plain = set(path.glob(f"*{kind}"))
    packed = {f for f in path.glob(f"*{kind}{ZSTD}") if f.with_suffix("") not in plain}
    return sorted(plain | packed, key=lambda file: (part_of(file)[1], file.name))


def is_finished(file: Path) -> bool:
    """Whether an MCAP file has its end, that is, its index."""
    size = file.stat().st_size
    if size < 2 * len(_MAGIC):
        return False
    with file.open("rb") as stream:
        stream.seek(size - len(_MAGIC))
        return stream.read() == _MAGIC


def part_of(file: Path) -> tuple[str, int]:
    """The name of the recording that a file is a part of, and which part: its number, -1 for none."""
    stem = file.name.removesuffix(ZSTD).removesuffix(MCAP).removesuffix(SQLITE)
    recording, _, tail = stem.rpartition("_")
    return (recording, int(tail)) if tail.isdecimal() else (stem, -1)


def is_one_recording(files: Sequence[Path]) -> bool:
    """Whether files without metadata.yaml are the parts of one: numbered on, with one name."""
    parts = [part_of(file) for file in files]
    numbers = sorted(number for _, number in parts)
    numbered = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return len({recording for recording, _ in parts}) == 1 and numbered


def is_bag(path: Path) -> bool:
    """A directory with the files of one recording, or one such file; not a directory of bags."""
    if not path.is_dir():
        return path.is_file() and path.name.removesuffix(ZSTD).endswith(STORAGE)
    files = files_in(path)
    if _has_metadata(path):
        return True
    kinds = {file.name.removesuffix(ZSTD).rpartition(".")[2] for file in files}
    if len(kinds) != 1 or not is_one_recording(files):
        return False
    # A hidden directory is what a killed process has left unfinished.
    inner = [d for d in path.iterdir() if d.is_dir() and not d.name.startswith(".")]
    return not any(_has_metadata(directory) or files_in(directory) for directory in inner)


def _has_metadata(directory: Path) -> bool:
    return os.access(directory, os.X_OK) and (directory / METADATA).exists()


def files_in(bag: Path) -> list[Path]:
    """The storage files of a bag; none in a directory that may not be read, such as lost+found."""
    if bag.is_dir() and not os.access(bag, os.R_OK | os.X_OK):
        return []
    return [file for kind in STORAGE for file in storage_files(bag, kind)]


def bag_paths(paths: Iterable[Path | str]) -> list[Path]:
    """Bags among `paths`, each once; a directory that holds bags and is none stands for all of them.

    BagError names a path at which there is no bag.
    """
    found, problems = find_bags(paths)
    if problems:
        raise BagError(problems[0])
    return found


def find_bags(paths: Iterable[Path | str]) -> tuple[list[Path], list[str]]:
    """As bag_paths, with a message for each path at which there is no bag."""
    found: dict[Path, Path] = {}
    problems: list[str] = []
    for given in map(Path, paths):
        inside = [given] if is_bag(given) else []
        if not inside and given.is_dir() and os.access(given, os.R_OK):
            inside = [p for p in sorted(given.iterdir()) if p.name[0] != "." and is_bag(p)]
        for bag in inside:
            found.setdefault(bag.resolve(), bag)
        if not inside:
            problems.append(
                f"{given}: found no bag, expected a rosbag2 directory, an .mcap, .db3 or .bag file"
            )
    return list(found.values()), problems


def one_bag(path: Path) -> Path:
    """The bag at `path`, or the only one in that directory. BagError where it is not one."""
    found = bag_paths([path])
    if len(found) > 1:
        names = ", ".join(bag.name for bag in found)
        raise BagError(f"{path}: found {len(found)} bags, {names}; name one of them")
    return found[0]


def bag_name(bag: Path) -> str:
    """What is made of a bag is called after this: its name, without the ending of a file.

    Each run has a directory `bag`: one that is called so goes by the name of the run.
    """
    whole = bag.absolute()  # `.` has a name too; a link goes by its own
    whole = whole.resolve() if ".." in whole.parts else whole
    name = whole.name.removesuffix(ZSTD)
    name = Path(name).stem if bag.is_file() else name
    return whole.parent.name if name == "bag" and whole.parent.name else name


def source_files(bag: Path) -> dict[str, Any]:
    """A bag by its path, and the sizes and times of its files."""
    files = [bag]
    if bag.is_dir():
        known = (MCAP, SQLITE, ZSTD, f"{SQLITE}-wal")
        files = sorted(f for f in bag.iterdir() if f.suffix in known or f.name == METADATA)
    return {
        "bag": str(bag.resolve()),
        "files": {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files},
    }


def refuse_inside(sources: Iterable[Path], output: Path) -> None:
    """BagError where `output` lies in a source, or in the directory of any bag: none is changed."""
    whole = output.resolve()
    directories = {source.resolve() for source in sources if source.is_dir()}
    for directory in (whole, *whole.parents):
        if directory in directories or (_has_metadata(directory) and files_in(directory)):
            raise BagError(
                f"{output}: nothing is written into {directory}, which is a source or a bag; name "
                "another output with -o"
            )


def read_metadata(bag: Path) -> dict[str, Any]:
    """The content of metadata.yaml. BagError where there is none, or it is damaged."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # it is read at each opening
    try:
        text = (bag / METADATA).read_text(encoding="utf-8")
        return dict(yaml.load(text, loader)["rosbag2_bagfile_information"])  # noqa: S506
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise BagError("no metadata.yaml") from error
        raise BagError(f"metadata.yaml is damaged: {type(error).__name__}: {error}") from error


def refuse_equal_names(bags: Iterable[Path], name_of: Callable[[Path], str]) -> None:
    """BagError where the outputs of two bags would have the same name."""
    seen: dict[str, Path] = {}
    for bag in bags:
        name = name_of(bag)
        if name in seen:
            raise BagError(
                f"{bag} and {seen[name]} would both become {name}; name them in two calls, with "
                "another -o"
            )
        seen[name] = bag


@contextmanager
def directory_lock(directory: Path, wait: bool = False) -> Iterator[None]:
    """Marks a directory as being written by this process; whatever ends it, the mark goes too.

    BagError where another one does, unless to `wait` for it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BagError(f"{directory} is being written by another process") from None
        except OSError as error:  # a network file system without locks: no mark, then
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):
                raise
        yield
    finally:
        os.close(descriptor)


def refuse_existing(output: Path) -> None:
    if output.exists():
        raise BagError(f"{output} exists already; name another output")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write a file that replaces `path` when it is complete."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def partial_directory(output: Path) -> Iterator[Path]:
    """Where to prepare `output`; whatever is there in the end is removed.

    What a killed process left there goes first. BagError where `output` exists, or another process
    is writing it.
    """
    refuse_existing(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".partial-{output.name}")
    partial.mkdir(exist_ok=True)
    with directory_lock(partial):
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield partial
        finally:
            if partial.exists():
                shutil.rmtree(partial)


@contextmanager
def new_directory(output: Path) -> Iterator[Path]:
    """A directory to fill, that appears as `output` when it is complete, or not at all."""
    with partial_directory(output) as partial:
        yield partial
        refuse_existing(output)
        partial.rename(output)


@contextmanager
def new_bag(output: Path, compress: bool = False) -> Iterator[Writer]:
    """The writer of an MCAP bag that appears as `output` when it is complete, or not at all.

    Its file has a number, as those of the recorder: `ros2 bag reindex` finds no others.
    """
    with partial_directory(output) as partial:
        writer = Writer(partial / f"{output.name}_0", version=9, storage_plugin=StoragePlugin.MCAP)
        if compress:
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            yield writer
        refuse_existing(output)
        writer.path.rename(output)
