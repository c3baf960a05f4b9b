# SPDX-License-Identifier: Apache-2.0
"""When to publish the next recorded Step: at a rate, and never more than the learner can take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReaderError
from rosbags.typesys.store import Typestore

from rlif_bags.reading.files import BagError
from rlif_bags.reading.open import STEP_TYPE, open_bag, read_messages
from rlif_bags.reading.step_reader import step_connections
from rlif_bags.step_writer import step_typestore
from rlif_policy.images import image_names

BLOCK = 100  # Steps between two waits for DDS to have delivered them
WINDOW = 800  # Steps that the learner may be behind: the topic's queue holds 1000


@dataclass
class Pace:
    """The recorded speed times `rate`; infinite: as fast as the learner takes them.

    Time that passes in a pause of the learner is not caught up.
    """

    rate: float = 1.0
    _last: tuple[float, float] | None = None  # recorded, published; s

    def __post_init__(self) -> None:
        if not self.rate > 0.0:
            raise ValueError(f"rate: found {self.rate}, expected a factor above 0")

    def due(self, recorded: float, now: float) -> float:
        """When (s, on the clock of `now`) a Step recorded at `recorded` s is to be published."""
        if self._last is None or math.isinf(self.rate):
            return now
        before, published = self._last
        return published + max(0.0, recorded - before) / self.rate

    def published(self, recorded: float, now: float) -> None:
        self._last = (recorded, now)


@dataclass
class Window:
    """How far the learner is behind. It counts Steps, evaluation left out."""

    size: int = WINDOW
    sent: int = 0
    _base: int | None = None
    _received: int = 0

    def status(self, steps: int) -> None:
        """A LearnerStatus arrived. The first one shows where the learner's count stood."""
        if self._base is None:
            self._base = min(steps, max(0, steps - self.sent))
        self._received = steps - self._base

    @property
    def known(self) -> bool:
        return self._base is not None

    @property
    def behind(self) -> int:
        return self.sent - self._received if self.known else 0

    @property
    def open(self) -> bool:
        """Whether another Step may go."""
        return self.behind < self.size


def recorded_steps(
    path: Path, topic: str = "", notes: list[str] | None = None
) -> Iterator[tuple[int, bytes, bool]]:
    """Log time (ns), the Step as bytes of the installed message, and whether it is one of evaluation.

    The bytes are those recorded, or made of a Step of before it had `camera_names`. What cannot be
    decoded is left out, with a message in `notes`. BagError if the bag's Step is any other message than
    the installed one: its bytes would lie.
    """
    store = step_typestore()
    notes = [] if notes is None else notes
    with open_bag(path, notes) as reader:
        connections = step_connections(reader, path, topic)
        found, expected = (s.hash_rihs01(STEP_TYPE) for s in (reader.typestore, store))
        if found != expected and _old_fields(reader.typestore) != _old_fields(store):
            raise BagError(
                f"{path}: its {STEP_TYPE} is {found[:24]}…, installed is {expected[:24]}…: it was "
                "recorded by another version; `rlif train` can read it, replay cannot"
            )
        for connection, stamp, data in read_messages(reader, path, connections, notes):
            try:
                message = reader.deserialize(data, connection.msgtype)
            except (AnyReaderError, ValueError, IndexError) as error:
                notes.append(f"{path}: {connection.topic} at {stamp} ns left out: {error}")
                continue
            current = bytes(data) if found == expected else _with_camera_names(store, message)
            yield stamp, current, bool(getattr(message, "evaluation", False))


def _old_fields(store: Typestore) -> list[Any]:
    """Names and types of the fields of a Step, but for `camera_names`, which was added."""
    return [field for field in store.fielddefs[STEP_TYPE][1] if field[0] != "camera_names"]


def _with_camera_names(store: Typestore, message: Any) -> bytes:
    """A Step of before it had `camera_names`, as the installed message."""
    fields = {name: getattr(message, name) for name, _ in _old_fields(store)}
    step = store.types[STEP_TYPE](camera_names=list(image_names(message)), **fields)
    return bytes(store.serialize_cdr(step, STEP_TYPE))
