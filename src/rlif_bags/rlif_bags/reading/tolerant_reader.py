# SPDX-License-Identifier: Apache-2.0
"""The library's reader, for bags that are not quite as it expects them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.typesys import Stores, get_typestore

from rlif_bags.reading.types import definition_types, fallback_types

_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


@contextmanager
def open_reader(paths: list[Path], bag: Path) -> Iterator[AnyReader]:
    """A reader of these files or directories, with types to fall back on where `bag` has none.

    Those are looked up only then: it takes time.
    """
    reader = _any_reader(paths)
    try:
        reader.open()
    except AnyReaderError as error:
        if "no type definitions" not in str(error):
            raise
        reader = _any_reader(paths, bag)
        reader.open()
    with closing(reader):
        yield reader


def _any_reader(paths: list[Path], bag: Path | None = None) -> AnyReader:
    """With the types of `bag`'s distribution, if it is named."""
    types = None if bag is None else fallback_types(bag)
    reader = AnyReader(paths, default_typestore=types)
    if reader.is2:
        reader.readers = [TolerantReader(path) for path in paths]
    return reader


class TolerantReader(Reader):
    """Lists connections so that a bag is not refused, or a topic left out, for a detail.

    A definition that cannot be read (of a service's events, of Jazzy) makes the library refuse the
    whole bag: that topic gets none. And of a topic it reads nothing where metadata.yaml and a file
    have other QoS, as in bags of before Foxy, or an edited metadata.yaml: the file's count.
    """

    _listed: list[Connection] | None = None

    @property
    def connections(self) -> list[Connection]:
        if self._listed is None:
            found = super().connections
            if isinstance(self.storage, DirectoryReader):
                found = _as_in_files(self.storage, found)
            self._listed = [_readable(connection) for connection in found]
        return self._listed


def _as_in_files(storage: DirectoryReader, listed: Sequence[Connection]) -> list[Connection]:
    """Those of metadata.yaml, or if they do not stand for all that is in the files, of both."""
    found = list(listed)
    own = [c for file in storage.storages for c in file.connections if c.msgcount]
    for connection in own:
        if not any(_stands_for(c, connection) for c in found):
            number = max((c.id for c in found), default=0) + 1
            found.append(connection._replace(id=number, owner=storage))
    if len(found) == len(listed):
        return found
    counts = [0] * len(found)
    for connection in own:
        at = next(i for i, c in enumerate(found) if _stands_for(c, connection))
        counts[at] += connection.msgcount
    return [c._replace(msgcount=count) for c, count in zip(found, counts, strict=True)]


def _stands_for(listed: Connection, own: Connection) -> bool:
    """By the library's own rule."""
    return (
        listed.topic == own.topic
        and listed.msgtype == own.msgtype
        and listed.ext == own.ext
        and (not own.digest or not listed.digest or own.digest == listed.digest)
    )


def _readable(connection: Connection) -> Connection:
    """The same without its definition, if the library would fail on that."""
    definition = connection.msgdef
    if definition.format == MessageDefinitionFormat.NONE:
        return connection
    idl = definition.format == MessageDefinitionFormat.IDL
    if _is_readable(definition.data, connection.msgtype, idl, connection.digest):
        return connection
    return connection._replace(msgdef=_NO_DEFINITION, digest="")


@functools.lru_cache(maxsize=256)  # many bags of the same topics are opened one after another
def _is_readable(text: str, name: str, idl: bool, digest: str) -> bool:
    """Whether the library can register this definition, and it has the hash `digest` (or none)."""
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(definition_types(text, name, idl))
        return not digest or bool(store.hash_rihs01(name) == digest)
    except Exception:  # noqa: BLE001 - whatever it is in a definition that makes the library raise
        return False
