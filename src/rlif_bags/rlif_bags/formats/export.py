# SPDX-License-Identifier: Apache-2.0
"""Episodes of bags as other programs want them: labelled, unbroken, one at a time.

An episode with a hole (a Step that was lost, or left out) becomes one run on each side of it: in
no format does a next observation lie beyond a gap. Rewards are those of the whole episode.
"""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rlif_bags.reading.files import BagError, DirectoryLock
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.relabelling.relabel import Relabelling
from rlif_learner.data.steps import Outcome, Source, StepRecord, discards, follows
from rlif_policy.images import image_names

NOT_DRIVEN = "no transition"
DISCARDED = "discarded"
EVALUATION = "of evaluation"


@dataclass(frozen=True)
class ExportConfig:
    """What to take out of the bags.

    scheme, parameters: of the rewards, as `rlif relabel` takes them; topic: of the Steps
    evaluation: episodes of evaluation as well; images: the cameras, where they were recorded
    """

    scheme: str = "onset"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    topic: str = ""
    evaluation: bool = False
    images: bool = True


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
    def driven(self) -> Sequence[Frame]:
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
        """One row for each transition; an action that nobody asked for is NaN."""
        steps = [frame.record for frame in self.driven]
        last = np.arange(len(self)) == len(self) - 1
        actions = np.stack([step.action for step in steps])
        size = actions.shape[1]
        return {
            "actions": actions,
            "policy_actions": _known([f.policy_action for f in self.driven], size),
            "operator_actions": _known([f.operator_action for f in self.driven], size),
            "rewards": self.rewards,
            "terminals": last & self.terminal,
            "timeouts": last & (not self.terminal),
            "outcomes": np.where(last, int(self.outcome), 0).astype(np.uint8),
            "sources": np.array([step.source for step in steps], np.uint8),
            "interventions": np.array([s.source == Source.OPERATOR for s in steps], np.bool_),
            "onsets": np.array([step.onset for step in steps], np.bool_),
            "evaluations": np.array([step.evaluation for step in steps], np.bool_),
            "step_indices": np.array([step.step_index for step in steps], np.uint32),
            "stamps": np.array([frame.stamp for frame in self.driven], np.int64),
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
    config: ExportConfig = field(default_factory=ExportConfig)
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
                found = _shape(run)
                shape = shape or found
                if found != shape:
                    raise BagError(f"{bag}: found Steps of {found}, expected {shape}")
                run = _with_cameras(run, tuple(shape["images"]))
                _check_images(run)
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
        reader = _Reader(bag, self.config.topic, self.config.images)
        label = Relabelling(self.config.scheme, self.config.parameters).function()
        for frames in _episodes(reader):
            steps = [frame.record for frame in frames]
            if discards(steps[-1]):
                self.left_out[DISCARDED] += 1
                continue
            if any(step.evaluation for step in steps) and not self.config.evaluation:
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


class _Reader(StepReader):
    """Remembers the message of the Step that it gave last, for what a record does not hold."""

    message: Any = None

    def messages(self) -> Iterator[tuple[int, Any]]:
        for stamp, message in super().messages():
            self.message = message
            yield stamp, message


def _episodes(reader: _Reader) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for record in reader:
        message = reader.message
        if group:
            last = group[-1].record
            if last.is_last or record.is_first or record.episode_id != last.episode_id:
                yield group
                group = []
        stamp = message.header.stamp
        group.append(
            Frame(
                record,
                stamp.sec * 1_000_000_000 + stamp.nanosec,
                np.asarray(message.policy_action, np.float32),
                np.asarray(message.operator_action, np.float32),
                camera_names(image_names(message)),
            )
        )
    if group:
        yield group


def camera_names(images: Sequence[str]) -> tuple[str, ...]:
    """The observer's names of the cameras; camera_0 and so on where a bag does not say."""
    names = tuple(name.replace("/", "_").replace(".", "_") for name in images)
    if len(set(names)) == len(names) and all(names):
        return names
    return tuple(f"camera_{number}" for number in range(len(images)))


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


def _shape(run: Run) -> dict[str, Any]:
    step = run.frames[0].record
    images = {n: i.shape for n, i in zip(run.cameras, step.images, strict=True)}
    return {"state": len(step.state), "action": len(step.action), "images": images}


def _with_cameras(run: Run, order: tuple[str, ...]) -> Run:
    """The same, with its images in this order: cameras are told apart by name."""
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


def _check_images(run: Run) -> None:
    """All images of a camera are as the first one."""
    for frame in run.frames:
        first, images = run.frames[0].record.images, frame.record.images
        if len(images) != len(first):
            raise BagError(
                f"{run.bag}: found {len(images)} images in a Step, expected {len(first)}"
            )
        for name, image, expected in zip(run.cameras, images, first, strict=True):
            if image.shape != expected.shape:
                raise BagError(
                    f"{run.bag}: camera {name}: found an image of {image.shape}, expected "
                    f"{expected.shape}"
                )


@contextmanager
def new_directory(output: Path) -> Iterator[Path]:
    """A directory to fill, that appears as `output` when it is complete, or not at all."""
    with partial_directory(output) as partial:
        yield partial
        _refuse_existing(output)
        partial.rename(output)


@contextmanager
def partial_directory(output: Path) -> Iterator[Path]:
    """Where to prepare `output`; whatever is there in the end is removed.

    What a killed process left there goes first. BagError where `output` exists, or another process
    is writing it.
    """
    _refuse_existing(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".partial-{output.name}")
    partial.mkdir(exist_ok=True)
    try:
        lock = DirectoryLock(partial)
    except BlockingIOError:
        raise BagError(f"{partial} is being written by another process") from None
    with lock:
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield partial
        finally:
            if partial.exists():
                shutil.rmtree(partial)


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise BagError(f"{output} exists already; name another output")


REQUIREMENTS: Mapping[str, str] = {"pyarrow": "pyarrow", "av": "av", "minari": "minari[hdf5]"}


def optional(module: str) -> ModuleType:
    """A library that only some formats need. BagError tells how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = REQUIREMENTS[module.partition(".")[0]]
        raise BagError(
            f"this format needs {name} ({error}): `pip install --group export` in the clone, or "
            f'`pip install "{name}"`'
        ) from error
