"""The learner's own thread: Steps go in through a queue, weights and statuses come out.

Everything of the training belongs to this thread alone, so nothing is locked and nothing can be
half done. An exception ends the thread and is kept for whoever asks `failure`: never swallowed.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlif_learner.checkpoint import CheckpointStore
from rlif_learner.steps import StepRecord
from rlif_learner.training import Trainer, TrainingStatus
from rlif_policy.networks import PolicySpec
from rlif_policy.weights import pack_weights

STATUS_PERIOD = 1.0  # s of wall time


@dataclass(frozen=True)
class Weights:
    """A set of weights as it goes to the policy. sha256: of data."""

    version: int
    spec: PolicySpec
    data: bytes
    sha256: str


@dataclass(frozen=True)
class LoopConfig:
    """publish_every, checkpoint_every: in updates; 0: at the end of episodes, at the end only."""

    publish_every: int = 50
    checkpoint_every: int = 0
    torch_threads: int = 1

    def __post_init__(self) -> None:
        for name, lowest in (("publish_every", 0), ("checkpoint_every", 0), ("torch_threads", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected >= {lowest}")


@dataclass
class _Save:
    done: Future[Path] = field(default_factory=Future)


class _Stop:
    """Asks the thread to end."""


class LearnerLoop:
    """Runs a Trainer in a thread of its own.

    make_trainer: builds the Trainer when the size of the state is known
    on_weights, on_status: called from the thread; (status, weights version, note)
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
    ) -> None:
        self._make_trainer, self._trainer = make_trainer, trainer
        self._on_weights, self._on_status = on_weights, on_status
        self._config, self._store = config, store
        self._inbox: queue.SimpleQueue[StepRecord | _Save | _Stop] = queue.SimpleQueue()
        self._version = version  # of the weights published last
        self._published_at = -1  # updates then
        self._announced = False
        self._note = ""  # what went wrong with the last periodic checkpoint
        self._next_status = 0.0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")
        self._result: Future[None] | None = None

    # ---- called from other threads

    def start(self) -> None:
        """Publish the initial weights, if the size of the state is known, and begin."""
        self._result = self._pool.submit(self._run)

    def receive(self, step: StepRecord) -> None:
        """Hand over a Step; returns at once."""
        self._inbox.put(step)

    def save(self, timeout: float) -> Path:
        """Write a checkpoint after the update that is running. Raises what went wrong."""
        if self._store is None:
            raise ValueError("no checkpoint_directory: set it, or run_directory, to save any")
        request = _Save()
        self._inbox.put(request)
        return request.done.result(timeout)

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
        if self._trainer is not None:
            self._publish_weights(self._trainer)
        self._publish_status()
        while not self._turn():
            pass

    def _turn(self) -> bool:
        """Take in what has come, then at most one update. True: the end was asked for."""
        trainer = self._trainer
        busy = trainer is not None and trainer.due
        if self._take_in(wait=not busy):
            self._save_at_end()
            return True
        trainer = self._trainer
        if trainer is not None and trainer.due:
            self._update(trainer)
        if trainer is not None and trainer.caught_up and not self._announced:
            self._announce(trainer)
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

    def _handle(self, item: StepRecord | _Save) -> None:
        if isinstance(item, _Save):
            self._answer(item)
            return
        if self._trainer is None:
            if item.evaluation:
                return
            self._trainer = self._make_trainer(len(item.state))
            self._publish_weights(self._trainer)
        self._trainer.receive(item)
        if not item.evaluation:
            self._announced = False

    def _update(self, trainer: Trainer) -> None:
        trainer.update()
        updates, config = trainer.algorithm.updates, self._config
        if config.publish_every and updates % config.publish_every == 0:
            self._publish_weights(trainer)
        if self._store and config.checkpoint_every and updates % config.checkpoint_every == 0:
            self._save_on_the_way(trainer, self._store)

    def _announce(self, trainer: Trainer) -> None:
        """At the end of an episode the next one may wait for this: weights first, then status."""
        if not trainer.counts.at_episode_end:
            return
        self._announced = True
        if trainer.algorithm.updates > self._published_at:
            self._publish_weights(trainer)
        self._publish_status()

    def _publish_weights(self, trainer: Trainer) -> None:
        algorithm = trainer.algorithm
        data, sha256 = pack_weights(algorithm.actor, algorithm.spec)
        self._version += 1
        self._published_at = algorithm.updates
        self._on_weights(Weights(self._version, algorithm.spec, data, sha256))

    def _publish_status(self) -> None:
        self._next_status = time.monotonic() + STATUS_PERIOD
        status = NOTHING_YET if self._trainer is None else self._trainer.status()
        self._on_status(status, self._version, self._note)

    # ---- checkpoints

    def _answer(self, request: _Save) -> None:
        if self._trainer is None or self._store is None:
            request.done.set_exception(ValueError("nothing to save before the first Step"))
            return
        try:
            request.done.set_result(self._save(self._trainer, self._store))
        except OSError as problem:  # a full disk must not end the training
            request.done.set_exception(problem)

    def _save_on_the_way(self, trainer: Trainer, store: CheckpointStore) -> None:
        """A full disk must not end the training: it is said, and tried again an interval later."""
        try:
            self._save(trainer, store)
        except OSError as problem:
            self._note = (
                f"no checkpoint at update {trainer.algorithm.updates}, tried again "
                f"{self._config.checkpoint_every} updates later: {problem}"
            )
            self._publish_status()

    def _save(self, trainer: Trainer, store: CheckpointStore) -> Path:
        extra: dict[str, Any] = {**trainer.counters(), "policy_version": self._version}
        path = store.save(trainer.algorithm, trainer.buffers, extra=extra)
        self._note = ""
        return path

    def _save_at_end(self) -> None:
        if self._store is not None and self._trainer is not None:
            self._save(self._trainer, self._store)


NOTHING_YET = TrainingStatus(0, 0, 0, 0, 0, 0.0, True, 0, 0.0, {})
