# SPDX-License-Identifier: Apache-2.0
"""Episodes in which it is known who drove, and what each of them does, for the imitation algorithms."""

from __future__ import annotations

import numpy as np

from rlif_learner.config import ImitationConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.steps import StepRecord
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=2, action_dim=1, hidden=(32,))
CONFIG = ImitationConfig(utd=5, batch_size=64, learning_rate=1e-2)


def filled(drivers, action_of, seed=0, repeat=10):
    """A buffer of episodes; `action_of[driver]` maps a state to the action taken."""
    buffer, rng, sequence = ReplayBuffer(2000, 2, 1), np.random.default_rng(seed), 0
    for episode_id in range(1, repeat + 1):
        for t, driver in enumerate([*drivers, "end"]):
            state, last = rng.uniform(-1, 1, 2), driver == "end"
            action = np.zeros(0) if last else np.array([action_of[driver](state)])
            onset = driver == "O" and (t == 0 or drivers[t - 1] != "O")
            buffer.add_step(
                StepRecord(
                    sequence, episode_id, t, t == 0, last, 3 if last else 0,
                    0 if last else {"N": 0, "P": 1, "O": 2}[driver], onset, 0, False, state, action,
                )
            )  # fmt: skip
            sequence += 1
    return buffer


def operator_action(state):
    return 0.5 * state[0]


ACTIONS = {"N": lambda state: 0.0, "P": lambda state: -0.9, "O": operator_action}


def expert(states):
    return 0.5 * states[:, :1]
