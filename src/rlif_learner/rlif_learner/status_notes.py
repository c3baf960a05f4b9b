# SPDX-License-Identifier: Apache-2.0
"""What the learner's status tells a person: Steps that were dropped, updates that do not keep up."""

from __future__ import annotations

import math

from rlif_learner.training import Trainer

REMIND = 10.0  # s of wall time between two reports of dropped Steps
RATED_UPDATES = 6  # after which the rate of updates is compared with what is asked for


class DroppedSteps:
    """Words on the Steps that could not be taken in, at most every REMIND seconds new ones."""

    def __init__(self) -> None:
        self.note = ""
        self._count, self._reported, self._report_at = 0, 0, -math.inf
        self._reason = ""

    def add(self, reason: str) -> None:
        self._count, self._reason = self._count + 1, reason

    def refresh(self, now: float) -> None:
        if self._count > self._reported and now >= self._report_at:
            self.note = f"Steps dropped: {self._count}, the last: {self._reason}"
            self._reported, self._report_at = self._count, now + REMIND


class Behind:
    """Reports, once, that the machine makes fewer updates than the Steps ask for.

    step_rate: Steps per second while an episode runs; 0: not known, or episodes wait for the updates.
    """

    def __init__(self, step_rate: float) -> None:
        self.note = ""
        self.slow = False  # by its rate: a backlog grows for as long as an episode runs
        self._step_rate = step_rate

    def measure(self, trainer: Trainer) -> bool:
        """Compare the rate of updates, after the first few of them. Whether it is too low."""
        if trainer.timed_updates == RATED_UPDATES:
            self._compare(trainer)
            return self.slow
        return False

    def report(self, trainer: Trainer) -> None:
        """Updates of `trainer` do not keep up."""
        if self.note:
            return
        asked = trainer.config.updates_per_step
        second = f", {asked * self._step_rate:.3g} per second" if self._step_rate else ""
        self.note = (
            f"behind: the machine makes {1.0 / trainer.update_seconds:.2g} updates per second, and "
            f"updates_per_step asks for {asked:g} per Step{second}; those not done when an episode "
            "begins are dropped. Lower updates_per_step, utd, batch_size, encoder_channels or the size "
            "of images, or give the learner more of a core"
        )

    def clear(self, trainer: Trainer) -> None:
        """The updates have caught up, be it only since nothing came for a while."""
        self._compare(trainer)

    def _compare(self, trainer: Trainer) -> None:
        asked = trainer.config.updates_per_step * self._step_rate
        self.slow = asked * trainer.update_seconds > 1.0
        if self.slow:
            self.report(trainer)
        else:
            self.note = ""
