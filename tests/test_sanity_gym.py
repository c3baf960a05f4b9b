# SPDX-License-Identifier: Apache-2.0
"""The sanity benchmark stores what the environment paid, not the labels of RLIF."""

from __future__ import annotations

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import sanity_gym  # noqa: E402 - only where gymnasium is installed


class Countdown(gymnasium.Env):
    """Pays 1, 2, 3, ... and ends after `length` steps, truncated or terminated."""

    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (1,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, length, terminated):
        self.length, self.terminated, self.t, self.paid = length, terminated, 0, 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.array([self.paid], np.float32), {}

    def step(self, action):
        self.t, self.paid = self.t + 1, self.paid + 1
        over = self.t == self.length
        state = np.array([self.paid], np.float32)
        return state, self.paid, over and self.terminated, over and not self.terminated, {}


@pytest.mark.parametrize("terminated", [True, False])
def test_rewards_and_terminals_are_those_of_the_environment(terminated):
    """Regression: the label of RLIF, known one step later, overwrote the reward."""
    env, buffer = Countdown(4, terminated), sanity_gym.TaskRewardBuffer(100, 1, 1)
    feed = sanity_gym.Feed(sanity_gym.Run("", 0, 1, 0, "float32", 0, 1), env, buffer)
    for _ in range(12):
        feed.step(np.array([0.5], np.float32))
    batch = buffer.sample(500, np.random.default_rng(0))
    states = batch.states[:, 0]
    assert set(states.tolist()) == set(map(float, range(12)))
    assert (batch.rewards == states + 1).all()
    assert (batch.next_states[:, 0] == states + 1).all()
    ends = (states + 1) % 4 == 0
    assert (batch.terminals.bool() == (ends & terminated)).all()


def test_actions_reach_the_environments_range():
    env = Countdown(4, True)
    assert sanity_gym.scaled(env, np.array([-1.0])) == -2.0
    assert sanity_gym.scaled(env, np.array([1.0])) == 2.0
