# SPDX-License-Identifier: Apache-2.0
"""A resumed learner goes on from the recording: Steps that came after its checkpoint are in there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlif_learner.data.steps import Place, StepRecord
from rlif_learner.training import Trainer


def bags_of(bag: Path) -> list[Path]:
    """`bag`, and bag_2, bag_3 … beside it, in which the recorder went on after a full disk."""
    later = [p for p in bag.parent.glob(f"{bag.name}_*") if p.name[len(bag.name) + 1 :].isdecimal()]
    return [bag, *sorted(later, key=lambda path: int(path.name.rpartition("_")[2]))]


class Received:
    """Steps of a recording, so that the recorder's queue, which repeats its last ones, adds none twice.

    What it repeats comes first and in order. A later Step, or one of a recorder that was restarted, ends
    it.
    """

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}  # by sequence
        self._last = -1

    def add(self, step: Place) -> None:
        self._places[step.sequence], self._last = _place(step), step.sequence

    def repeats(self, step: Place) -> bool:
        """Whether `step`, which came just now, was received before the recording's end.

        One that is missing in the recording counts as lost, and comes too late.
        """
        place = _place(step)
        if step.sequence <= self._last and self._places.get(step.sequence, place) == place:
            return True
        self._last = -1
        return False


def _place(step: Place) -> tuple[int, int]:
    return step.episode_id, step.step_index


def read_on(trainer: Trainer, recording: Iterable[StepRecord]) -> tuple[int, Received]:
    """Let `trainer`, as a checkpoint left it, take in what was recorded after its last Step.

    Returns how many Steps that were, and all of the recording. ValueError, and nothing was taken in,
    for a recording of another recorder, whose Steps have other numbers.
    """
    counts, received, taken = trainer.counts, Received(), 0
    last, place = counts.last_sequence, counts.last_place
    for step in recording:
        received.add(step)
        if last is not None and step.sequence <= last:
            if step.sequence == last and _place(step) != place:
                raise ValueError(
                    f"Step {last} is step {step.step_index} of episode {step.episode_id}, and in the "
                    f"checkpoint step {place[1]} of episode {place[0]}: expected the recorder's bag of "
                    "that run"
                )
            continue
        try:
            trainer.receive(step)
        except ValueError:
            trainer.drop(step)
        taken += 1
    return taken, received
