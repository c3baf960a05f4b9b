# SPDX-License-Identifier: Apache-2.0
"""The types of a bag's messages, where rosbags asks for more definitions than there are.

One that cannot be read (of a service's events, of Jazzy) makes the library refuse the whole bag:
here it costs its topic only. SQLite bags up to Humble have none at all: they are those of the
distribution that recorded the bag, and of the packages that are installed here.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.interfaces.typing import Typesdict
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


def bag_types(connections: Collection[Connection], path: Path, ros2: bool) -> Typestore:
    """The types of these topics of the bag at `path`, as far as they can be had.

    BagError where a type is defined in two ways: one of them would read the other's messages wrongly.
    """
    types: Typesdict = {}
    for c in connections:
        found = _readable_types(c.msgdef, c.msgtype, c.digest if ros2 else "")
        for kind in found.keys() & types.keys():
            # The same may be written in two languages: then only its hash is the same.
            if found[kind] != types[kind] and _hash(found, kind, ros2) != _hash(types, kind, ros2):
                raise BagError(
                    f"{path}: found two definitions of {kind}, expected one: was its package "
                    "changed between recordings? Keep the files of each in a folder of its own"
                )
        types |= found
    missing = {c.msgtype for c in connections} - set(types)
    if missing and ros2:
        fallback = _common_types(path)
        for kind in sorted(missing):
            with suppress(ValueError, LookupError, TypesysError):
                add_installed(fallback, kind)
        types = {**fallback.fielddefs, **types}
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


def definition_types(text: str, name: str, idl: bool) -> Typesdict:
    """The types that a definition brings along. Raises what the library does where it is none."""
    if not idl:
        return get_types_from_msg(text, name)
    whole = text.split(_IDL)
    texts = [part.partition("\n")[2] for part in whole[1:]] or whole
    return {kind: fields for one in texts for kind, fields in get_types_from_idl(one).items()}


@functools.lru_cache(maxsize=256)  # many bags of the same topics are opened one after another
def _readable_types(found: MessageDefinition, name: str, digest: str) -> Typesdict:
    """Those of a definition with the hash `digest` (or none); none where it cannot be read."""
    if found.format == MessageDefinitionFormat.NONE:
        return {}
    try:
        types = definition_types(found.data, name, found.format == MessageDefinitionFormat.IDL)
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        return types if not digest or store.hash_rihs01(name) == digest else {}
    except Exception:  # noqa: BLE001 - whatever it is in a definition that makes the library raise
        return {}


def _hash(types: Typesdict, name: str, ros2: bool) -> str:
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store.hash_rihs01(name) if ros2 else store.generate_msgdef(name)[1]


def _common_types(path: Path) -> Typestore:
    """Common messages of the distribution that recorded the bag."""
    name = _WITHOUT_NAME
    with suppress(BagError):  # the reader reports what is wrong with it
        name = read_metadata(path).get("ros_distro") or name
    known = {store.value for store in Stores}
    return get_typestore(Stores(f"ros2_{name}" if f"ros2_{name}" in known else "ros2_humble"))


def add_installed(store: Typestore, kind: str) -> None:
    """The type `package/msg/Name` and those it uses, from the installed packages.

    ValueError or LookupError where one is not installed.
    """
    if kind not in store.fielddefs:
        types = get_types_from_msg(definition(kind), kind)
        store.register({k: v for k, v in types.items() if k not in store.fielddefs})
