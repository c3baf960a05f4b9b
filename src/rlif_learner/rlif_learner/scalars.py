# SPDX-License-Identifier: Apache-2.0
"""The training's curves as TensorBoard events."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlif_learner.training import TrainingStatus

RETRY = 30.0  # s of wall time until a directory that could not be written to is tried again


class Scalars:
    """Writes one point of every curve per status. The directory is made if need be.

    `problem`: why there are no curves at present; empty while they are written. A disk that is full
    ends neither the training nor the curves: a new file is begun when there is room again.
    OSError if the directory cannot be written to at the start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = self._open()
        self._open_at = 0.0  # wall time of the next try
        self._last: tuple[int, int] = (-1, -1)
        self.problem = ""

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

        self._directory.mkdir(parents=True, exist_ok=True)
        return SummaryWriter(str(self._directory))

    def write(self, status: TrainingStatus) -> None:
        """By Steps received; nothing where neither steps nor updates have moved."""
        if (status.steps, status.updates) == self._last:
            return
        if self._writer is None and time.monotonic() < self._open_at:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
            self._add(status)
        except OSError as problem:
            self._drop_writer(f"no curves in {self._directory}: {problem}")
            return
        self._last, self.problem = (status.steps, status.updates), ""

    def _add(self, status: TrainingStatus) -> None:
        values = {f"learner/{name}": value for name, value in status.metrics.items()}
        values["data/intervention_rate"] = status.intervention_rate
        values["data/transitions"] = status.transitions
        for robot in status.robots:
            values[f"{robot.robot}/intervention_rate"] = robot.intervention_rate
            values[f"{robot.robot}/success_rate"] = robot.success_rate
            values[f"{robot.robot}/steps"] = robot.steps
        values["speed/critic_steps_per_s"] = status.critic_steps_per_s
        values["speed/updates_per_step"] = status.updates_per_step
        for name, value in values.items():
            self._writer.add_scalar(name, value, status.steps)
        self._writer.flush()  # what a thread of TensorBoard could not write is raised here

    def _drop_writer(self, problem: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):  # the same again: what it holds it cannot write
                writer.close()
        self.problem, self._open_at = problem, time.monotonic() + RETRY

    def close(self) -> None:
        """End the file; `problem` says if what was still in memory could not be written."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as problem:
            self.problem = f"curves in {self._directory} lack their end: {problem}"
