# SPDX-License-Identifier: Apache-2.0
"""Runs one cell of the table: demonstrations, interaction, updates, evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from sanity_gym import TaskRewardBuffer

from paper.experts import Experts, NoisyJudge, moving_average
from paper.session import Session, seeds
from paper.settings import METHODS, Cell, Method, Settings, has_operator, used
from paper.tasks import EVALUATION, PRIOR, TASKS, TRAINING, Policy, Task, scores
from rlif_learner import BC, RLPD, Buffers, HGDAgger, ReplayBuffer, Source, accelerate
from rlif_policy.networks import PolicySpec
from rlif_sim.strategies import Operator, RandomStrategy, ValueStrategy

Learner = RLPD | BC

# Decays of averages that are scored too, as the last actor is, where a setting asks for an average:
# what is scored does not act.
OTHER_AVERAGES = (0.9999,)
LAST_ACTOR = "last actor"


@dataclass
class Counts:
    """take_overs: for DAgger, runs of labelled states; operator_steps: driven or labelled by it"""

    steps: int = 0
    take_overs: int = 0
    operator_steps: int = 0


class Interaction:
    """The policy in its environment, with the operator of a method, into the online buffer."""

    def __init__(
        self, session: Session, learner: Learner, method: Method, operator: Operator | None, task: Task
    ) -> None:  # fmt: skip
        self._session, self._learner, self._method = session, learner, method
        self._operator, self._view = operator, task.view
        self._explores = method.algorithm == "rlpd"
        self._intervened = False
        self.counts = Counts()

    def step(self) -> None:
        """One step of the environment."""
        session = self._session
        action = self._learner.actor.act(session.state, deterministic=not self._explores)
        answer = None
        if self._operator is not None:
            answer = self._operator.decide(self._view(session.state), action)
        onset = answer is not None and not self._intervened
        if answer is None:
            over = session.step(action)
        elif self._method.relabels:
            over = session.step(action, Source.OPERATOR, recorded=answer)
        else:
            over = session.step(answer, Source.OPERATOR, onset, refused=action)
        self.counts.steps += 1
        self.counts.take_overs += onset
        self.counts.operator_steps += answer is not None
        self._intervened = answer is not None and not over
        if over and self._operator is not None:
            self._operator.start_episode()


def make_operator(
    cell: Cell, method: Method, settings: Settings, experts: Experts
) -> Operator | None:
    """The operator of a cell; None where there is none."""
    if not has_operator(method, settings):
        return None
    actor = experts.make_operator(cell.level, cell.seed)
    if method.strategy == "random":
        strategy = RandomStrategy(method.probability)
        return Operator(strategy, experts.judge, actor, length=1, seed=cell.seed)
    return Operator(
        ValueStrategy(settings.beta, settings.delta, settings.alpha), experts.judge, actor,
        settings.take_over_length, cell.seed, settings.rest,
    )  # fmt: skip


def make_learner(
    method: Method, settings: Settings, env: gymnasium.Env, seed: int, device: str
) -> tuple[Learner, Buffers]:
    """The suite's learner, and empty buffers; only those of `task_reward` can hold a reward."""
    spec = PolicySpec(
        env.observation_space.shape[0], env.action_space.shape[0], settings.hidden,
        state_scale=settings.state_scale,
    )  # fmt: skip

    def buffer(steps: int) -> ReplayBuffer:
        if settings.task_reward:
            return TaskRewardBuffer(steps, spec.state_dim, spec.action_dim)
        return ReplayBuffer(
            steps, spec.state_dim, spec.action_dim, scheme=settings.label_scheme,
            failure_reward=settings.failure_reward,
        )  # fmt: skip

    # Episodes of one step would be two rows each.
    prior = buffer(1 + 2 * settings.prior_episodes * longest_episode(env))
    buffers = Buffers(buffer(2 * settings.steps + prior.capacity), prior)
    if method.algorithm == "rlpd":
        return accelerate(RLPD(settings.rlpd_config(), spec, seed, device)), buffers
    kind = HGDAgger if method.algorithm == "hg_dagger" else BC
    return kind(settings.imitation_config(), spec, seed, device=device), buffers


def longest_episode(env: gymnasium.Env) -> int:
    """Steps after which an episode is truncated."""
    return env.spec.max_episode_steps if env.spec is not None else env.unwrapped.max_steps


def demonstrate(
    task: Task, experts: Experts, settings: Settings, seed: int, buffer: ReplayBuffer
) -> None:
    """Demonstrations by the judge's policy with noise, into a buffer."""
    session = Session(task.make(), buffer, seeds(PRIOR, seed))
    actor = NoisyJudge(experts.judge, settings.prior_noise, seed)
    while session.episode <= settings.prior_episodes:
        session.step(actor.action(task.view(session.state)), Source.OPERATOR)


def run_cell(
    cell: Cell,
    experts: Experts,
    device: str = "cpu",
    log: Callable[[str], None] = print,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """All of a cell; its result as JSON holds it. settings: the cell's own without it"""
    torch.set_num_threads(1)
    wall, processor = time.monotonic(), time.process_time()
    task, method, settings = TASKS[cell.task], METHODS[cell.method], settings or cell.settings
    env, test_env = task.make(), task.make()
    learner, buffers = make_learner(method, settings, env, cell.seed, device)
    is_rlpd = method.algorithm == "rlpd"
    into_online = is_rlpd and settings.prior_into_online
    shown = buffers.online if into_online else buffers.prior
    demonstrate(task, experts, settings, cell.seed, shown)
    if settings.normalise:
        learner.actor.normaliser.fit(shown.states())
    if settings.episode_steps is not None:
        env = gymnasium.wrappers.TimeLimit(env, settings.episode_steps)
    session = Session(
        env, buffers.online, seeds(TRAINING, cell.seed),
        settings.keep_operator, settings.fall_is_failure,
    )  # fmt: skip
    operator = make_operator(cell, method, settings, experts)
    interaction = Interaction(session, learner, method, operator, task)
    for _ in range(0 if is_rlpd else settings.pretraining):
        learner.update(buffers)
    decays = () if settings.average is None else (settings.average, *OTHER_AVERAGES)
    averages = {str(decay): moving_average(learner.actor, decay) for decay in decays}
    policies: dict[str, Policy] = {name: one.module.act for name, one in averages.items()}
    policies[LAST_ACTOR] = learner.actor.act
    in_table = next(iter(policies))
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in policies}
    for step in range(1, settings.steps + 1):
        if method.algorithm != "bc":
            interaction.step()
        if not is_rlpd or step > settings.warmup:
            learner.update(buffers)
            for average in averages.values():
                average.update_parameters(learner.actor)
        if step % settings.evaluate_every == 0:
            for name, policy in policies.items():
                found = scores(task, test_env, policy, EVALUATION, settings.curve_episodes)
                curves[name].append((step, float(np.mean(found))))
            reached = curves[in_table][-1][1]
            log(f"{cell.name}: {step} of {settings.steps} steps, {reached:.1f} %")
    final: dict[str, dict[str, Any]] = {
        name: {
            "scores": scores(task, test_env, policy, EVALUATION, settings.final_episodes),
            "curve": curves[name],
        }
        for name, policy in policies.items()
    }
    return {
        "cell": asdict(cell),
        "settings": used(settings.to_mapping(), method),
        **final.pop(in_table),
        "other_averages": final,
        "counts": asdict(interaction.counts),
        "experts": experts.digest,
        "seconds": {
            "wall": time.monotonic() - wall,
            "processor": time.process_time() - processor,
        },
    }
