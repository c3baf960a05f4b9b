# SPDX-License-Identifier: Apache-2.0
"""When to publish the next recorded Step: at a rate, and never more than the learner can take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlif_bags.reading.files import BagError
from rlif_bags.reading.open import STEP_TYPE
from rlif_bags.reading.step_reader import StepReader
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

    A Step of before it had `camera_names` gets them. What cannot be decoded is left out, with a
    message in `notes`. BagError if the bag's Step is any other message than the installed one.
    """
    store = step_typestore()
    installed = store.types[STEP_TYPE]
    reader = StepReader(path, topic, notes=[] if notes is None else notes)
    for stamp, message in reader.messages():
        if _old_fields(type(message)) != _old_fields(installed):
            raise BagError(
                f"{path}: its {STEP_TYPE} is not the installed one: it was recorded by another "
                "version; `rlif train` can read it, replay cannot"
            )
        values = {name: getattr(message, name) for name in _old_fields(installed)}
        known = hasattr(message, "camera_names")
        names = message.camera_names if known else list(image_names(message))
        step = installed(camera_names=names, **values)
        yield stamp, bytes(store.serialize_cdr(step, STEP_TYPE)), bool(message.evaluation)


def _old_fields(message: type) -> dict[str, Any]:
    """Names and types of the fields of a Step, but for `camera_names`, which was added."""
    return {f.name: f.type for f in fields(message) if f.name != "camera_names"}
