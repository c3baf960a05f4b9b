# SPDX-License-Identifier: Apache-2.0
"""RLPD with the task's own reward on Gymnasium: does the engine learn where others do?

    python benchmarks/sanity_gym.py --env Pendulum-v1 --steps 8000 --utd 2 --seeds 3
    python benchmarks/sanity_gym.py --env Hopper-v5 --steps 100000 --utd 5 --seeds 3
    python benchmarks/sanity_gym.py --env Hopper-v5 ... --precision float32 auto

No prior data, no interventions: the labels of the buffer are replaced by the task's reward. Each
curve is learned by one thread of a process of its own, as many at a time as there are cores. Writes
the curves of all seeds as PNG and JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import matplotlib as mpl
import numpy as np
import torch
from rich.console import Console

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import Label
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

RESULTS = Path(__file__).with_name("results")
EVALUATIONS = 5  # episodes each


@dataclass(frozen=True)
class Run:
    """What one curve is of."""

    env: str
    steps: int
    utd: int
    seed: int
    precision: str
    start: int  # random steps before the first update
    every: int  # steps between evaluations


class TaskRewardBuffer(ReplayBuffer):
    """A replay buffer whose rewards and terminals are the environment's, not those of RLIF."""

    def __init__(self, capacity: int, state_dim: int, action_dim: int) -> None:
        super().__init__(capacity, state_dim, action_dim)
        self.task: dict[int, tuple[float, bool]] = {}  # by the index of the step

    def add_transition(
        self, step: StepRecord, following: StepRecord, reward: float, terminal: bool
    ) -> None:
        """Append `step` and what it earned; `following` only if it is an episode's last."""
        self.task[self.total] = (reward, terminal)
        self.add_step(step)
        if following.is_last:
            self.add_step(following)

    def _apply(self, labels: list[Label]) -> None:
        earned = [(label.index, *self.task.pop(label.index)) for label in labels]
        super()._apply([Label(*values) for values in earned])


def boxes(env: gymnasium.Env) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """The spaces of states and actions. TypeError for an environment that is not continuous."""
    spaces = env.observation_space, env.action_space
    if not all(isinstance(space, gymnasium.spaces.Box) for space in spaces):
        raise TypeError(f"{env.spec}: found {spaces}, expected states and actions that are boxes")
    return spaces


def scaled(env: gymnasium.Env, action: np.ndarray) -> np.ndarray:
    """An action in [-1, 1] in the environment's own range."""
    low, high = boxes(env)[1].low, boxes(env)[1].high
    return low + (np.asarray(action) + 1.0) * 0.5 * (high - low)


def evaluate(learner: RLPD, env: gymnasium.Env, seed: int) -> float:
    """Mean return of the deterministic policy."""
    returns = []
    for episode in range(EVALUATIONS):
        state, _ = env.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            action = scaled(env, learner.actor.act(state, deterministic=True))
            state, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def make_learner(run: Run, env: gymnasium.Env) -> tuple[RLPD, TaskRewardBuffer]:
    """A learner and an empty buffer for the environment's sizes."""
    state_dim, action_dim = (space.shape[0] for space in boxes(env))
    config = RLPDConfig(utd=run.utd, prior_ratio=0.0, precision=run.precision)
    learner = accelerate(RLPD(config, PolicySpec(state_dim, action_dim), run.seed))
    return learner, TaskRewardBuffer(2 * run.steps, state_dim, action_dim)


class Feed:
    """Plays the environment, one step at a time, into the buffer."""

    def __init__(self, run: Run, env: gymnasium.Env, buffer: TaskRewardBuffer) -> None:
        self.env, self.buffer = env, buffer
        self.episode, self.t, self.sequence = 1, 0, 0
        self.state, _ = env.reset(seed=run.seed)

    def record(self, state: np.ndarray, last: bool, action: np.ndarray) -> StepRecord:
        """The step of now; `last`: the one that only holds the final state."""
        t = self.t + int(last)
        return StepRecord(
            self.sequence + int(last), self.episode, t, t == 0, last,
            Outcome.TRUNCATED if last else Outcome.RUNNING,
            Source.NONE if last else Source.OPERATOR, False, 0, False,
            np.asarray(state, np.float32), np.zeros(0) if last else action,
        )  # fmt: skip

    def step(self, action: np.ndarray) -> None:
        """Take an action in [-1, 1]; begin a new episode where one ends."""
        found, reward, terminated, truncated, _ = self.env.step(scaled(self.env, action))
        over = terminated or truncated
        self.buffer.add_transition(
            self.record(self.state, False, action),
            self.record(found, over, action),
            float(reward),
            terminated,
        )
        self.sequence += 1 + int(over)
        self.t += 1
        self.state = found
        if over:
            self.episode, self.t = self.episode + 1, 0
            self.state, _ = self.env.reset()


def learn(run: Run) -> list[tuple[int, float]]:
    """One curve: (steps, mean return)."""
    torch.set_num_threads(1)
    console = Console()
    env, judge = gymnasium.make(run.env), gymnasium.make(run.env)
    learner, buffer = make_learner(run, env)
    feed, buffers, curve = Feed(run, env, buffer), Buffers(buffer), []
    rng, began = np.random.default_rng(run.seed), time.monotonic()
    for step in range(1, run.steps + 1):
        if step <= run.start:
            action = rng.uniform(-1, 1, learner.spec.action_dim)
        else:
            action = learner.actor.act(feed.state, deterministic=False)
        feed.step(action)
        if step > run.start:
            learner.update(buffers)
        if step % run.every == 0:
            curve.append((step, evaluate(learner, judge, 10_000 + run.seed)))
            console.print(
                f"{run.env} {run.precision} seed {run.seed}: {step} steps, return "
                f"{curve[-1][1]:.1f}, {time.monotonic() - began:.0f} s"
            )
    return curve


def draw(curves: dict[str, list[list[tuple[int, float]]]], title: str, path: Path) -> None:
    """All seeds thinly, their mean thickly, one colour per precision."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (name, seeds) in enumerate(curves.items()):
        steps = [step for step, _ in seeds[0]]
        values = np.array([[value for _, value in curve] for curve in seeds])
        axes.plot(steps, values.T, color=f"C{i}", alpha=0.3, linewidth=1)
        axes.plot(steps, values.mean(0), color=f"C{i}", linewidth=2, label=f"{name}, mean")
    axes.set(xlabel="environment steps", ylabel="return of the deterministic policy", title=title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--utd", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=int, default=500)
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="curves at a time")
    parser.add_argument("--precision", nargs="+", default=["float32"])
    options = parser.parse_args(arguments)
    base = Run(options.env, options.steps, options.utd, 0, "", options.start, options.every)
    runs = [
        replace(base, seed=seed, precision=precision)
        for seed in range(options.seeds)
        for precision in options.precision
    ]
    path = RESULTS / f"sanity_{options.env}.png"
    RESULTS.mkdir(parents=True, exist_ok=True)
    spawn, curves = multiprocessing.get_context("spawn"), {p: [] for p in options.precision}
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        for run, curve in zip(runs, pool.map(learn, runs), strict=True):
            curves[run.precision].append(curve)
            if all(curves.values()):  # what is there, in case the rest is never finished
                write(curves, options, path)
    Console().print(f"curves: {path}")


def write(
    curves: dict[str, list[list[tuple[int, float]]]], options: argparse.Namespace, path: Path
) -> None:
    """Figure and numbers, with the arguments that made them."""
    draw(curves, f"{options.env}, RLPD with task reward, UTD {options.utd}", path)
    path.with_suffix(".json").write_text(
        json.dumps({"command": vars(options), "curves": curves}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
