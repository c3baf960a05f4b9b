# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the learner's surroundings: Steps of made-up episodes, an algorithm that counts."""

from __future__ import annotations

import numpy as np
import torch

from rlif_learner.config import ImitationConfig
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_policy.networks import Actor, PolicySpec

STATE_DIM, ACTION_DIM = 4, 2
SPEC = PolicySpec(STATE_DIM, ACTION_DIM, (8,))


def episode(
    number, length, first_sequence, takeover=None, evaluation=False, state_dim=STATE_DIM,
    outcome=Outcome.TRUNCATED,
):  # fmt: skip
    """`length` actions and the last Step; the operator drives two steps from `takeover` on."""
    rng = np.random.default_rng(number)
    steps = []
    for i in range(length + 1):
        last = i == length
        taken = takeover is not None and takeover <= i < takeover + 2
        steps.append(
            StepRecord(
                sequence=first_sequence + i,
                episode_id=number,
                step_index=i,
                is_first=i == 0,
                is_last=last,
                outcome=outcome if last else Outcome.RUNNING,
                source=Source.NONE if last else Source.OPERATOR if taken else Source.POLICY,
                onset=i == takeover,
                intervention_id=int(taken),
                evaluation=evaluation,
                state=rng.normal(size=state_dim).astype(np.float32),
                action=rng.uniform(-1, 1, 0 if last else ACTION_DIM).astype(np.float32),
            )
        )
    return steps


class CountingAlgorithm:
    """Counts updates, each of which moves the policy, not the actor; `fails_at` raises `error` in that update."""

    def __init__(self, fails_at=None, error=ArithmeticError):
        self.spec, self.config = SPEC, ImitationConfig()
        self.actor, self.policy = Actor(SPEC), Actor(SPEC)
        self.updates, self.critic_steps = 0, 0
        self.fails_at, self.error = fails_at, error

    def update(self, buffers):
        if self.updates == self.fails_at:
            raise self.error("critic_loss not finite")
        with torch.no_grad():
            next(self.policy.parameters()).add_(0.01)
        self.updates += 1
        self.critic_steps += 3
        return {"loss": 1.0 / self.updates}

    def state_tensors(self):
        return {"actor": torch.nn.utils.parameters_to_vector(self.policy.parameters()).detach()}

    def state_values(self):
        return {"updates": self.updates}

    def load_state(self, tensors, values):
        torch.nn.utils.vector_to_parameters(tensors["actor"], self.policy.parameters())
        self.updates = values["updates"]


def evaluated(counts, episodes, successes, **more):
    """Evaluation episodes into `counts`."""
    for number in range(episodes):
        outcome = Outcome.SUCCESS if number < successes else Outcome.TRUNCATED
        for step in episode(number, 4, 5 * number, evaluation=True, outcome=outcome, **more):
            counts.add(step)
