# SPDX-License-Identifier: Apache-2.0
"""What a page may ask for besides driving, who may, and with which values. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .inputs import MessageError, number, text

NEWEST = "newest"  # instead of a checkpoint: the learner's weights, as they come
NOTE_LENGTH = 500  # characters


def _nothing(message: Mapping[str, Any]) -> None:
    return None


def _speed(message: Mapping[str, Any]) -> float:
    return number(message, "value", 0.01, 1.0)


def _switch(message: Mapping[str, Any]) -> bool:
    if not isinstance(message.get("value"), bool):
        raise MessageError(f"value: found {message.get('value')!r:.40}, expected true or false")
    return bool(message["value"])


def _note(message: Mapping[str, Any]) -> str:
    found = text(message, "value", NOTE_LENGTH).strip()
    if not found:
        raise MessageError("value: expected a note, found nothing")
    return found


def _checkpoint(message: Mapping[str, Any]) -> str:
    """A number as folders of checkpoints have it, so that no path can be meant; or `newest`."""
    found = text(message, "value", 20)
    if found != NEWEST and not (found.isascii() and found.isdigit()):
        raise MessageError(
            f"value: found {found!r}, expected the number of a checkpoint, or {NEWEST}"
        )
    return found


@dataclass(frozen=True)
class Command:
    """operator: only the holder of the lease may; value: reads and checks its argument."""

    operator: bool = True
    value: Callable[[Mapping[str, Any]], Any] = _nothing


COMMANDS: Mapping[str, Command] = {
    "stop": Command(operator=False),
    "disarm": Command(operator=False),
    "arm": Command(),
    "start": Command(),
    "success": Command(),
    "failure": Command(),
    "discard": Command(),
    "speed": Command(value=_speed),
    "evaluation": Command(value=_switch),
    "save": Command(),
    "check": Command(),
    "checkpoint": Command(value=_checkpoint),
    "note": Command(value=_note),
}
