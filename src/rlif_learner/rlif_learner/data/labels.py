# SPDX-License-Identifier: Apache-2.0
"""The reward of RLIF, derived from the facts of an episode: the one place where it is decided.

`onset` (default)  -1 on the last policy step before an intervention of the same episode
`every_step`       -1 on every step whose successor is driven by the operator
both               failure or abort counts as an intervention: -1 on the last policy step

Success is terminal with reward 0; a time limit is truncated, that is, bootstrapped. Failure is
truncated as well: under rewards of at most 0 a terminal state would look perfect. With a
`failure_reward` of at most -1 it is terminal, and its last step has that reward. A discarded episode
labels nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from rlif_learner.data.steps import Outcome, Source, StepRecord, discards, follows

SCHEMES = ("onset", "every_step")
_REMEMBERED = tuple(
    field.name
    for field in fields(StepRecord)
    if field.name
    not in ("state", "action", "images", "cameras", "stamp", "robot", "refused_action")
)


@dataclass(frozen=True)
class Label:
    """What is now known of the transition from step `index` to the next one."""

    index: int
    reward: float
    terminal: bool
    learned: bool = True  # False: of a discarded episode, not to be sampled any more


class Labeller:
    """Labels steps as they arrive, each as soon as it is known: learning need not wait.

    The label of a policy step is known when the next driven step arrives, or the episode ends:
    only then is it certain whether an intervention followed.

    `failure_reward`: 0, or that of the last step of a failed episode, whoever drove it; the step is
    then terminal. Without it the value of a failure is whatever the critics make of states that
    nothing ever leaves: at times no worse than to go on.
    """

    def __init__(self, scheme: str = "onset", failure_reward: float = 0.0) -> None:
        if scheme not in SCHEMES:
            raise ValueError(f"label scheme: found {scheme!r}, expected one of {list(SCHEMES)}")
        if failure_reward != 0.0 and not failure_reward <= -1.0:
            raise ValueError(
                f"failure_reward: found {failure_reward}, expected 0 or at most -1: the end of an "
                "episode must not look better than a take-over"
            )
        self.scheme, self.failure_reward = scheme, failure_reward
        self.count = 0  # steps seen: the index of the next one
        self._previous: StepRecord | None = None
        self._last_policy: int | None = None  # of this episode, with nothing lost since
        self._pending: int | None = None  # policy step with a successor, but no label yet
        self._episode: tuple[int, int, int] | None = None  # id, index of its first step, sequence

    def push(self, step: StepRecord) -> list[Label]:
        """The labels that `step` made known; a later label of the same index replaces it.

        The end of a discarded episode takes back the labels of all of its steps, whatever was lost
        of it in between. It has no index itself: no buffer keeps it.
        """
        if discards(step):
            taken_back = range(self._first_index(step), self.count)
            return [*self.interrupt(), *(Label(i, 0.0, False, learned=False) for i in taken_back)]
        first = self._first_index(step)
        index, self.count = self.count, self.count + 1
        self._episode = (step.episode_id, first, step.sequence)
        if self._previous is not None and follows(step, self._previous):
            labels = self._continue(step, self._previous, index - 1)
        else:
            labels = self.interrupt()
        self._previous = step
        if step.source == Source.POLICY and not step.is_last:
            self._last_policy = index
        return labels

    def interrupt(self) -> list[Label]:
        """What follows belongs to something else, or was lost: it labels nothing before it."""
        labels = [] if self._pending is None else [Label(self._pending, 0.0, False)]
        self._previous = self._last_policy = self._pending = None
        return labels

    @property
    def earliest(self) -> int:
        """Lowest index that a label to come may have."""
        known = [self.count - (self._previous is not None)]
        known += [i for i in (self._last_policy, self._pending) if i is not None]
        return min(known) if self._episode is None else min(*known, self._episode[1])

    def _first_index(self, step: StepRecord) -> int:
        """Index of the first step of its episode, whatever was lost of that in between."""
        if self._episode is None or step.is_first:
            return self.count
        episode, first, sequence = self._episode
        return first if step.episode_id == episode and step.sequence > sequence else self.count

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON holds it: labelling goes on from there after `load`."""
        values: dict[str, Any] = {
            "scheme": self.scheme,
            "failure_reward": self.failure_reward,
            "count": self.count,
            "last_policy": self._last_policy,
            "pending": self._pending,
            "previous": None,
            "episode": None if self._episode is None else list(self._episode),
        }
        if self._previous is not None:
            values["previous"] = {name: int(getattr(self._previous, name)) for name in _REMEMBERED}
        return values

    def load(self, values: dict[str, Any]) -> None:
        """The inverse of `state`. ValueError if that was made under another scheme."""
        if values["scheme"] != self.scheme:
            raise ValueError(
                f"label scheme: found {values['scheme']!r}, expected {self.scheme!r}; "
                "relabel the data, or choose the scheme it was labelled with"
            )
        failure_reward = values.get("failure_reward", 0.0)  # not in checkpoints of earlier versions
        if failure_reward != self.failure_reward:
            raise ValueError(
                f"failure_reward: found {failure_reward}, expected {self.failure_reward}; choose the "
                "one that the data was labelled with, or begin with new data"
            )
        self.count, self._last_policy = values["count"], values["last_policy"]
        self._pending, self._previous = values["pending"], None
        episode = values.get("episode")  # not in checkpoints of earlier versions
        self._episode = None if episode is None else (episode[0], episode[1], episode[2])
        if values["previous"] is not None:
            # Of a step that is over only the numbers matter: what it saw lies in the buffer.
            unused = np.zeros(1, dtype=np.float32)
            self._previous = StepRecord(**values["previous"], state=unused, action=unused)

    def _continue(self, step: StepRecord, previous: StepRecord, last: int) -> list[Label]:
        """Labels from a step that follows `previous`, whose index is `last`."""
        rewards: dict[int, float] = {}
        if previous.source == Source.POLICY:
            self._pending = last
        else:
            rewards[last] = 0.0
        if step.is_last or step.onset or step.source != Source.NONE:
            if self._pending is not None:
                rewards[self._pending] = 0.0
            self._pending = None
        if self.scheme == "every_step" and step.source == Source.OPERATOR and not step.is_last:
            rewards[last] = -1.0
        if self._ends_policy(step) and self._last_policy is not None:
            rewards[self._last_policy] = -1.0
        terminal = step.is_last and step.outcome == Outcome.SUCCESS
        if step.is_last and step.outcome == Outcome.FAILURE and self.failure_reward:
            rewards[last], terminal = self.failure_reward, True
        return [Label(i, reward, terminal and i == last) for i, reward in rewards.items()]

    def _ends_policy(self, step: StepRecord) -> bool:
        """Whether a person, by this step, said that the policy's last step was wrong."""
        if step.is_last:
            return step.outcome == Outcome.FAILURE
        return self.scheme == "onset" and step.onset


class RobotSteps:
    """The steps of one robot: their labels, and their numbers among the steps of all robots."""

    def __init__(self, scheme: str, failure_reward: float) -> None:
        self.labeller = Labeller(scheme, failure_reward)
        self.numbers: list[int] = []  # of the labeller's last indices: all that a label may have

    @property
    def last(self) -> int | None:
        """Number of the step before; None: there is none."""
        return self.numbers[-1] if self.numbers else None

    def push(self, step: StepRecord, number: int) -> list[Label]:
        """Labels that `step` made known, by number instead of index."""
        labels = self.labeller.push(step)
        if not discards(step):
            self.numbers.append(number)
        numbered = self._number(labels)
        del self.numbers[: len(self.numbers) - (self.labeller.count - self.labeller.earliest)]
        return numbered

    def interrupt(self) -> list[Label]:
        """Nothing that follows is joined to what was before."""
        return self._number(self.labeller.interrupt())

    def _number(self, labels: list[Label]) -> list[Label]:
        first = self.labeller.count - len(self.numbers)
        return [replace(label, index=self.numbers[label.index - first]) for label in labels]

    def load(self, labels: dict[str, Any], numbers: list[int] | None = None) -> None:
        """numbers: None where no other robot's steps lie between: they are the indices."""
        self.labeller.load(labels)
        indices = range(self.labeller.earliest, self.labeller.count)
        self.numbers = list(indices if numbers is None else numbers)


def refused_reward(step: StepRecord, scheme: str) -> float:
    """Reward of what the policy asked for at a step that the operator drove: the label that the step
    before has for it."""
    return -1.0 if step.onset or scheme == "every_step" else 0.0


def label_rewards(
    steps: Sequence[StepRecord], scheme: str = "onset", failure_reward: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (float32 [n]) and terminals (bool [n]) of consecutive steps, of any episodes.

    Entry i belongs to the transition from step i to step i + 1, which exists where step i + 1
    follows step i; elsewhere, on last steps and in discarded episodes, both are zero. What a gap hid
    labels nothing.
    ValueError for a scheme or a `failure_reward` that does not exist, see Labeller.
    """
    rewards = np.zeros(len(steps), dtype=np.float32)
    terminals = np.zeros(len(steps), dtype=bool)
    labeller = Labeller(scheme, failure_reward)
    entries: list[int] = []  # of the steps that have an index
    for entry, step in enumerate(steps):
        labels = labeller.push(step)
        if labeller.count > len(entries):
            entries.append(entry)
        for label in labels:
            rewards[entries[label.index]] = label.reward
            terminals[entries[label.index]] = label.terminal
    return rewards, terminals
