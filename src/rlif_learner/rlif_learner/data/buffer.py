# SPDX-License-Identifier: Apache-2.0
"""Replay buffer: the steps of episodes, in order, each stored once.

A row is a step; a transition is two neighbouring rows of the same episode with nothing lost
between them, so next observations (and images) cost no memory. A transition can be sampled as
soon as its next observation and its label are known, that is, while the episode is running.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from rlif_learner.data.batch import Batch
from rlif_learner.data.labels import Label, RobotSteps, refused_reward
from rlif_learner.data.steps import Source, StepRecord, is_stored


class ReplayBuffer:
    """Ring of `capacity` steps. Adding and sampling from several threads is safe.

    An episode of T actions is T + 1 steps, the last of which starts no transition: for N
    transitions of such episodes `capacity` is N * (T + 1) / T. That row is all that a transition
    costs beyond its own bytes: 1 % where T is 100.

    `images`: the shape of each camera's image, uint8 [height, width, channels]; with `features`, of
    what a frozen encoder made of it (ImageEncoder.maps), float16, which is kept in its place.

    `interleaved`: steps of several robots come in any order, told apart by `StepRecord.robot`. Each
    row then holds the distance to the next one of its robot. `evenly`: each robot that has
    transitions is as likely in a sample as any other; otherwise each transition is.

    `scheme`, `failure_reward`: of the labels, see Labeller.

    With `memmap_dir` the images lie in files there instead of in memory. A directory belongs to
    one buffer at a time; ValueError if another one, of any process, has it.
    """

    def __init__(
        self,
        capacity: int,
        state_dim: int,
        action_dim: int,
        images: tuple[tuple[int, int, int], ...] = (),
        memmap_dir: Path | str | None = None,
        scheme: str = "onset",
        features: bool = False,
        interleaved: bool = False,
        evenly: bool = False,
        failure_reward: float = 0.0,
    ) -> None:
        if capacity < 2:
            raise ValueError(f"capacity: found {capacity}, expected at least 2 (a transition)")
        self.capacity, self.state_dim, self.action_dim = capacity, state_dim, action_dim
        self.image_shapes = tuple(tuple(shape) for shape in images)
        self.image_dtype = np.dtype(np.float16 if features else np.uint8)
        self.columns: dict[str, np.ndarray] = {
            "state": np.zeros((capacity, state_dim), np.float32),
            "action": np.zeros((capacity, action_dim), np.float32),
            "reward": np.zeros(capacity, np.float32),
            "terminal": np.zeros(capacity, np.float32),
            "valid": np.zeros(capacity, bool),  # a transition starts here, and its label is known
            "source": np.zeros(capacity, np.uint8),
            # Of a step that the operator drove: what the policy asked for, if that is known.
            "refused": np.zeros(capacity, bool),
            "refused_action": np.zeros((capacity, action_dim), np.float32),
            "refused_reward": np.zeros(capacity, np.float32),
        }
        self.interleaved, self._evenly = interleaved, interleaved and evenly
        if interleaved:
            self.columns["next"] = np.ones(capacity, np.int32)  # rows to the robot's next step
            self.columns["robot"] = np.zeros(capacity, np.uint16)  # as of `_robots`
        directory = None if memmap_dir is None else Path(memmap_dir)
        if directory is not None:
            weakref.finalize(self, _lock_directory(directory).close)  # held until then
        for i, shape in enumerate(self.image_shapes):
            self.columns[f"image_{i}"] = _image_column(
                (capacity, *shape), self.image_dtype, i, directory
            )
        self.total = 0  # steps ever added; step n lies in row n % capacity
        self._labelling = (scheme, failure_reward)
        # In the order in which they came; "" has no name.
        self._robots = {"": RobotSteps(*self._labelling)}
        self._valid_counts = [0] * len(Source)  # of valid rows, by source
        # For each who saves: the rows of steps before this one are as they were last saved there.
        self._changed_from: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def memory(self) -> int:
        """Bytes that it takes of the machine's memory when it is full."""
        own = (c for c in self.columns.values() if not isinstance(c, np.memmap))
        return sum(column.nbytes for column in own)

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self.count()

    def count(self, sources: Sequence[Source] = tuple(Source)) -> int:
        """Transitions that one of `sources` drove."""
        return sum(self._valid_counts[source] for source in sources)

    def operator_count(self) -> int:
        """Transitions that the operator drove."""
        return self.count((Source.OPERATOR,))

    def add_step(self, step: StepRecord) -> None:
        """Append one step. Evaluation steps are left out, and nothing is joined across them.

        The last step of a discarded episode is left out too, and from then on no transition of
        that episode is sampled any more, whatever was lost of it in between.

        ValueError for wrong shapes and values that are not finite; the buffer is then unchanged.
        """
        checked = self._checked(step) if is_stored(step) else None
        with self._lock:
            robot, number = self._robot_of(step), self.total
            if checked is not None:
                if self.interleaved:
                    self._link(step, robot.last)
                self._append(step, *checked)
            self._apply(robot.interrupt() if step.evaluation else robot.push(step, number))

    def _robot_of(self, step: StepRecord) -> RobotSteps:
        name = step.robot if self.interleaved else ""
        if name not in self._robots:
            self._robots[name] = RobotSteps(*self._labelling)
        return self._robots[name]

    def _link(self, step: StepRecord, previous: int | None) -> None:
        """Of a step that is about to be appended: its robot, and where the robot's last one finds it."""
        row = self.total % self.capacity
        if previous is not None and self.total - previous < self.capacity:
            distance, next_rows = self.total - previous, self.columns["next"]
            if next_rows[previous % self.capacity] != distance:
                next_rows[previous % self.capacity] = distance
                self._note_change(previous)  # no label may do so: before a HOLD there is none
        self.columns["next"][row] = 1
        self.columns["robot"][row] = list(self._robots).index(step.robot)

    def _append(self, step: StepRecord, state: np.ndarray, action: np.ndarray) -> None:
        row = self.total % self.capacity
        self._set_valid(row, False)
        self.columns["state"][row] = state
        self.columns["action"][row] = action
        self.columns["reward"][row] = self.columns["terminal"][row] = 0.0
        self.columns["source"][row] = Source.NONE if step.is_last else step.source
        self._note_refused(step, row)
        for i, image in enumerate(step.images):
            self.columns[f"image_{i}"][row] = image
        self.total += 1

    def _note_refused(self, step: StepRecord, row: int) -> None:
        """What the policy asked for while the operator drove. A number that is not finite, or another
        size, is not known: nobody executed it."""
        asked = np.asarray(step.refused_action, np.float32)
        known = step.source == Source.OPERATOR and not step.is_last
        known = known and asked.shape == (self.action_dim,) and bool(np.isfinite(asked).all())
        self.columns["refused"][row] = known
        self.columns["refused_action"][row] = np.clip(asked, -1.0, 1.0) if known else 0.0
        self.columns["refused_reward"][row] = refused_reward(step, self._labelling[0])

    def interrupt(self) -> None:
        """What follows is of another recording: nothing is joined, no label waits for it."""
        with self._lock:
            for robot in self._robots.values():
                self._apply(robot.interrupt())

    def add_episode(self, steps: Iterable[StepRecord]) -> None:
        """Append the steps of an episode, in order."""
        for step in steps:
            self.add_step(step)

    def sample(
        self,
        batch: int,
        rng: np.random.Generator,
        count: int | None = None,
        sources: Sequence[Source] = tuple(Source),
        images: bool = True,
        refused_ratio: float = 0.0,
    ) -> Batch:
        """`batch` transitions, uniformly and with replacement; with `count`, that many batches.

        `sources`: only transitions that one of them drove. ValueError if there is none. `images`:
        False leaves them out, which saves most of the time where nothing looks at them.
        `refused_ratio`: of RLPDConfig; without it actions are those that were executed.
        """
        shape = (batch,) if count is None else (count, batch)
        with self._lock:
            rows = self._draw(batch * (count or 1), rng, sources)
            drawn = self._gather(rows, shape, images)
            if refused_ratio:
                self._refuse(drawn, rows, rng.random(len(rows)) < refused_ratio)
            return drawn

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Nothing is added while this is entered: for a checkpoint of one moment."""
        with self._lock:
            yield

    def states(self) -> np.ndarray:
        """Those of all steps that it holds, [steps, state_dim], in no order."""
        return self.columns["state"][: min(self.total, self.capacity)]

    def state(self) -> dict[str, Any]:
        """All but the rows, as JSON holds it."""
        own: dict[str, Any] = {}
        if self.interleaved:
            own["robots"] = {
                name: {"labels": robot.labeller.state(), "numbers": robot.numbers.copy()}
                for name, robot in self._robots.items()
            }
        return {
            "capacity": self.capacity,
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "images": [list(shape) for shape in self.image_shapes],
            "total": self.total,
            "labels": self._robots[""].labeller.state(),
            **own,
        }

    def changed_steps(self, saver: Any) -> range:
        """Steps still held that are new or newly labelled since `saver` called `mark_saved`; all
        of them if it never did, or if the buffer was restored since."""
        oldest = max(0, self.total - self.capacity)
        first = self._changed_from.get(saver, 0)
        return range(min(max(first, oldest), self.total), self.total)

    def mark_saved(self, saver: Any, up_to: int) -> None:
        """`saver` has the steps before `up_to` as they are now. Others who save are not concerned."""
        self._changed_from[saver] = up_to

    def read_rows(self, steps: range) -> dict[str, np.ndarray]:
        """Copies of all columns for these steps (counted since the first ever added)."""
        rows = np.arange(steps.start, steps.stop) % self.capacity
        return {name: column[rows] for name, column in self.columns.items()}

    def restore(
        self, state: dict[str, Any], parts: Iterable[tuple[range, dict[str, np.ndarray]]]
    ) -> None:
        """Become what `state` and, oldest first, the rows of `read_rows` describe.

        ValueError if they belong to a buffer of other sizes or other labels.
        """
        with self._lock:
            self._load_robots(state)
            self.total = state["total"]
            self.columns["valid"][:] = False
            self.columns["refused"][:] = False  # not in checkpoints of earlier versions
            for steps, columns in parts:
                held = np.arange(steps.start, steps.stop)
                kept = (held >= self.total - self.capacity) & (held < self.total)
                for name, column in self.columns.items():
                    if name in columns:
                        column[held[kept] % self.capacity] = columns[name][kept]
            driven = self.columns["source"][self.columns["valid"]]
            self._valid_counts = np.bincount(driven, minlength=len(Source)).tolist()
            self._changed_from.clear()

    def _load_robots(self, state: dict[str, Any]) -> None:
        """One robot's rows are those of several as well: each is next to the one before."""
        robots = {"": {"labels": state["labels"], "numbers": None}, **state.get("robots", {})}
        self._robots = {name: RobotSteps(*self._labelling) for name in robots}
        for name, values in robots.items():
            self._robots[name].load(values["labels"], values["numbers"])
        if self.interleaved:
            self.columns["next"][:], self.columns["robot"][:] = 1, 0

    def _checked(self, step: StepRecord) -> tuple[np.ndarray, np.ndarray]:
        state = np.asarray(step.state, np.float32)
        action = np.asarray(step.action, np.float32)
        if step.is_last:
            action = np.zeros(self.action_dim, np.float32)
        where = f"step {step.step_index} of episode {step.episode_id}"
        for name, value, size in (
            ("state", state, self.state_dim),
            ("action", action, self.action_dim),
        ):
            if value.shape != (size,):
                raise ValueError(
                    f"{name} of {where}: found shape {value.shape}, expected ({size},)"
                )
            if not np.isfinite(value).all():
                raise ValueError(f"{name} of {where}: found {value}, expected finite numbers")
        shapes = tuple((*image.shape,) for image in step.images)
        types = {image.dtype for image in step.images}
        if shapes != self.image_shapes or types - {self.image_dtype}:
            raise ValueError(
                f"images of {where}: found {shapes} of {sorted(map(str, types))}, expected "
                f"{self.image_shapes} of {self.image_dtype}"
            )
        return state, action

    def _apply(self, labels: list[Label]) -> None:
        for label in labels:
            if label.index < self.total - self.capacity:
                continue  # overwritten while its label was not known
            row = label.index % self.capacity
            self.columns["reward"][row] = label.reward
            self.columns["terminal"][row] = label.terminal
            self._set_valid(row, label.learned)
            self._note_change(label.index)

    def _note_change(self, index: int) -> None:
        """For who saves next: the rows from this step on are not as they were last saved."""
        for saver, first in self._changed_from.items():
            self._changed_from[saver] = min(first, index)

    def _set_valid(self, row: int, valid: bool) -> None:
        change = int(valid) - int(self.columns["valid"][row])
        self._valid_counts[self.columns["source"][row]] += change
        self.columns["valid"][row] = valid

    def _draw(self, count: int, rng: np.random.Generator, sources: Sequence[Source]) -> np.ndarray:
        filled, usable = min(self.total, self.capacity), self.count(sources)
        if not usable:
            names = " or ".join(source.name for source in sources)
            raise ValueError(
                f"found no transition driven by {names} among {self.total} steps; add some before "
                "sampling"
            )
        if self._evenly:
            return self._draw_evenly(
                np.flatnonzero(self._usable(np.arange(filled), sources)), count, rng
            )
        if 4 * usable < filled:  # too few to come across by chance
            candidates = np.flatnonzero(self._usable(np.arange(filled), sources))
            return candidates[rng.integers(len(candidates), size=count)]
        rows = rng.integers(filled, size=count)
        while len(rejected := np.flatnonzero(~self._usable(rows, sources))):
            rows[rejected] = rng.integers(filled, size=len(rejected))
        return rows

    def _draw_evenly(
        self, candidates: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """`count` of the rows `candidates`: first which robot, then which of its rows."""
        robots = self.columns["robot"].take(candidates)
        pools = [candidates[robots == robot] for robot in np.unique(robots)]
        chosen = rng.integers(len(pools), size=count)
        rows = np.empty(count, candidates.dtype)
        for i, pool in enumerate(pools):
            wanted = chosen == i
            rows[wanted] = pool[rng.integers(len(pool), size=np.count_nonzero(wanted))]
        return rows

    def _usable(self, rows: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
        usable = self.columns["valid"].take(rows)
        if len(sources) < len(Source):
            wanted = np.zeros(len(Source), bool)
            wanted[list(sources)] = True
            usable &= wanted.take(self.columns["source"].take(rows))
        return usable

    def _refuse(self, batch: Batch, rows: np.ndarray, chosen: np.ndarray) -> None:
        """In the batch, at the `chosen` of its rows that have one, the refused action and its reward."""
        at = np.flatnonzero(chosen & self.columns["refused"].take(rows))
        actions, rewards = batch.actions.numpy(), batch.rewards.numpy()
        actions.reshape(len(rows), -1)[at] = self.columns["refused_action"][rows[at]]
        rewards = rewards.reshape(len(rows))
        rewards[at] = np.minimum(rewards[at], self.columns["refused_reward"][rows[at]])

    def _gather(self, rows: np.ndarray, shape: tuple[int, ...], images: bool = True) -> Batch:
        following = rows + (self.columns["next"].take(rows) if self.interleaved else 1)
        following[following >= self.capacity] -= self.capacity
        pairs = np.concatenate((rows, following)).reshape(2, -1)

        def take(name: str, at: np.ndarray) -> Tensor:
            column = self.columns[name]
            taken = column.take(at, axis=0)
            return torch.from_numpy(taken.reshape(*at.shape[:-1], *shape, *column.shape[1:]))

        # Now and next at once: one large piece of memory, where two would be fetched from the
        # system and given back with every batch of images.
        states, next_states = take("state", pairs)
        cameras = range(len(self.image_shapes) if images else 0)
        pictures = [take(f"image_{i}", pairs) for i in cameras]
        return Batch(
            states=states,
            actions=take("action", rows),
            rewards=take("reward", rows),
            next_states=next_states,
            terminals=take("terminal", rows),
            images=tuple(now for now, _ in pictures),
            next_images=tuple(after for _, after in pictures),
        )


def _lock_directory(directory: Path) -> IO[bytes]:
    """The directory's lock, held until the file that is returned is closed."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ValueError(
            f"memmap_dir: found {directory} in use by another buffer, expected a directory of its "
            "own; name another one, or end the process that has it"
        ) from error
    return lock


def _image_column(
    shape: tuple[int, ...], dtype: np.dtype, index: int, directory: Path | None
) -> np.ndarray:
    if directory is None:
        return np.zeros(shape, dtype)
    path, size = directory / f"image_{index}.bin", math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with path.open("wb") as file:
            # All of it now: a disk that fills up under a mapped file ends the process at once.
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"image_directory: {path} needs {size / 1e9:.2f} GB: {error.strerror}; name "
            "another disk, or lower capacity and prior_capacity"
        ) from error  # fmt: skip
    return np.memmap(path, dtype, mode="r+", shape=shape)
