# SPDX-License-Identifier: Apache-2.0
"""The tasks: environments, seeds and scores.

Each environment is a Gymnasium one with actions in [-1, 1]. Its reward reaches the score, the experts'
training and the ablation `task_reward`, and nothing else: `cells.py` passes no other method a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml
from numpy.typing import NDArray

from rlif_policy.features import Pose, StateLayout, Wrench
from rlif_sim.peg_in_hole import PegInHole

Array = NDArray[np.floating]
Policy = Callable[[Array], Array]  # state [state_dim] to action [action_dim] in [-1, 1]
ROBOT = Path(__file__).parents[2] / "config" / "sim" / "robot.yaml"


# ---- seeds of episodes: each use has a range of its own, so that none meets another's episodes

_RANGE = 100_000_000
TRAINING, PRIOR, SELECTION, EVALUATION, REPORT = range(5)
_RUNS = 100  # seeds of runs that a range has room for


def episode_seed(use: int, episode: int, run: int = 0) -> int:
    """Seed of an environment's reset.

    :param use: TRAINING and PRIOR (of a run, which `run` names), SELECTION (which expert is taken),
        EVALUATION (scores of the table) or REPORT (scores of the experts)
    :param episode: counts from 0
    """
    longest = _RANGE // _RUNS
    if not (0 <= episode < longest and 0 <= run < _RUNS):
        raise ValueError(
            f"seed: found episode {episode} of run {run}, expected below {longest} and {_RUNS}"
        )
    return use * _RANGE + run * longest + episode


# ---- environments


class PegEnv(gymnasium.Env):
    """The peg task of rlif_sim without ROS, as config/sim/robot.yaml sets it up.

    The reward is -1 per step until the peg is in the hole, which ends the episode.
    """

    def __init__(self) -> None:
        robot = robot_configuration()
        self.world, self._steps = PegInHole(), 0
        self._layout = StateLayout(tuple(robot["features"]))
        self._period, self._speed = 1.0 / robot["control_rate"], robot["linear_scale"]
        self.max_steps = robot["max_steps"]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self._layout.state_dim,))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(robot["axes"]),))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        self.world.reset(seed)
        self.world.advance(np.zeros(6), self._period)
        self._steps, self._tip = 0, self.world.end_effector_position
        return self._state(), {"success": False}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        twist = np.zeros(6)
        twist[:3] = self._speed * np.clip(action, -1.0, 1.0)
        self.world.advance(twist, self._period)
        self._steps += 1
        success = self.world.success
        over = not success and self._steps >= self.max_steps
        return self._state(), 0.0 if success else -1.0, success, over, {"success": success}

    def _state(self) -> Array:
        tip, upright = self.world.end_effector_position, (0.0, 0.0, 0.0, 1.0)
        velocity = (tip - self._tip) / self._period
        self._tip = tip
        wrench = self.world.wrench.tolist()
        return self._layout.compute(
            {
                "ee_pose": Pose(tuple(tip), upright, tuple(velocity)),
                "object_pose": Pose(tuple(self.world.hole_position), upright),
                "wrench": Wrench(tuple(wrench[:3]), tuple(wrench[3:])),
            }
        )


@lru_cache(maxsize=1)
def robot_configuration() -> dict[str, Any]:
    """The parameters that all nodes of the simulated robot share."""
    content: dict[str, Any] = yaml.safe_load(ROBOT.read_text(encoding="utf-8"))
    return content["/**"]["ros__parameters"]


def _gym(name: str) -> Callable[[], gymnasium.Env]:
    def make() -> gymnasium.Env:
        if name.startswith("Adroit"):
            try:
                import gymnasium_robotics  # only this task needs it
            except ImportError as error:
                raise ImportError(
                    f"{name}: found no gymnasium_robotics; install it: pip install gymnasium-robotics"
                ) from error
            gymnasium.register_envs(gymnasium_robotics)
        return gymnasium.make(name, disable_env_checker=True)

    return make


def _all(state: Array) -> Array:
    return state


def _position(state: Array) -> Array:
    """[3] m, of the peg's tip relative to the hole: the first feature of the peg's state."""
    return np.asarray(state[:3], np.float64)


# ---- tasks

LEVELS = ("strong", "medium", "weak")


@dataclass(frozen=True)
class Task:
    """A task and how it is scored.

    :param levels: scores that the operators of LEVELS shall have, %: those of the paper's table
    :param returns: returns that count as 0 and 100 %, or None where the score is the rate of success
    :param view: what judge and operator take of the state
    :param by_default: whether it is run without being asked for
    """

    name: str
    make: Callable[[], gymnasium.Env]
    levels: tuple[float, float, float]
    returns: tuple[float, float] | None
    view: Callable[[Array], Array] = _all
    by_default: bool = True

    @property
    def score_name(self) -> str:
        return "success, %" if self.returns is None else "normalised return, %"

    def score(self, trial: Trial) -> float:
        """Of one episode, in %."""
        if self.returns is None:
            return 100.0 * trial.success
        low, high = self.returns
        return 100.0 * (trial.total - low) / (high - low)


@dataclass(frozen=True)
class Trial:
    """An episode of evaluation. total: undiscounted return"""

    total: float
    success: bool
    steps: int


# Returns of a random and of an expert policy as D4RL has them (Fu et al., 2020; d4rl/infos.py), which
# were measured in version 2 of the environments: scores of version 5 are not the paper's to the point.
TASKS = {
    task.name: task
    for task in (
        Task("hopper", _gym("Hopper-v5"), (110.0, 70.0, 20.0), (-20.272305, 3234.3)),
        Task("walker2d", _gym("Walker2d-v5"), (110.0, 40.0, 15.0), (1.629008, 4592.3)),
        Task("peg", PegEnv, (80.0, 40.0, 15.0), None, _position),
        Task("pen", _gym("AdroitHandPen-v1"), (90.0, 40.0, 10.0), None, by_default=False),
    )
}


def play(env: gymnasium.Env, policy: Policy, seeds: Iterable[int]) -> list[Trial]:
    """An episode from each of the seeds."""
    trials = []
    for seed in seeds:
        state, _ = env.reset(seed=seed)
        total, steps, over, success = 0.0, 0, False, False
        while not over:
            state, reward, terminated, truncated, info = env.step(policy(state))
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
            success = success or bool(info.get("success", False))
        trials.append(Trial(total, success, steps))
    return trials


def scores(
    task: Task, env: gymnasium.Env, policy: Policy, use: int, episodes: int, first: int = 0
) -> list[float]:
    """Scores in % of `episodes` episodes of this use."""
    seeds = (episode_seed(use, first + episode) for episode in range(episodes))
    return [task.score(trial) for trial in play(env, policy, seeds)]
