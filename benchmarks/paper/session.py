# SPDX-License-Identifier: Apache-2.0
"""Plays an environment and records Steps, as the recorder node does from a robot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import gymnasium
import numpy as np
from sanity_gym import TaskRewardBuffer

from paper.tasks import Array, episode_seed
from rlif_learner import Outcome, ReplayBuffer, Source, StepRecord


def seeds(use: int, run: int, first: int = 0) -> Iterator[int]:
    """Seeds of the episodes of a run, without end."""
    return (episode_seed(use, episode, run) for episode in count(first))


class Session:
    """An environment that is played, one step at a time, into a buffer.

    The reward of the environment reaches a TaskRewardBuffer alone.

    :param seeds: of the episodes
    :param keep_operator: False leaves out the operator's steps but the first, without whose onset the
        step before has no label, and the last of each take-over
    :param fall_is_failure: see Settings
    """

    def __init__(
        self,
        env: gymnasium.Env,
        buffer: ReplayBuffer,
        seeds: Iterator[int],
        keep_operator: bool = True,
        fall_is_failure: bool = False,
    ) -> None:
        self.env, self.buffer, self._seeds = env, buffer, seeds
        self._keep_operator, self._fall_is_failure = keep_operator, fall_is_failure
        self._withheld: StepRecord | None = None
        self.episode = self.steps = self._index = self._sequence = 0
        self.begin_episode()

    def begin_episode(self) -> None:
        """Reset the environment with the next seed."""
        self.episode, self._index = self.episode + 1, 0
        self.state: Array = self.env.reset(seed=next(self._seeds))[0]

    def step(
        self,
        action: Array,
        source: Source = Source.POLICY,
        onset: bool = False,
        recorded: Array | None = None,
        refused: Array | None = None,
    ) -> bool:
        """Take an action in [-1, 1]. Returns whether an episode ended; the next one has then begun.

        :param recorded: the action that is stored, if not the executed one
        :param refused: the policy's action that the operator overruled
        """
        found, reward, terminated, truncated, info = self.env.step(action)
        step = self._record(
            source, onset, action if recorded is None else recorded, refused=refused
        )
        self.steps, self.state = self.steps + 1, found
        over = terminated or truncated
        last = None
        if over:
            success = terminated and bool(info.get("success", False))
            last = self._record(Source.NONE, False, np.zeros(0), self._outcome(success, terminated))
        if isinstance(self.buffer, TaskRewardBuffer):
            self.buffer.add_transition(step, last or step, float(reward), terminated)
        else:
            self._add(step)
            if last is not None:
                self._add(last)
        if over:
            self.begin_episode()
        return over

    def _outcome(self, success: bool, terminated: bool) -> Outcome:
        """Never a terminal without success: under rewards of at most 0 it would look perfect."""
        if success:
            return Outcome.SUCCESS
        return Outcome.FAILURE if terminated and self._fall_is_failure else Outcome.TRUNCATED

    def _record(
        self,
        source: Source,
        onset: bool,
        action: Array,
        outcome: Outcome = Outcome.RUNNING,
        refused: Array | None = None,
    ) -> StepRecord:
        index, sequence = self._index, self._sequence
        self._index, self._sequence = index + 1, sequence + 1
        return StepRecord(
            sequence, self.episode, index, index == 0, outcome != Outcome.RUNNING, outcome, source,
            onset, 0, False, np.asarray(self.state, np.float32), np.asarray(action, np.float32),
            refused_action=np.zeros(0) if refused is None else np.asarray(refused, np.float32),
        )  # fmt: skip

    def _add(self, step: StepRecord) -> None:
        if not self._keep_operator and step.source == Source.OPERATOR and not step.onset:
            self._withheld = step  # until it is known whether it is the last of the take-over
            return
        if self._withheld is not None:
            self.buffer.add_step(self._withheld)
            self._withheld = None
        self.buffer.add_step(step)
