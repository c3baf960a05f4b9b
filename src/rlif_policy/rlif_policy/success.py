# SPDX-License-Identifier: Apache-2.0
"""When a confidence counts as success, and where operator and detector disagree. No ROS, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from rlif_node.states import Outcome, Phase

SOURCE = "success detector"  # of its TaskSuccess, and so the reason of the episode's end


@dataclass(frozen=True)
class Disagreement:
    """As rlif_msgs/SuccessDisagreement. stamp: ns, of the newest observation of the episode."""

    episode_id: int
    stamp: int
    detector: bool
    operator_success: bool
    confidence: float


class SuccessWatch:
    """Counts confidences above the threshold; at `ticks` in a row the episode has succeeded, once."""

    def __init__(self, ticks: int) -> None:
        self.ticks = ticks
        self._episode, self._phase, self._start = 0, Phase.READY, 0
        self._count = 0  # above the threshold, in a row
        self._fired = False  # in this episode
        self._judged = False  # its disagreement is out
        self._stamp, self._confidence = 0, 0.0  # of the newest observation

    def episode(
        self, number: int, phase: Phase, stamp: int, outcome: Outcome
    ) -> Disagreement | None:
        """An Episode message. Its end without this detector may be a disagreement."""
        if phase is Phase.RUNNING:
            self._start, self._stamp, self._confidence = stamp, 0, 0.0
            self._count, self._fired, self._judged = 0, False, False
        if phase in (Phase.RUNNING, Phase.ENDED):  # else it is the number of the next one
            self._episode = number
        self._phase = phase
        if phase is not Phase.ENDED or not self._stamp:
            return None
        if outcome is Outcome.SUCCESS and not self._fired:
            return self._disagree(False)
        if outcome is Outcome.FAILURE and (self._fired or self._count):
            return self._disagree(True)
        return None

    def failure_pressed(self) -> Disagreement | None:
        """The failure button: after an episode that the detector ended, it was no success."""
        ended = self._phase is not Phase.RUNNING
        return self._disagree(True) if ended and self._fired else None

    def interrupt(self) -> None:
        """An observation that could not be judged: what follows is not in a row with what was before."""
        self._count = 0

    def _disagree(self, detector: bool) -> Disagreement | None:
        if self._judged:
            return None
        self._judged = True
        return Disagreement(self._episode, self._stamp, detector, not detector, self._confidence)

    def observe(self, stamp: int, confidence: float, threshold: float, off: bool) -> bool:
        """An observation of `stamp` (ns). True: the task has succeeded, now. off: it does not count."""
        if self._phase is not Phase.RUNNING or stamp < self._start:
            return False
        self._stamp, self._confidence = stamp, confidence
        self._count = self._count + 1 if confidence >= threshold and not off else 0
        if self._fired or self._count < self.ticks:
            return False
        self._fired = True
        return True
