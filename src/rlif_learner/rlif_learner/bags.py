"""Steps out of bags, with nothing but the bag: definitions come from the bag itself, no ROS.

An unfinished bag (a killed recorder) is read through a repaired copy in a temporary directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError

from rlif_learner.bags_repair import BagError, mcap_files, repair_bag, unfinished_files
from rlif_learner.step_messages import record_from_message
from rlif_learner.steps import StepRecord

STEP_TYPE = "rlif_msgs/msg/Step"

__all__ = ["STEP_TYPE", "BagError", "StepReader", "bag_paths", "open_bag", "read_steps"]


@contextmanager
def open_bag(path: Path, notes: list[str] | None = None) -> Iterator[AnyReader]:
    """A reader of one bag: a directory, an .mcap or .db3 file, or a ROS 1 .bag.

    `notes` takes what a person should know. BagError names the file and what to do.
    """
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    with ExitStack() as stack:
        cut = unfinished_files(path)
        readable = path
        if cut or (path.is_dir() and not (path / "metadata.yaml").exists() and mcap_files(path)):
            temporary = stack.enter_context(TemporaryDirectory(prefix="rlif-bag-"))
            readable = Path(temporary) / "repaired"
            report = repair_bag(path, readable)
            if notes is not None:
                names = ", ".join(f"{k}: {v}" for k, v in report.cut.items()) or "no metadata.yaml"
                notes.append(
                    f"{path} was not finished ({names}); read up to there. `rlif bag repair` makes "
                    "it whole for good"
                )
        try:
            reader = stack.enter_context(AnyReader([readable]))
        except (AnyReaderError, ReaderError, OSError, AssertionError) as error:
            raise BagError(f"{path}: not a readable bag: {error}") from error
        yield reader


def bag_paths(paths: Iterable[Path | str]) -> list[Path]:
    """Bags among `paths`; a directory that holds bags and is none stands for all of them.

    BagError names a path at which there is no bag.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        if _is_bag(given):
            found.append(given)
            continue
        inside = sorted(p for p in given.iterdir() if _is_bag(p)) if given.is_dir() else []
        if not inside:
            raise BagError(
                f"{given}: found no bag, expected a rosbag2 directory, an .mcap, .db3 or .bag file"
            )
        found += inside
    return found


def _is_bag(path: Path) -> bool:
    if path.is_dir():
        return (path / "metadata.yaml").exists() or bool(mcap_files(path))
    return path.is_file() and path.suffix in (".mcap", ".db3", ".bag")


def step_connections(reader: AnyReader, path: Path, topic: str = "") -> list[Connection]:
    """The connections of the Steps. BagError lists what is there instead."""
    steps = [c for c in reader.connections if c.msgtype == STEP_TYPE]
    topics = sorted({c.topic for c in steps})
    if topic:
        steps = [c for c in steps if c.topic == topic]
    if not steps:
        there = sorted({f"{c.topic} ({c.msgtype})" for c in reader.connections})
        raise BagError(
            f"{path}: found no Steps{f' on {topic}' if topic else ''}, only {there}. A bag of "
            "something else becomes one of Steps with `rlif relabel --mapping`"
        )
    if not topic and len(topics) > 1:
        raise BagError(f"{path}: found Steps on {topics}; name one of them with --topic")
    return steps


@dataclass
class StepReader:
    """Steps of one bag, in order. Steps that cannot be used are left out, named and counted.

    topic: of the Steps; empty: the only one there is
    images: False leaves the images out of the records
    """

    path: Path
    topic: str = ""
    images: bool = True
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def raw(self) -> Iterator[tuple[int, bytes]]:
        """Log time in ns and the serialised Step, as recorded."""
        with open_bag(self.path, self.notes) as reader:
            connections = step_connections(reader, self.path, self.topic)
            for _, stamp, data in reader.messages(connections):
                yield stamp, bytes(data)

    def messages(self) -> Iterator[tuple[int, Any]]:
        """Log time in ns and the deserialised message (of the rosbags library)."""
        with open_bag(self.path, self.notes) as reader:
            connections = step_connections(reader, self.path, self.topic)
            for connection, stamp, data in reader.messages(connections):
                try:
                    message: Any = reader.deserialize(data, connection.msgtype)
                except (AnyReaderError, ValueError, IndexError) as error:
                    self._skip("not readable", connection.topic, stamp, str(error))
                    continue
                yield stamp, message

    def __iter__(self) -> Iterator[StepRecord]:
        sequence = -1
        for stamp, message in self.messages():
            if not self.images:
                message.images = []
            try:
                record = record_from_message(message)
            except ValueError as error:
                self._skip("not valid", self.topic or "Steps", stamp, str(error))
                continue
            if not (np.isfinite(record.state).all() and np.isfinite(record.action).all()):
                where = f"step {record.step_index} of episode {record.episode_id}"
                self._skip("not finite", self.topic or "Steps", stamp, where)
                continue
            if record.sequence <= sequence:
                self.notes.append(
                    f"{self.path}: at {stamp} ns the sequence goes from {sequence} to "
                    f"{record.sequence}: recorded by more than one recorder"
                )
            sequence = record.sequence
            yield record

    def _skip(self, why: str, topic: str, stamp: int, detail: str) -> None:
        self.skipped[why] += 1
        self.notes.append(f"{self.path}: {topic} at {stamp} ns left out, {why}: {detail}")


def read_steps(path: Path | str, topic: str = "") -> Iterator[StepRecord]:
    """The Steps of a bag; see StepReader for what is noted about them."""
    return iter(StepReader(Path(path), topic))
