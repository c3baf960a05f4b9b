# SPDX-License-Identifier: Apache-2.0
"""The definitions of a bag's messages, where rosbags asks for more than there is.

One that cannot be read (of a service's events, of Jazzy) makes the library refuse the whole bag:
here it costs its topic only. SQLite bags up to Humble have none at all: they are those of the
distribution that recorded the bag, and of the packages that are installed here.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.interfaces.typing import Typesdict
from rosbags.rosbag2 import Reader
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from rlif_bags.reading.files import BagError, read_metadata
from rlif_intervention.message_definitions import definition

_WITHOUT_NAME = "humble"  # bags without definitions that do not name their distribution
_IDL = "=" * 80 + "\nIDL: "  # before the name of each of several definitions


def definition_types(text: str, name: str, idl: bool) -> Typesdict:
    """The types that a definition brings along. Raises what the library does where it is none."""
    if not idl:
        return get_types_from_msg(text, name)
    whole = text.split(_IDL)
    texts = [part.partition("\n")[2] for part in whole[1:]] or whole
    return {kind: fields for one in texts for kind, fields in get_types_from_idl(one).items()}


class TolerantReader(Reader):
    """Reads a file whose definitions cannot all be read: those topics get none."""

    _listed: list[Connection] | None = None

    @property
    def connections(self) -> list[Connection]:
        if self._listed is None:
            self._listed = [_without_unreadable(c) for c in super().connections]
        return self._listed


def any_reader(files: list[Path]) -> AnyReader:
    """A reader of these files, not yet opened. Types that are missing: see `complete_types`."""
    reader = AnyReader(files, default_typestore=get_typestore(Stores.EMPTY))
    if reader.is2:
        reader.readers = [TolerantReader(file) for file in files]
    return reader


def _without_unreadable(connection: Connection) -> Connection:
    """The same without its definition, if the library would fail on that."""
    definition = connection.msgdef
    if definition.format == MessageDefinitionFormat.NONE:
        return connection
    idl = definition.format == MessageDefinitionFormat.IDL
    if _is_readable(definition.data, connection.msgtype, idl, connection.digest):
        return connection
    none = MessageDefinition(MessageDefinitionFormat.NONE, "")
    return connection._replace(msgdef=none, digest="")


@functools.lru_cache(maxsize=256)  # many bags of the same topics are opened one after another
def _is_readable(text: str, name: str, idl: bool, digest: str) -> bool:
    """Whether the library can register this definition, and it has the hash `digest` (or none)."""
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(definition_types(text, name, idl))
        return not digest or bool(store.hash_rihs01(name) == digest)
    except Exception:  # noqa: BLE001 - whatever it is in a definition that makes the library raise
        return False


def require_types(reader: AnyReader, path: Path, connections: Collection[Connection]) -> None:
    """BagError names the topics of unknown type."""
    unknown = sorted(
        {f"{c.topic} ({c.msgtype})" for c in connections
         if c.msgtype not in reader.typestore.fielddefs}
    )  # fmt: skip
    if unknown:
        raise BagError(
            f"{path}: no definition of the type of {', '.join(unknown)} that can be read, in the bag "
            "or installed; source a workspace that has it"
        )


def fallback_types(path: Path) -> Typestore:
    """Common messages of the distribution that recorded the bag."""
    name = _WITHOUT_NAME
    with suppress(BagError):  # the reader reports what is wrong with it
        name = read_metadata(path).get("ros_distro") or name
    known = {store.value for store in Stores}
    return get_typestore(Stores(f"ros2_{name}" if f"ros2_{name}" in known else "ros2_humble"))


def complete_types(reader: AnyReader, path: Path) -> None:
    """Types of topics that came without a definition, where they can be had."""
    missing = {c.msgtype for c in reader.connections} - set(reader.typestore.fielddefs)
    if not missing or not reader.is2:
        return
    store = fallback_types(path)
    for kind in sorted(missing):
        with suppress(ValueError, LookupError, TypesysError):  # `require_types` names the topic
            add_installed(store, kind)
        if kind in store.fielddefs:
            new = {k: v for k, v in store.fielddefs.items() if k not in reader.typestore.fielddefs}
            reader.typestore.register(new)


def add_installed(store: Typestore, kind: str) -> None:
    """The type `package/msg/Name` and those it uses, from the installed packages.

    ValueError or LookupError where one is not installed.
    """
    if kind not in store.fielddefs:
        types = get_types_from_msg(definition(kind), kind)
        store.register({k: v for k, v in types.items() if k not in store.fielddefs})
