# SPDX-License-Identifier: Apache-2.0
"""Episodes of bags as other programs want them: labelled, unbroken, one at a time.

An episode with a hole (a Step that was lost, or left out) becomes one run on each side of it: in
no format does a next observation lie beyond a gap. Rewards are those of the whole episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import (
    StepReader,
    camera_names,
    grouped_by_episode,
    observation_stamp,
)
from rlif_bags.relabelling.relabel import Relabelling
from rlif_learner.data.steps import Outcome, Source, StepRecord, discards, follows

NOT_DRIVEN = "no transition"
DISCARDED = "discarded"
EVALUATION = "of evaluation"


@dataclass(frozen=True, eq=False)
class Frame:
    """A Step, and what its record leaves out. stamp: ns, of the observation."""

    record: StepRecord
    stamp: int
    policy_action: np.ndarray
    operator_action: np.ndarray
    cameras: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """T transitions in a row with T + 1 observations, and what came of the episode.

    rewards float32 [T]; terminal: it ended in success; outcome: RUNNING where a gap cut it off
    """

    bag: Path
    frames: Sequence[Frame]
    rewards: np.ndarray
    terminal: bool

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.frames[-1].record.outcome)

    @property
    def with_action(self) -> Sequence[Frame]:
        """All but the last, whose action has no successor or does not exist."""
        return self.frames[:-1]

    @property
    def states(self) -> np.ndarray:
        """float32 [T + 1, state_dim]"""
        return np.stack([frame.record.state for frame in self.frames])

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.frames[0].cameras

    def images(self, camera: int) -> list[np.ndarray]:
        """uint8 [height, width, channels], T + 1 of them."""
        return [frame.record.images[camera] for frame in self.frames]

    def columns(self) -> dict[str, np.ndarray]:
        """One row for each transition; an action that was not requested is NaN."""
        steps = [frame.record for frame in self.with_action]
        last = np.arange(len(self)) == len(self) - 1
        actions = np.stack([step.action for step in steps])
        size = actions.shape[1]
        return {
            "actions": actions,
            "policy_actions": _known([f.policy_action for f in self.with_action], size),
            "operator_actions": _known([f.operator_action for f in self.with_action], size),
            "rewards": self.rewards,
            "terminals": last & self.terminal,
            "timeouts": last & (not self.terminal),
            "outcomes": np.where(last, int(self.outcome), 0).astype(np.uint8),
            "sources": np.array([step.source for step in steps], np.uint8),
            "interventions": np.array([s.source == Source.OPERATOR for s in steps], np.bool_),
            "onsets": np.array([step.onset for step in steps], np.bool_),
            "evaluations": np.array([step.evaluation for step in steps], np.bool_),
            "step_indices": np.array([step.step_index for step in steps], np.uint32),
            "stamps": np.array([frame.stamp for frame in self.with_action], np.int64),
        }


def _known(actions: Sequence[np.ndarray], size: int) -> np.ndarray:
    rows = np.full((len(actions), size), np.nan, np.float32)
    for row, action in zip(rows, actions, strict=True):
        if len(action) == size:
            row[:] = action
    return rows


@dataclass
class ExportReader:
    """The runs of these bags, in order, and counts of what came out and what did not.

    All must be of one robot: sizes and cameras of the first run are those of all others.
    """

    bags: Sequence[Path]
    work: Relabelling  # of the rewards
    evaluation: bool = False  # episodes of evaluation as well
    images: bool = True  # the cameras, where they were recorded
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # episodes, by reason
    runs: int = 0
    episodes: int = 0
    transitions: int = 0
    gaps: int = 0

    def __iter__(self) -> Iterator[Run]:
        shape: dict[str, Any] | None = None
        for bag in self.bags:
            for run in self._runs_of_bag(bag):
                for frame in run.frames:
                    found = _shape(frame, len(run.frames[0].record.action))
                    shape = shape or found
                    if found != shape:
                        raise BagError(f"{bag}: found Steps of {found}, expected {shape}")
                run = _with_cameras(run, tuple(shape["images"]) if shape else ())
                self.runs += 1
                self.transitions += len(run)
                yield run

    def lines(self) -> list[str]:
        """What was left out, and the notes, as lines of text."""
        lines = [f"left out, {why}: {count} episodes" for why, count in self.left_out.items()]
        if self.gaps:
            lines.append(f"{self.gaps} gaps: an episode goes on as another one behind each")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def _runs_of_bag(self, bag: Path) -> Iterator[Run]:
        reader = StepReader(bag, self.work.topic, self.images)
        label = self.work.function()
        for frames in grouped_by_episode(_frames(reader), lambda frame: frame.record):
            steps = [frame.record for frame in frames]
            if discards(steps[-1]):
                self.left_out[DISCARDED] += 1
                continue
            if any(step.evaluation for step in steps) and not self.evaluation:
                self.left_out[EVALUATION] += 1
                continue
            rewards, terminals = label(steps)
            runs = list(_unbroken(bag, frames, rewards, terminals))
            self.gaps += max(0, len(runs) - 1)
            self.episodes += bool(runs)
            self.left_out[NOT_DRIVEN] += not runs
            yield from runs
        self.left_out = +self.left_out
        self.notes += reader.notes


def _frames(reader: StepReader) -> Iterator[Frame]:
    for record, message in reader.with_messages():
        yield Frame(
            record,
            observation_stamp(message),
            np.asarray(message.policy_action, np.float32),
            np.asarray(message.operator_action, np.float32),
            camera_names(record),
        )


def _unbroken(
    bag: Path, frames: list[Frame], rewards: np.ndarray, terminals: np.ndarray
) -> Iterator[Run]:
    start = 0
    for stop in range(1, len(frames) + 1):
        whole = stop < len(frames) and follows(frames[stop].record, frames[stop - 1].record)
        # A scheme may end an episode within one: at the row before the newest frame.
        ended = stop - start > 1 and bool(terminals[stop - 2])
        if whole and not ended:
            continue
        if stop - start > 1:
            rows = np.asarray(rewards[start : stop - 1], np.float32)
            yield Run(bag, frames[start:stop], rows, ended)
        start = stop - 1 if whole else stop


def _shape(frame: Frame, action: int) -> dict[str, Any]:
    """Sizes and cameras. action: size of that of the run; the end of an episode has none."""
    step = frame.record
    images = {n: i.shape for n, i in zip(frame.cameras, step.images, strict=True)}
    return {"state": len(step.state), "action": len(step.action) or action, "images": images}


def _with_cameras(run: Run, order: tuple[str, ...]) -> Run:
    """The same, with its images in this order: cameras are identified by name."""
    if run.cameras == order:
        return run
    at = [run.cameras.index(name) for name in order]
    frames = [
        replace(
            frame,
            record=replace(frame.record, images=tuple(frame.record.images[i] for i in at)),
            cameras=order,
        )
        for frame in run.frames
    ]
    return replace(run, frames=frames)
