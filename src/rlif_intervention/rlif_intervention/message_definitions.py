# SPDX-License-Identifier: Apache-2.0
"""Definitions and hashes of message types, as bags carry them, from the installed packages."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

_SEPARATOR = "=" * 80
_FIELD = re.compile(r"^\s*(?P<type>[A-Za-z][\w/]*)(<=\d+)?(\[[<=\d]*\])?\s+[A-Za-z]\w*")
_PRIMITIVES = frozenset(
    {"bool", "byte", "char", "float32", "float64", "string", "wstring"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


def _file(type_name: str, suffix: str) -> Path:
    """Of `package/msg/Name`. ValueError says what is missing."""
    parts = type_name.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise ValueError(
            f"message type {type_name!r}: expected package/msg/Name, as in sensor_msgs/msg/Joy"
        )
    try:
        share = Path(get_package_share_directory(parts[0]))
    except PackageNotFoundError:
        raise ValueError(
            f"message type {type_name!r}: package {parts[0]!r} is not installed or not sourced"
        ) from None
    path = share / "msg" / (parts[2] + suffix)
    if not path.is_file():
        raise ValueError(f"message type {type_name!r}: there is no {path}")
    return path


def _used_types(text: str, package: str) -> list[str]:
    """Types of the fields of a .msg text that are messages themselves, in their order."""
    used: dict[str, None] = {}
    for line in text.splitlines():
        match = _FIELD.match(line.split("#")[0])
        if match is None or match["type"] in _PRIMITIVES:
            continue
        name = match["type"].split("/")
        used["/".join([name[0] if len(name) > 1 else package, "msg", name[-1]])] = None
    return list(used)


@lru_cache(maxsize=256)
def definition(type_name: str) -> str:
    """The .msg text of `type_name` and of all it uses, as MCAP's schema encoding `ros2msg`."""
    todo, seen = [type_name], {type_name}
    parts: list[str] = []
    while todo:
        name = todo.pop(0)
        text = _file(name, ".msg").read_text()
        package, _, short = name.split("/")
        parts.append(f"{_SEPARATOR}\nMSG: {package}/{short}\n{text}" if parts else text)
        new = [t for t in _used_types(text, package) if t not in seen]
        seen.update(new)
        todo += new
    return "\n".join(parts)


@lru_cache(maxsize=256)
def type_hash(type_name: str) -> str:
    """RIHS01 hash of `type_name`; empty where the distribution has none (before Iron)."""
    _file(type_name, ".msg")
    try:
        described = json.loads(_file(type_name, ".json").read_text())
    except ValueError:
        return ""
    for entry in described.get("type_hashes", []):
        if entry["type_name"] == type_name:
            return str(entry["hash_string"])
    return ""
