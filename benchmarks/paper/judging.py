# SPDX-License-Identifier: Apache-2.0
"""What the judge of a task objects to: by how much the actions of several drivers fall short of its own.

A margin that is too wide lets the policy stand still; one that is too narrow objects to the judge's own
noise, and an operator who drives all the time teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paper.experts import NOISES, Experts, NoisyJudge
from paper.settings import Settings
from paper.tasks import LEVELS, SELECTION, Array, Task, episode_seed
from rlif_sim.strategies import Acting, ValueStrategy

STEPS = 600  # that are judged, of each driver
_EPISODES = 60  # at most, and at most this share of STEPS from each of them
_PER_EPISODE = STEPS // 3


class _Idle:
    """Whoever does nothing."""

    def __init__(self, size: int) -> None:
        self._action = np.zeros(size)

    def start_episode(self) -> None:
        """Nothing differs between episodes."""

    def action(self, state: Array, /) -> Array:
        return self._action


def drivers(task: Task, found: Experts, seed: int = 0) -> dict[str, Acting]:
    """Those whose actions are judged, by name."""
    named: dict[str, Acting] = {
        f"judge, noise {noise}": NoisyJudge(found.judge, noise, seed)
        for noise in (0.0, *NOISES[:4:2])
    }
    named |= {f"{level} operator": found.make_operator(level, seed) for level in LEVELS}
    named["action 0"] = _Idle(task.make().action_space.shape[0])
    return named


def visited(task: Task, driver: Acting) -> list[tuple[Array, Array]]:
    """States, as the judge sees them, and the driver's actions."""
    env, pairs = task.make(), []
    for episode in range(_EPISODES):
        driver.start_episode()
        state, _ = env.reset(seed=episode_seed(SELECTION, episode))
        for _ in range(_PER_EPISODE):
            seen = task.view(state)
            action = driver.action(seen)
            pairs.append((seen, action))
            state, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated or len(pairs) == STEPS:
                break
        if len(pairs) == STEPS:
            break
    return pairs


def measure(
    task: Task, found: Experts, settings: Settings, log: Callable[[str], None]
) -> dict[str, Any]:
    """By driver: how much less Q_ref its actions have than the judge's, and what is objected to.

    value: median of Q_ref(s, a_ref); lost: percentiles 50 and 95 of Q_ref(s, a_ref) - Q_ref(s, a);
    objections: share of the steps with the margin of `settings`
    """
    judge, rows = found.judge, {}
    strategy = ValueStrategy(settings.beta, settings.delta, settings.alpha)
    log(f"{'driver':22s} {'Q_ref':>8s} {'lost: 50 %':>10s} {'95 %':>6s}  objections")
    for name, driver in drivers(task, found).items():
        pairs = visited(task, driver)
        best = np.array([judge.value(state, judge.best_action(state)) for state, _ in pairs])
        own = np.array([judge.value(*pair) for pair in pairs])
        worse = [strategy.is_worse(*values) for values in zip(best, own, strict=True)]
        rows[name] = {
            "value": float(np.median(best)),
            "lost": np.percentile(best - own, [50, 95]).tolist(),
            "objections": float(np.mean(worse)),
        }
        lost = rows[name]["lost"]
        log(
            f"{name:22s} {rows[name]['value']:8.1f} {lost[0]:10.2f} {lost[1]:6.2f}  "
            f"{rows[name]['objections']:.1%}"
        )
    return {"margin": {"alpha": settings.alpha, "delta": settings.delta}, "drivers": rows}
