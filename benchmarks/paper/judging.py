# SPDX-License-Identifier: Apache-2.0
"""What the judge of a task objects to: by how much the actions of several drivers fall short of its own.

A margin that is too wide lets the policy stand still; one that is too narrow objects to the judge's own
noise, and an operator who drives all the time teaches nothing.

Before falls, Q_ref is compared with the return itself: the simulator is put back into the state, and the
judge drives from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from paper.experts import NOISES, TRAININGS, Experts, NoisyJudge
from paper.settings import Settings
from paper.tasks import LEVELS, SELECTION, Array, Task, episode_seed
from rlif_sim.strategies import Acting, Judge, ValueStrategy

STEPS = 600  # that are judged, of each driver
_EPISODES = 60  # at most, and at most this share of STEPS from each of them
_PER_EPISODE = STEPS // 3
# Steps before a fall at which Q_ref is compared; 1: the last one.
BEFORE = (1, 2, 3, 5, 8, 12, 20, 40)
FALLS = 40  # that are looked at, of each driver
_HORIZON = 400  # steps of a return: what follows is worth 2 % at the discount of Q_ref


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


@dataclass(frozen=True)
class Moment:
    """A step of an episode that ended in a fall. place: position and velocity of the simulator"""

    before: int  # steps, see BEFORE
    state: Array
    action: Array
    place: tuple[Array, Array]


def moments(task: Task, driver: Acting, falls: int, most: int = 200) -> list[Moment]:
    """Those of the first `falls` falls of a driver, in at most so many episodes."""
    env, found, fallen = task.make(), [], 0
    data = env.unwrapped.data
    for episode in range(most):
        driver.start_episode()
        state, _ = env.reset(seed=episode_seed(SELECTION, episode))
        steps, over, terminated = [], False, False
        while not over:
            action = driver.action(state)
            steps.append((state, action, (data.qpos.copy(), data.qvel.copy())))
            state, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        if terminated:
            found += [Moment(k, *steps[-k]) for k in BEFORE if k <= len(steps)]
            fallen += 1
        if fallen == falls:
            break
    return found


def followed(
    env: Any, judge: Judge, place: tuple[Array, Array], action: Array, discount: float
) -> float:
    """Discounted return of an action at a place, after which the judge drives."""
    env.reset()
    env.set_state(*place)
    total, weight = 0.0, 1.0
    for _ in range(_HORIZON):
        state, reward, terminated, _, _ = env.step(np.asarray(action, np.float32))
        total, weight = total + weight * float(reward), discount * weight
        if terminated:
            break
        action = judge.best_action(state)
    return total


def compare(
    task: Task, found: Experts, settings: Settings, log: Callable[[str], None], falls: int = FALLS
) -> dict[str, Any]:
    """Q_ref beside the returns that it estimates, and the objections of both, by steps before a fall.

    Of the medium and the weak operator and of the judge with the most noise. `task`: of MuJoCo
    """
    judge, env = found.judge, task.make().unwrapped
    discount = TRAININGS[task.name].config().discount
    strategy = ValueStrategy(settings.beta, settings.delta, settings.alpha)
    falling = [found.make_operator(level, 0) for level in ("medium", "weak")]
    falling.append(NoisyJudge(judge, NOISES[-1], 0))
    rows: dict[int, list[tuple[float, float, bool, bool]]] = {before: [] for before in BEFORE}
    for moment in (m for driver in falling for m in moments(task, driver, falls)):
        best = judge.best_action(moment.state)
        estimated = [judge.value(moment.state, action) for action in (best, moment.action)]
        true = [followed(env, judge, moment.place, one, discount) for one in (best, moment.action)]
        objections = (strategy.is_worse(*estimated), strategy.is_worse(*true))
        rows[moment.before].append((estimated[0], true[0], *objections))
    log(f"{task.name}: steps before a fall, Q_ref of the judge's action, its return, objections")
    table = {}
    for before, values in rows.items():
        if values:
            value, true, seen, just = np.mean(np.array(values, float), axis=0).tolist()
            log(f"{before:6d} {value:8.1f} {true:8.1f}  {seen:6.1%}, by the returns {just:6.1%}")
            table[str(before)] = {
                "steps": len(values), "value": value, "return": true,
                "objections": seen, "objections_by_returns": just,
            }  # fmt: skip
    return table


def measure(
    task: Task, found: Experts, settings: Settings, log: Callable[[str], None]
) -> dict[str, Any]:
    """By driver: how much less Q_ref its actions have than the judge's, and what is objected to.

    value: median of Q_ref(s, a_ref); lost: percentiles 50 and 95 of Q_ref(s, a_ref) - Q_ref(s, a);
    objections: share of the steps with the margin of `settings`; falls: of `compare`, where the
    judge is a trained one
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
    falls = compare(task, found, settings, log) if task.name in TRAININGS else {}
    margin = {"alpha": settings.alpha, "delta": settings.delta}
    return {"margin": margin, "drivers": rows, "falls": falls}
