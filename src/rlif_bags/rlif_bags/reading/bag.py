# SPDX-License-Identifier: Apache-2.0
"""An open bag and its messages, by log time: damage is noted, never silently dropped.

The rosbags library ends at damage without an error, and leaves the order of equal times to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError

from rlif_bags.reading.files import ROS1, BagError, unpacked_message
from rlif_bags.reading.types import bag_types


def file_reader(file: Path) -> Reader | Ros1Reader:
    """The library's reader of one file, not yet opened."""
    return Ros1Reader(file) if file.suffix == ROS1 else Reader(file)


class OpenBag:
    """The bag at `path`, read from `files` for as long as `stack` is open.

    `notes` takes messages for the user.

    connections: one for each topic and file; typestore: the types that could be had
    """

    def __init__(
        self, path: Path, files: Sequence[Path], notes: list[str], stack: ExitStack
    ) -> None:
        self.path, self.notes = path, notes
        readers: list[Any] = [stack.enter_context(file_reader(file)) for file in files]
        self.connections: list[Connection] = [c for r in readers for c in r.connections]
        self._ros2 = not any(file.suffix == ROS1 for file in files)
        self.typestore = bag_types(self.connections, path, self._ros2)

    def require_types(self, connections: Collection[Connection]) -> None:
        """BagError names the topics of unknown type."""
        known = self.typestore.fielddefs
        unknown = sorted(
            {f"{c.topic} ({c.msgtype})" for c in connections if c.msgtype not in known}
        )
        if unknown:
            raise BagError(
                f"{self.path}: no definition of the type of {', '.join(unknown)} that can be read, in "
                "the bag or installed; source a workspace that has it"
            )

    def messages(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, log time (ns) and bytes of the messages. Of equal times that of the first file
        is the first.

        At damage it ends; a note names the time, and how many messages should have followed.
        """
        owners: dict[int, Any] = {id(c.owner): c.owner for c in connections}
        streams = [f.messages([c for c in connections if c.owner is f]) for f in owners.values()]
        merged = merge(*streams, key=lambda message: message[1])
        found, stamp, problem = 0, 0, ""
        while True:
            try:
                connection, stamp, packed = next(merged)
                data = unpacked_message(packed)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - whatever damage makes the library raise
                problem = describe_error(error)
                break
            found += 1
            yield connection, stamp, data
        lost = sum(c.msgcount for c in connections) - found
        if problem or lost > 0:
            topics = ", ".join(sorted({c.topic for c in connections}))
            why = problem or "the index promises more"
            self.notes.append(
                f"{self.path}: {topics}: damaged after {stamp} ns ({why}); {max(0, lost)} of "
                f"{found + max(0, lost)} messages cannot be read"
            )

    def decoded(
        self, connections: Collection[Connection], refuse: Callable[[str, int, str], None]
    ) -> Iterator[tuple[Connection, int, Any]]:
        """As `messages`, decoded; `refuse` gets topic, log time and reason of one that cannot be."""
        store = self.typestore
        decode = store.deserialize_cdr if self._ros2 else store.deserialize_ros1
        for connection, stamp, data in self.messages(connections):
            try:
                message: Any = decode(data, connection.msgtype)
            except (SerdeError, ValueError, IndexError) as error:
                refuse(connection.topic, stamp, f"cannot be decoded: {error}")
                continue
            yield connection, stamp, message


def describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
