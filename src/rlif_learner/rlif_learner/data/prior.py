# SPDX-License-Identifier: Apache-2.0
"""Demonstrations for the learner node, out of recordings.

This package reads no bags itself, so that it does not depend on the one that does (rlif_bags). A
package that reads some kind of recording registers a function under the entry point group below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from rlif_learner.data.steps import StepRecord

GROUP = "rlif.step_readers"


class StepSource(Protocol):
    """The Steps of one recording, in order; `notes` holds what a person should know of it."""

    path: Path
    notes: list[str]

    def __iter__(self) -> Iterator[StepRecord]: ...


# Opens the recordings at `paths`; images: False leaves them out of the records.
OpenSteps = Callable[[Sequence[str], bool], Iterable[StepSource]]


def open_prior(paths: Sequence[str], images: bool) -> Iterable[StepSource]:
    """The recordings at `paths`. ValueError where no installed package reads recordings."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    if not found:
        raise ValueError(
            f"found no reader of recordings (entry points {GROUP!r}), expected one; install rlif_bags"
        )
    opener: OpenSteps = found[0].load()
    return opener(paths, images)
