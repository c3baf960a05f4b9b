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
from rlif_bags.reading.step_reader import StepReader, camera_names, episodes_of, same_robot
from rlif_bags.relabelling.relabel import Relabelling
from rlif_learner.data.steps import Outcome, Source, StepRecord, discards, follows


@dataclass(frozen=True, eq=False, kw_only=True)
class RequestedStep(StepRecord):
    """A Step with the actions that were requested: [action_dim], empty where there is none."""

    policy_action: np.ndarray
    operator_action: np.ndarray


@dataclass(frozen=True, eq=False)
class Run:
    """T transitions in a row with T + 1 observations, and what came of the episode.

    rewards float32 [T]; terminal: it ended in success
    """

    bag: Path
    steps: Sequence[RequestedStep]
    rewards: np.ndarray
    terminal: bool

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.steps[0].cameras

    @property
    def states(self) -> np.ndarray:
        """float32 [T + 1, state_dim]"""
        return np.stack([step.state for step in self.steps])

    def images(self, camera: int) -> list[np.ndarray]:
        """uint8 [height, width, channels], T + 1 of them."""
        return [step.images[camera] for step in self.steps]

    def columns(self) -> dict[str, np.ndarray]:
        """One row for each transition; an action that was not requested is NaN. The outcome is that
        of the episode in its last row, RUNNING where a gap cut it off."""
        *steps, end = self.steps
        last = np.arange(len(self)) == len(self) - 1
        actions = np.stack([step.action for step in steps])
        size = actions.shape[1]
        return {
            "observations": self.states[:-1],
            "next_observations": self.states[1:],
            "actions": actions,
            "policy_actions": _known([step.policy_action for step in steps], size),
            "operator_actions": _known([step.operator_action for step in steps], size),
            "rewards": self.rewards,
            "terminals": last & self.terminal,
            "timeouts": last & (not self.terminal),
            "outcomes": np.where(last, end.outcome, Outcome.RUNNING).astype(np.uint8),
            "sources": np.array([step.source for step in steps], np.uint8),
            "interventions": np.array([s.source == Source.OPERATOR for s in steps], np.bool_),
            "onsets": np.array([step.onset for step in steps], np.bool_),
            "evaluations": np.array([step.evaluation for step in steps], np.bool_),
            "step_indices": np.array([step.step_index for step in steps], np.uint32),
            "stamps": np.array([step.stamp for step in steps], np.int64),
        }


def _known(actions: Sequence[np.ndarray], size: int) -> np.ndarray:
    rows = np.full((len(actions), size), np.nan, np.float32)
    for row, action in zip(rows, actions, strict=True):
        if len(action) == size:
            row[:] = action
    return rows


@dataclass
class ExportReader:
    """The runs of these bags, in order, and counts of what came out and what did not. BagError where
    there is none.

    All must be of one robot: sizes and cameras of the first run are those of all others.
    """

    bags: Sequence[Path]
    work: Relabelling  # of the rewards
    evaluation: bool = False  # episodes of evaluation as well
    images: bool = True  # the cameras, where they were recorded
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # episodes, by reason
    runs: int = 0
    transitions: int = 0
    gaps: int = 0

    def __iter__(self) -> Iterator[Run]:
        known: dict[str, Any] = {}
        for bag in self.bags:
            for run in self._runs_of_bag(bag):
                for step in run.steps:
                    known = same_robot(bag, step, known)
                self.runs += 1
                self.transitions += len(run)
                yield _with_cameras(run, tuple(known["images"]))
        if not self.runs:
            raise BagError("; ".join(["there is no transition to export", *self.lines()]))

    def lines(self) -> list[str]:
        """What was left out, and the notes, as lines of text."""
        lines = [f"left out, {why}: {count} episodes" for why, count in self.left_out.items()]
        if self.gaps:
            lines.append(f"{self.gaps} gaps: an episode goes on as another one behind each")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def _runs_of_bag(self, bag: Path) -> Iterator[Run]:
        reader = StepReader(bag, self.work.topic, self.images)
        label = self.work.function()
        for steps in episodes_of(_requested_steps(reader)):
            if discards(steps[-1]):
                self.left_out["discarded"] += 1
            elif any(step.evaluation for step in steps) and not self.evaluation:
                self.left_out["of evaluation"] += 1
            else:
                runs = list(_unbroken(bag, steps, *label(steps)))
                self.gaps += max(0, len(runs) - 1)
                self.left_out["no transition"] += not runs
                yield from runs
        self.left_out = +self.left_out
        self.notes += reader.notes


def _requested_steps(reader: StepReader) -> Iterator[RequestedStep]:
    for record, message in reader.with_messages():
        yield RequestedStep(
            **{**vars(record), "cameras": camera_names(record)},
            policy_action=np.asarray(message.policy_action, np.float32),
            operator_action=np.asarray(message.operator_action, np.float32),
        )


def _unbroken(
    bag: Path, steps: list[RequestedStep], rewards: np.ndarray, terminals: np.ndarray
) -> Iterator[Run]:
    start = 0
    for stop in range(1, len(steps) + 1):
        whole = stop < len(steps) and follows(steps[stop], steps[stop - 1])
        # A scheme may end an episode within one: at the row before the newest step.
        ended = stop - start > 1 and bool(terminals[stop - 2])
        if whole and not ended:
            continue
        if stop - start > 1:
            rows = np.asarray(rewards[start : stop - 1], np.float32)
            yield Run(bag, steps[start:stop], rows, ended)
        start = stop - 1 if whole else stop


def _with_cameras(run: Run, order: tuple[str, ...]) -> Run:
    """The same, with its images in this order: cameras are identified by name."""
    if run.cameras == order:
        return run
    at = [run.cameras.index(name) for name in order]
    steps = [replace(s, images=tuple(s.images[i] for i in at), cameras=order) for s in run.steps]
    return replace(run, steps=steps)
