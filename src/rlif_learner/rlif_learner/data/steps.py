# SPDX-License-Identifier: Apache-2.0
"""One step of an episode, free of ROS: what rlif_msgs/Step holds and the learner needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from rlif_node.states import Outcome, Source

_NO_ACTION = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StepRecord:
    """Observation and decision of one tick. An episode of T actions is T + 1 of them.

    The last one (`is_last`) carries the final observation, the outcome, and no action.
    """

    sequence: int  # counts steps since the recorder started; a gap is a loss
    episode_id: int
    step_index: int  # from 0; a gap inside an episode: the step was not recorded
    is_first: bool
    is_last: bool
    outcome: int  # Outcome; RUNNING unless is_last
    source: int  # Source
    onset: bool  # first step of an intervention
    intervention_id: int  # from 1; 0: none on this step
    evaluation: bool  # not to be learned from
    state: np.ndarray  # [state_dim], SI units
    action: np.ndarray = field(default_factory=lambda: _NO_ACTION)  # executed, in [-1, 1]
    images: tuple[np.ndarray, ...] = ()  # uint8 [height, width, channels] each
    cameras: tuple[str, ...] = ()  # names of the images; empty: not known
    stamp: int = 0  # ns, of the observation; 0: not known
    robot: str = ""  # of several, which one; empty: there is one
    # Of a step of the operator: what the policy asked for; empty: not known.
    refused_action: np.ndarray = field(default_factory=lambda: _NO_ACTION)

    def __post_init__(self) -> None:
        Outcome(self.outcome)  # a number that is none of them raises ValueError here
        Source(self.source)
        if not self.is_last and np.size(self.action) == 0:
            raise ValueError(
                f"step {self.step_index} of episode {self.episode_id}: found no action, expected "
                "one in every step but the last; check the recorder"
            )


def discards(step: StepRecord) -> bool:
    """Whether `step` is the end of an episode that is not to be learned from."""
    return step.is_last and step.outcome == Outcome.DISCARDED


def is_stored(step: StepRecord) -> bool:
    """Whether a buffer keeps the step: neither evaluation nor the end of a discarded episode."""
    return not (step.evaluation or discards(step))


def follows(step: StepRecord, previous: StepRecord | None) -> bool:
    """Whether `step` is the very next one after `previous`: same episode, nothing lost between."""
    return (
        previous is not None
        and not previous.is_last
        and not step.is_first
        and step.episode_id == previous.episode_id
        and step.sequence == previous.sequence + 1
        and step.step_index == previous.step_index + 1
        and step.evaluation == previous.evaluation
    )


class Place(Protocol):
    """Where a step stands: a StepRecord, or a Step that none could be made of."""

    @property
    def sequence(self) -> int: ...
    @property
    def episode_id(self) -> int: ...
    @property
    def step_index(self) -> int: ...
    @property
    def evaluation(self) -> bool: ...


def missing_before(step: Place, sequence: int, episode_id: int, step_index: int) -> int:
    """Steps that must have been between `step` and the one before, which stood at these numbers.

    A step lost on the way is missing in both counts, one that the recorder could not make in the
    step index alone: the larger of the two gaps. Of evaluation only the sequence counts.
    """
    if step.sequence <= sequence:
        return 0  # the recorder is another one
    index = step_index if episode_id == step.episode_id else -1
    skipped = 0 if step.evaluation else step.step_index - index - 1
    return max(step.sequence - sequence - 1, skipped)
