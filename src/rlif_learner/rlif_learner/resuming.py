# SPDX-License-Identifier: Apache-2.0
"""A resumed learner goes on from the recording: Steps that came after its checkpoint are in there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
    it. The stamp tells recorders apart, which all count from 0; without it, episode and step index.
    """

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}  # by sequence, of the newest recorder
        self._last = -1
        self._stamp = 0  # of the Step `_last`
        self._ended_early = False  # before the checkpoint, which may be of a later recorder

    def add(self, step: StepRecord) -> None:
        if step.sequence <= self._last:  # the recorder was restarted
            self._places.clear()
        self._places[step.sequence] = _place(step, step.stamp)
        self._last, self._stamp = step.sequence, step.stamp or self._stamp

    def add_checkpoint(self, sequence: int, stamp: int) -> None:
        """The newest Step that was received, and is not in the recording."""
        self._last, self._stamp, self._ended_early = sequence, stamp, True

    def repeats(self, step: Place, stamp: int) -> bool:
        """Whether `step`, which came just now, was received before the end of recording and checkpoint.

        One that is missing in the recording counts as lost, and comes too late.
        """
        if step.sequence <= self._last:
            place, known = _place(step, stamp), self._places.get(step.sequence)
            older = 0 < stamp <= self._stamp
            if known is not None and (_same(known, place) or (self._ended_early and older)):
                return True
            if known is None and (older or not (stamp and self._stamp)):
                return True
        self._last = -1
        return False


_Place = tuple[int, int, int]  # episode, step index, stamp


def _place(step: Place, stamp: int) -> _Place:
    return step.episode_id, step.step_index, stamp


def _same(one: _Place, other: _Place) -> bool:
    """A stamp that is not known, 0, says nothing."""
    return one[:2] == other[:2] and (one[2] == other[2] or 0 in (one[2], other[2]))


def read_on(
    trainer: Trainer, recording: Iterable[StepRecord], robot: str = ""
) -> tuple[int, Received]:
    """Let `trainer`, as a checkpoint left it, take in what was recorded of `robot` after its last Step.

    Returns how many Steps that were, and all of the recording. ValueError, and nothing was taken in,
    for a recording of other recorders, whose Steps have other numbers, and for a checkpoint that does
    not know its last Step.
    """
    counts, received, taken = trainer.counts.of(robot), Received(), 0
    last, place = counts.last_sequence, counts.last_place
    found = last is None  # whether the checkpoint's last Step lies behind
    other: StepRecord | None = None  # has the number of that Step, and is another one
    newest, skipped = -1, False  # sequence; whether this recorder is not the checkpoint's
    for step in recording:
        if last is None and counts.steps and not taken:
            raise ValueError(
                f"the checkpoint holds {counts.steps} Steps and not the number of the last one: "
                "expected a checkpoint of the run that the bag is of"
            )
        received.add(step)
        if step.sequence <= newest:  # the recorder was restarted, maybe after the checkpoint
            skipped, found = False, found or 0 < place[2] < step.stamp
        newest = step.sequence
        if not found and last is not None:
            if step.sequence == last and not _same(_place(step, step.stamp), place):
                other, skipped = other or step, True
            found = step.sequence >= last and not skipped
            if step.sequence <= last or skipped:
                continue
        try:
            trainer.receive(replace(step, robot=robot))
        except ValueError:
            trainer.drop(step, robot)
        taken += 1
    if other is not None and not found:
        raise ValueError(
            f"Step {last} is step {other.step_index} of episode {other.episode_id}, and in the "
            f"checkpoint step {place[1]} of episode {place[0]}: expected the recorder's bag of "
            "that run"
        )
    if last is not None and not found:
        received.add_checkpoint(last, place[2])
    return taken, received
