# SPDX-License-Identifier: Apache-2.0
"""The learner's own thread: Steps go in through a queue, weights and statuses come out.

Everything of the training belongs to this thread alone, so nothing is locked and nothing can be
half done. What goes wrong, and what happens then:

    a Step cannot be taken in     it is dropped, counted as lost, and named in the status
    an update is not finite       no more updates; the last good weights stay, and are saved; Steps
                                  are still taken in, and saved at the end
    a checkpoint is not written   it is reported, and tried again
    buffers have no room          Steps are dropped; the buffers are tried again
    updates fall behind           what is due beyond `longest_backlog` is dropped, and reported once
    anything else                 ends the thread after a last checkpoint, and is kept for whoever
                                  asks `failure`: never swallowed

A checkpoint is scored by the evaluation episodes that the policy has driven since the last update,
if there were enough of them (training.EvaluationCounts). One is saved when training goes on after
such an evaluation, so that the weights that were evaluated are kept.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.counts import RobotCounts, StepFacts
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.steps import StepRecord
from rlif_learner.status_notes import Behind, DroppedSteps
from rlif_learner.training import RobotStatus, Trainer, TrainingStatus
from rlif_policy.networks import PolicySpec
from rlif_policy.weights import WeightsError, check_tensors, pack_weights

STATUS_PERIOD = 1.0  # s of wall time
PUBLISH_PERIOD = 5.0  # s of wall time after which weights are published whatever the backlog
OTHER_CLOCK = 3600.0  # s; a latency beyond this is a difference of two clocks
RETRY = 10.0  # s of wall time until buffers that found no room are tried again


@dataclass(frozen=True)
class Weights:
    """A set of weights as it goes to the policies of `robots`. sha256: of data."""

    version: int
    spec: PolicySpec
    data: bytes
    sha256: str
    robots: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class LoopConfig:
    """When to publish and to save. ValueError names the field.

    Attributes:
        publish_every: updates between two sets of weights; 0: at the end of episodes only, each robot
            at the end of its own, as far as its Steps tell: before the first Step of an episode that
            has begun it may get some too. Where the learner is behind at an episode's end, and with any
            other number than 0, there are new ones at least every PUBLISH_PERIOD too.
        checkpoint_every: updates between two checkpoints; 0: none by updates.
        checkpoint_period: s between two checkpoints; 0: none by time.
        longest_backlog: s that the updates due may take when an episode begins; those of a longer
            backlog are dropped, and all of them on a machine that is too slow for `step_rate`. 0: none
            ever is.
        step_rate: Steps per second of one robot while an episode runs; 0: not known, or episodes wait
            for updates.
        torch_threads: of the training.
        robots: names of several, as the Trainer's; empty: there is one, without a name.
    """

    publish_every: int = 50
    checkpoint_every: int = 0
    checkpoint_period: float = 0.0
    longest_backlog: float = 0.0
    step_rate: float = 0.0
    torch_threads: int = 1
    robots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lowest_values = {
            "publish_every": 0, "checkpoint_every": 0, "checkpoint_period": 0.0,
            "longest_backlog": 0.0, "step_rate": 0.0, "torch_threads": 1,
        }  # fmt: skip
        for name, lowest in lowest_values.items():
            if not lowest <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected >= {lowest}")


@dataclass
class _Save:
    done: Future[Path] = field(default_factory=Future)


@dataclass(frozen=True)
class _Dropped:
    step: StepFacts
    reason: str
    robot: str


class _Stop:
    """Asks the thread to end."""


class TrainingEndedError(RuntimeError):
    """The training thread has ended; it cannot do what was asked for."""


class LearnerLoop:
    """Runs a Trainer in a thread of its own.

    make_trainer: builds the Trainer when the size of the state is known
    on_weights, on_status: called from the thread; (status, weights version, note)
    on_taken: likewise, with each Step that was taken in
    store: where checkpoints go; None: nowhere
    """

    def __init__(
        self,
        make_trainer: Callable[[int], Trainer],
        on_weights: Callable[[Weights], None],
        on_status: Callable[[TrainingStatus, int, str], None],
        config: LoopConfig,
        store: CheckpointStore | None = None,
        trainer: Trainer | None = None,
        version: int = 0,
        on_taken: Callable[[StepRecord, Trainer], None] = lambda step, trainer: None,
    ) -> None:
        self._on_taken = on_taken
        self._make_trainer, self._trainer = make_trainer, trainer
        self._on_weights, self._on_status = on_weights, on_status
        self._config, self._store = config, store
        self._inbox: queue.SimpleQueue[StepRecord | _Dropped | _Save | _Stop] = queue.SimpleQueue()
        self._version = version  # of the weights published last
        self._packed: Weights | None = None  # those
        self._early = RobotCounts(config.robots)  # before the size of the state is known
        names = self._early.names
        # Wall time of the next publication to each that does not wait for anything.
        self._publish_by = dict.fromkeys(names, 0.0)
        self._sent = dict.fromkeys(names, -1)  # updates in the weights that each robot has
        self._versions = dict.fromkeys(names, 0)  # of these weights
        # Robots whose episode has ended: the next one may wait for the updates due.
        self._waiting = {name for name in names if self._counts.of(name).at_episode_end}
        self._overdue: set[str] = set()  # those whose next one may have begun without them
        self._running: set[str] = set()  # of several: those whose episode runs, evaluation too
        self._arrivals: dict[str, tuple[float, float]] = {}  # wall time and latency of newest Steps
        step_rate = config.step_rate * len(names)
        self._behind = Behind(step_rate if config.longest_backlog else 0.0)
        self._make_at = -math.inf  # wall time of the next try to make the trainer
        self._unmade = ""  # why there is none
        self._save_by = math.inf  # wall time of the next checkpoint by time
        self._saved_at: tuple[int, int] | None = None  # steps and updates then
        self._dropped = DroppedSteps()
        self._stopped = ""  # why there are no more updates
        self._unsaved = ""  # what went wrong with the last checkpoint that nobody asked for
        self._next_status = 0.0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")
        self._result: Future[None] | None = None

    # ---- called from other threads

    def start(self) -> None:
        """Publish the initial weights, if the size of the state is known, and begin."""
        self._result = self._pool.submit(self._run)
        self._result.add_done_callback(lambda _: self._refuse_waiting())

    def receive(self, step: StepRecord) -> None:
        """Hand over a Step; returns at once."""
        self._inbox.put(step)

    def drop(self, step: StepFacts, reason: str, robot: str = "") -> None:
        """Report a Step that cannot become a StepRecord; returns at once."""
        self._inbox.put(_Dropped(step, reason, robot))

    def request_save(self) -> Future[Path]:
        """Ask for a checkpoint after the update that is running; returns at once.

        The result raises what went wrong: TrainingEndedError if the thread has ended.
        """
        if self._store is None:
            raise ValueError("no checkpoint_directory: set it, or run_directory, to save any")
        request = _Save()
        self._inbox.put(request)
        if self._result is not None and self._result.done():
            self._refuse_waiting()
        return request.done

    def save(self, timeout: float) -> Path:
        """`request_save`, and wait for it."""
        return self.request_save().result(timeout)

    def stop(self, timeout: float) -> None:
        """End the thread after a last checkpoint. Raises what the thread failed of, if it did."""
        self._inbox.put(_Stop())
        if self._result is not None:
            self._result.result(timeout)
        self._pool.shutdown(wait=False)

    def failure(self) -> BaseException | None:
        """What ended the thread, if anything did."""
        if self._result is None or not self._result.done():
            return None
        return self._result.exception()

    # ---- the thread

    def _run(self) -> None:
        torch.set_num_threads(self._config.torch_threads)  # holds for the calling thread
        self._set_save_by()
        try:
            if self._trainer is not None:
                self._publish_weights(self._trainer)
            self._publish_status()
            while not self._turn():
                pass
        except Exception as failure:
            try:
                self._save_unasked("after the failure")
            except Exception as problem:
                raise failure from problem
            raise
        self._save_at_end()

    def _refuse_waiting(self) -> None:
        """Who has asked for a checkpoint since the thread ended need not wait for it."""
        try:
            while True:
                item = self._inbox.get_nowait()
                if isinstance(item, _Save):
                    reason = self.failure() or "it was asked to"
                    item.done.set_exception(
                        TrainingEndedError(f"no checkpoint: the training has ended: {reason}")
                    )
        except queue.Empty:
            return

    def _turn(self) -> bool:
        """Take in what has come, then at most one update. True: the end was asked for."""
        trainer = self._trainer
        busy = trainer is not None and trainer.due
        if self._take_in(wait=not busy):
            return True
        trainer = self._trainer
        if trainer is not None and trainer.due:
            self._update(trainer)
        if trainer is not None:
            if trainer.caught_up and self._waiting - self._running:
                self._announce(trainer)
            self._publish_overdue(trainer)
            self._save_overdue(trainer)
        if time.monotonic() >= self._next_status:
            self._publish_status()
        return False

    def _take_in(self, wait: bool) -> bool:
        """All that is in the queue; with `wait`, until something comes or a status is due."""
        timeout = max(0.0, self._next_status - time.monotonic())
        try:
            item = self._inbox.get(block=wait, timeout=timeout)
            while not isinstance(item, _Stop):
                self._handle(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return False
        return True

    def _handle(self, item: StepRecord | _Dropped | _Save) -> None:
        if isinstance(item, _Save):
            self._answer(item)
        elif isinstance(item, _Dropped):
            self._note_running(item.step, item.robot)
            self._drop(item.step, item.reason, item.robot)
        else:
            self._note_running(item, item.robot)
            self._take_in_step(item)

    def _note_running(self, step: StepFacts, robot: str) -> None:
        if step.is_last:
            self._running.discard(robot)
        elif self._config.robots:
            self._running.add(robot)

    def _take_in_step(self, step: StepRecord) -> None:
        trainer = self._trainer or self._first_trainer(step)
        if trainer is None:
            return
        if not step.evaluation:
            self._keep_evaluated(trainer)
            if step.is_first and self._config.longest_backlog:
                self._drop_backlog(trainer)
        try:
            trainer.receive(step)
        except ValueError as problem:
            self._drop(step, str(problem), step.robot)
            return
        self._arrivals[step.robot] = time.monotonic(), latency(step.stamp)
        if not step.evaluation:
            self._expect_announcement(step.robot)
        self._on_taken(step, trainer)

    def _drop_backlog(self, trainer: Trainer) -> None:
        """An episode begins although updates of earlier ones are due: nobody waits for them."""
        longest = 0.0 if self._behind.slow else self._config.longest_backlog
        if trainer.drop_backlog(longest):
            self._behind.report(trainer)

    @property
    def _counts(self) -> RobotCounts:
        return self._early if self._trainer is None else self._trainer.counts

    def _expect_announcement(self, robot: str) -> None:
        self._waiting.discard(robot)
        if self._counts.of(robot).at_episode_end:
            self._waiting.add(robot)
            self._overdue.add(robot)

    def _first_trainer(self, step: StepRecord) -> Trainer | None:
        """Made for the state of the first Step that can be learned from."""
        if step.evaluation:
            return None
        if len(step.state) == 0:
            where = f"step {step.step_index} of episode {step.episode_id}"
            self._drop(step, f"{where}: no state", step.robot)
            return None
        if time.monotonic() >= self._make_at:
            try:
                self._trainer = self._make_trainer(len(step.state))
            except OSError as problem:  # no room for the images, which there may be later
                self._make_at = time.monotonic() + RETRY
                self._unmade = f"no buffers, tried again after {RETRY:g} s: {problem}"
        if self._trainer is None:
            self._drop(step, self._unmade, step.robot)
            return None
        self._trainer.counts = self._early
        self._publish_weights(self._trainer)
        return self._trainer

    def _drop(self, step: StepFacts, reason: str, robot: str) -> None:
        """It is lost, and what it would have joined stays apart: its sequence is a gap."""
        self._counts.of(robot).drop(step)
        self._arrivals[robot] = time.monotonic(), math.nan  # it has come, and not to the buffer
        if not step.evaluation:
            self._expect_announcement(robot)
        self._dropped.add(f"{robot}: {reason}" if robot else reason)

    def _update(self, trainer: Trainer) -> None:
        try:
            trainer.update()
        except NonFiniteError as problem:
            self._stop_updates(trainer, problem)
            return
        if self._behind.measure(trainer):
            self._publish_status()
        updates, config = trainer.algorithm.updates, self._config
        if config.publish_every and updates % config.publish_every == 0:
            self._publish_weights(trainer)
        if config.checkpoint_every and updates % config.checkpoint_every == 0:
            self._save_unasked(
                f"at update {updates}, tried again {config.checkpoint_every} updates later"
            )

    def _stop_updates(self, trainer: Trainer, problem: NonFiniteError) -> None:
        """That step was not taken: the weights are good, and go out and to the disk once more."""
        trainer.stopped = True
        self._stopped = f"stopped: no more updates, Steps are still recorded: {problem}"
        try:
            self._publish_weights(trainer)
        except WeightsError as refused:  # then those that were published stay with the policy
            self._sent = dict.fromkeys(self._sent, trainer.algorithm.updates)
            self._stopped += f"; the policy keeps version {self._version}: {refused}"
        self._save_unasked("after the last update, tried again at the end")
        self._publish_status()

    def _announce(self, trainer: Trainer) -> None:
        """At the end of an episode the next one may wait for this: weights first, then status.

        They also go to robots that have waited for longer, and not to those that are evaluated
        meanwhile: they wait until that episode has ended.
        """
        at_end = {name for name in self._sent if trainer.counts.of(name).at_episode_end}
        idle = at_end - self._running
        self._waiting.difference_update(idle)
        self._overdue.difference_update(idle)
        self._behind.clear(trainer)
        self._publish_weights(trainer, idle)
        self._publish_status()

    def _publish_overdue(self, trainer: Trainer) -> None:
        """However far the learner is behind, the policy gets what it has learned so far."""
        robots = set(self._sent)
        if not self._config.publish_every:
            robots = self._overdue - (self._waiting & self._running)  # and not those evaluated
        now = time.monotonic()
        if any(now >= self._publish_by[robot] for robot in robots):
            self._publish_weights(trainer, robots)

    def _publish_weights(self, trainer: Trainer, robots: Collection[str] | None = None) -> None:
        """The newest ones to those of `robots`, None: all of them, that have older ones."""
        algorithm = trainer.algorithm
        targets = [
            name
            for name, updates in self._sent.items()
            if updates < algorithm.updates and (robots is None or name in robots)
        ]
        if not targets:
            return
        self._publish_by.update(dict.fromkeys(targets, time.monotonic() + PUBLISH_PERIOD))
        if self._packed is None or max(self._sent.values()) < algorithm.updates:
            data, sha256 = pack_weights(algorithm.policy, algorithm.spec)
            self._version += 1
            self._packed = Weights(self._version, algorithm.spec, data, sha256)
        self._sent.update(dict.fromkeys(targets, algorithm.updates))
        self._versions.update(dict.fromkeys(targets, self._version))
        self._on_weights(replace(self._packed, robots=tuple(targets)))

    def _publish_status(self) -> None:
        now = time.monotonic()
        self._next_status = now + STATUS_PERIOD
        self._dropped.refresh(now)
        if self._trainer is None:
            status = replace(NOTHING_YET, lost_steps=self._early.lost)
        else:
            status = self._trainer.status()
        if self._config.robots:
            status = replace(status, robots=tuple(map(self._robot_status, self._config.robots)))
        notes = (self._stopped, self._unsaved, self._behind.note, self._dropped.note)
        self._on_status(status, self._version, "; ".join(note for note in notes if note))

    def _robot_status(self, robot: str) -> RobotStatus:
        counts = self._counts.of(robot)
        arrived, late = self._arrivals.get(robot, (math.nan, math.nan))
        # What others have sent since takes back nothing: its next episode need not wait for that.
        caught_up = self._trainer is None or self._trainer.caught_up
        announced = counts.at_episode_end and robot not in self._waiting
        return RobotStatus(
            robot, counts.steps, counts.lost, counts.episodes, counts.intervention_rate,
            counts.success_rate, time.monotonic() - arrived, late, self._versions[robot],
            caught_up or announced,
        )  # fmt: skip

    # ---- checkpoints

    def _answer(self, request: _Save) -> None:
        if self._trainer is None or self._store is None:
            request.done.set_exception(ValueError("nothing to save before the first Step"))
            return
        try:
            request.done.set_result(self._save(self._trainer, self._store))
        except (OSError, WeightsError) as problem:  # a full disk must not end the training
            request.done.set_exception(problem)
        except Exception as problem:
            request.done.set_exception(problem)
            raise

    def _keep_evaluated(self, trainer: Trainer) -> None:
        """Training goes on: the weights that were evaluated until now are kept with their score."""
        if trainer.evaluation.score is not None:
            self._save_unasked("of the weights that were evaluated")
            trainer.evaluation.begin_anew()

    def _save_overdue(self, trainer: Trainer) -> None:
        """The checkpoint by time, if anything is new since the last one."""
        if time.monotonic() < self._save_by:
            return
        self._set_save_by()
        if self._progress(trainer) != self._saved_at:
            period = self._config.checkpoint_period
            self._save_unasked(f"by time, tried again {period:g} s later")

    def _set_save_by(self) -> None:
        if self._config.checkpoint_period and self._store is not None:
            self._save_by = time.monotonic() + self._config.checkpoint_period

    def _progress(self, trainer: Trainer) -> tuple[int, int]:
        return trainer.counts.steps, trainer.algorithm.updates

    def _save_unasked(self, when: str) -> None:
        """A full disk must not end the training: it is reported."""
        if self._trainer is None or self._store is None:
            return
        try:
            self._save(self._trainer, self._store)
        except (OSError, WeightsError) as problem:
            self._unsaved = f"no checkpoint {when}: {problem}"
            self._publish_status()

    def _save(self, trainer: Trainer, store: CheckpointStore) -> Path:
        algorithm = trainer.algorithm
        check_tensors(algorithm.policy.export_state_dict(), algorithm.spec)  # none over a good one
        extra: dict[str, Any] = {**trainer.counters(), "policy_version": self._version}
        score = trainer.evaluation.score
        path = store.save(algorithm, trainer.buffers, score=score, extra=extra)
        self._unsaved, self._saved_at = "", self._progress(trainer)
        self._set_save_by()
        return path

    def _save_at_end(self) -> None:
        if self._store is not None and self._trainer is not None:
            self._save(self._trainer, self._store)


def latency(stamp: int) -> float:
    """s since `stamp`, in ns of the system's clock. Not a number for a stamp of another clock."""
    seconds = (time.time_ns() - stamp) * 1e-9
    return seconds if abs(seconds) < OTHER_CLOCK else math.nan


NOTHING_YET = TrainingStatus(0, 0, 0, 0, 0, 0.0, True, 0, 0.0, {})
