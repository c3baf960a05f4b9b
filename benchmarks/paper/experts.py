# SPDX-License-Identifier: Apache-2.0
"""Judges and operators: trained by RLPD with the task's reward, chosen by measured score.

Of one training run, actor and critics of the best evaluation become pi_ref and Q_ref. The operator of
each level is the candidate whose score is nearest the wanted one: an earlier actor of the same run, or
the best one with noise and bias on its actions. Candidates are compared on other episodes than the
scores that are reported. For the peg nothing is trained: its judge knows the way, and its operators
differ in the errors of rlif_sim's scripted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sanity_gym import TaskRewardBuffer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from paper.session import Session, seeds
from paper.tasks import (
    LEVELS,
    REPORT,
    SELECTION,
    TRAINING,
    Array,
    Policy,
    Task,
    robot_configuration,
    scores,
)
from rlif_learner import RLPD, Buffers, CheckpointStore, RLPDConfig, accelerate
from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.weights import pack_weights, unpack_weights
from rlif_sim.strategies import Acting, ActorConfig, Approach, Judge, ReferenceJudge
from rlif_sim.strategies import Actor as PegActor

DIRECTORY = Path(__file__).parent / "experts"
RUNS = Path(__file__).parents[2] / "runs" / "paper" / "experts"
INDEX = "experts.json"
REPORT_EPISODES = 100
SELECTION_EPISODES = 20
NOISES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)  # of the candidates with noise; the bias is half of it
PEG_BIASES = (0.0006, 0.0008, 0.001, 0.0014, 0.0017, 0.002, 0.0024, 0.0028)  # m

T = TypeVar("T")


def _rlpd(action_dim: int) -> tuple[tuple[str, Any], ...]:
    """Target entropy as in SAC (Haarnoja et al., 2018): with half of it, RLPD's, hopper did not get beyond
    a lunge (16 % after 95,000 steps), and of walker2d only sampled actions walked, not their mean."""
    return (
        ("utd", 2), ("hidden", (256, 256)), ("ensemble_size", 5),
        ("target_entropy", -float(action_dim)),
    )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """Settings of an expert's training run. Ends early once `enough` (score, %) is reached.

    :param average: decay of the moving average of the actor, per update: the actor that is taken
    """

    steps: int
    enough: float
    rlpd: tuple[tuple[str, Any], ...]
    capacity: int = 500_000  # steps that the replay buffer holds
    warmup: int = 5_000
    evaluate_every: int = 5_000
    average: float = 0.9998

    def config(self) -> RLPDConfig:
        """Without the entropy in the target, so that Q_ref is the plain return."""
        return RLPDConfig.from_mapping(dict(self.rlpd), "rlif")


TRAININGS = {
    "hopper": Training(215_000, 112.0, _rlpd(3)),
    "walker2d": Training(190_000, 112.0, _rlpd(6)),
    "pen": Training(400_000, 95.0, _rlpd(24)),
}


# ---- what a cell uses


class CriticJudge:
    """Q_ref: the mean of an ensemble of critics; pi_ref: the actor they were trained with."""

    def __init__(self, actor: Actor, critic: EnsembleCritic) -> None:
        self.actor, self.critic = actor, critic

    @torch.no_grad()
    def value(self, state: Array, action: Array, /) -> float:
        rows = (torch.as_tensor(np.asarray(row, np.float32))[None] for row in (state, action))
        return float(self.critic(*rows).mean())

    def best_action(self, state: Array, /) -> Array:
        return self.actor.act(state)


class NoisyActor:
    """An actor with white noise on each action and a bias that is drawn for each episode."""

    def __init__(self, actor: Actor, noise: float, bias: float, seed: int) -> None:
        self._actor, self._noise, self._scale = actor, noise, bias
        self._rng = np.random.default_rng(seed)
        self.start_episode()

    def start_episode(self) -> None:
        """Draw another bias."""
        self._bias = self._rng.normal(0.0, self._scale, self._actor.spec.action_dim)

    def action(self, state: Array, /) -> Array:
        error = self._bias + self._rng.normal(0.0, self._noise, len(self._bias))
        return np.clip(self._actor.act(state) + error, -1.0, 1.0)


class NoisyJudge:
    """A judge that acts, with white noise on each action."""

    def __init__(self, judge: Judge, noise: float, seed: int) -> None:
        self._judge, self._noise = judge, noise
        self._rng = np.random.default_rng(seed)

    def start_episode(self) -> None:
        """Nothing stays the same for an episode."""

    def action(self, state: Array, /) -> Array:
        best = self._judge.best_action(state)
        return np.clip(best + self._rng.normal(0.0, self._noise, len(best)), -1.0, 1.0)


@dataclass(frozen=True)
class Experts:
    """Judge and operators of a task. scores: measured, of "judge" and each level, %"""

    judge: Judge
    make_operator: Callable[[str, int], Acting]  # of a level, with a seed
    scores: dict[str, list[float]]
    digest: str  # of what they were loaded from


def load(task: str, directory: Path = DIRECTORY) -> Experts:
    """The experts that `bench_paper.py experts` made. FileNotFoundError where there are none."""
    folder = directory / task
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(
            f"{index}: found no experts of {task}, expected those of an earlier run; make them: "
            f"python benchmarks/bench_paper.py experts --only {task}"
        )
    content = json.loads(index.read_text(encoding="utf-8"))
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    measured = {name: one["scores"] for name, one in content["experts"].items()}
    if task == "peg":
        return Experts(ReferenceJudge(peg_approach()), _peg_operators(content), measured, digest)
    actors = {name: _load_actor(folder, one) for name, one in content["experts"].items()}

    def make_operator(level: str, seed: int) -> Acting:
        one = content["experts"][level]
        return NoisyActor(actors[level], one["noise"], one["bias"], seed)

    critic = _load_critic(folder / "critics.safetensors", actors["judge"].spec)
    return Experts(CriticJudge(actors["judge"], critic), make_operator, measured, digest)


def _load_actor(folder: Path, one: dict[str, Any]) -> Actor:
    spec = PolicySpec.from_json(json.dumps(one["spec"]))
    return _actor((folder / one["file"]).read_bytes(), one["sha256"], spec)


def _actor(data: bytes, sha256: str, spec: PolicySpec) -> Actor:
    actor = Actor(spec)
    actor.load_exported(unpack_weights(data, sha256, spec))
    return actor


def _load_critic(path: Path, spec: PolicySpec) -> EnsembleCritic:
    stored = load_file(path)
    config = RLPDConfig(hidden=tuple(stored["hidden"].tolist()), ensemble_size=int(stored["size"]))
    critic = EnsembleCritic(spec, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        critic.flat.values.copy_(stored["critics"])
    return critic


def _save_critic(path: Path, learner: RLPD) -> None:
    config = learner.config
    save_file(
        {
            "critics": learner.critic.flat.values.detach().cpu().clone(),
            "hidden": torch.tensor(config.hidden),
            "size": torch.tensor(config.ensemble_size),
        },
        path,
    )


# ---- training


def moving_average(actor: Actor, decay: float) -> AveragedModel:
    """Exponential moving average of an actor: `update_parameters(actor)` moves its `module`.

    The score of a hopper's or walker's actor rises and falls by a half within a few thousand updates.
    """
    return AveragedModel(actor, multi_avg_fn=get_ema_multi_avg_fn(decay))


def train(task: Task, seed: int, log: Callable[[str], None], device: str = "cpu") -> Path:
    """The training run with its snapshots; goes on where an earlier call stopped.

    Returns the folder with STEPS.safetensors of each evaluation, `critics.safetensors` of the best, and
    `curve.json`: [steps, score] of each evaluation.
    """
    training, folder = TRAININGS[task.name], RUNS / task.name / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    env, test_env = task.make(), task.make()
    spec = PolicySpec(env.observation_space.shape[0], env.action_space.shape[0])
    learner = accelerate(RLPD(training.config(), spec, seed, device))
    buffer = TaskRewardBuffer(training.capacity, spec.state_dim, spec.action_dim)
    averaged = moving_average(learner.actor, training.average)
    buffers, store = Buffers(buffer), CheckpointStore(folder, keep_last=1)
    curve: list[tuple[int, float]] = []
    steps = episodes = 0
    if (found := store.last_good()) is not None:
        extra = store.load(found, learner, buffers)
        curve, steps, episodes = extra["curve"], extra["steps"], extra["episodes"]
        averaged.module.load_exported(unpack_weights(*_snapshot(folder, steps), spec))
        averaged.n_averaged.fill_(steps)
        log(f"{task.name} expert: goes on after {steps} steps")
    session = Session(env, buffer, seeds(TRAINING, seed, episodes))
    rng, began, start = np.random.default_rng((seed, steps)), time.monotonic(), steps
    while steps < training.steps and (not curve or curve[-1][1] < training.enough):
        if steps < training.warmup:
            session.step(rng.uniform(-1.0, 1.0, spec.action_dim))
        else:
            session.step(learner.actor.act(session.state, deterministic=False))
            learner.update(buffers)
            averaged.update_parameters(learner.actor)
        steps += 1
        if steps % training.evaluate_every:
            continue
        score = float(np.mean(scores(task, test_env, averaged.module.act, SELECTION, 10)))
        if score > max((best for _, best in curve), default=-np.inf):
            _save_critic(folder / "critics.safetensors", learner)
        curve.append((steps, score))
        data, _ = pack_weights(averaged.module, spec)
        (folder / f"{steps}.safetensors").write_bytes(data)
        # The transition under way ends here: the episode does not go on after a resume.
        buffer.interrupt()
        reached = {"curve": curve, "steps": steps, "episodes": episodes + session.episode}
        store.save(learner, buffers, extra=reached)
        left = (training.steps - steps) * (time.monotonic() - began) / (steps - start)
        log(f"{task.name} expert: {steps} steps, {score:.1f} %, at most {left / 60:.0f} min left")
    content = {"curve": curve, "training": asdict(training), "seed": seed}
    (folder / "curve.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    return folder


def _snapshot(run: Path, steps: int) -> tuple[bytes, str]:
    """Weights of a training run as they were after so many steps, and their sha256."""
    data = (run / f"{steps}.safetensors").read_bytes()
    return data, hashlib.sha256(data).hexdigest()


# ---- choosing


@dataclass(frozen=True)
class Candidate:
    """An operator that could be taken. steps: of the snapshot; noise and bias: of its actions"""

    steps: int
    noise: float = 0.0
    bias: float = 0.0


def nearest(found: dict[T, float], wanted: float) -> T:
    """The candidate whose score is nearest the wanted one."""
    return min(found, key=lambda candidate: abs(found[candidate] - wanted))


def make(
    task: Task, seed: int, log: Callable[[str], None], device: str = "cpu", directory: Path = DIRECTORY
) -> None:  # fmt: skip
    """Train what has to be trained, choose judge and operators, measure them and store all."""
    torch.set_num_threads(1)
    folder = directory / task.name
    folder.mkdir(parents=True, exist_ok=True)
    if task.name == "peg":
        experts: dict[str, Any] = _make_peg(task, seed, log)
        training = "none"
    else:
        run = train(task, seed, log, device)
        experts = _make_from_run(task, run, folder, seed, log)
        training = json.loads((run / "curve.json").read_text(encoding="utf-8"))
    content = {
        "command": f"python benchmarks/bench_paper.py experts --only {task.name} --seeds {seed}",
        "score": task.score_name,
        "wanted": dict(zip(LEVELS, task.levels, strict=True)),
        "experts": experts,
        "training": training,
    }
    (folder / INDEX).write_text(json.dumps(content) + "\n", encoding="utf-8")
    for name, one in experts.items():
        log(
            f"{task.name} {name}: {np.mean(one['scores']):.1f} % over {len(one['scores'])} episodes"
        )


def _make_from_run(
    task: Task, run: Path, folder: Path, seed: int, log: Callable[[str], None]
) -> dict[str, Any]:
    env = task.make()
    spec = PolicySpec(env.observation_space.shape[0], env.action_space.shape[0])
    curve = json.loads((run / "curve.json").read_text(encoding="utf-8"))["curve"]
    best = max(curve, key=lambda point: point[1])[0]
    (folder / "critics.safetensors").write_bytes((run / "critics.safetensors").read_bytes())

    def measure(candidate: Candidate, use: int, episodes: int) -> list[float]:
        actor = _actor(*_snapshot(run, candidate.steps), spec)
        noisy = NoisyActor(actor, candidate.noise, candidate.bias, seed)
        return operator_scores(task, noisy, use, episodes)

    candidates = [Candidate(steps) for steps, _ in curve]
    candidates += [Candidate(best, noise, noise / 2) for noise in NOISES]
    found = {}
    for candidate in candidates:
        found[candidate] = float(np.mean(measure(candidate, SELECTION, SELECTION_EPISODES)))
        log(f"{task.name}: {candidate}: {found[candidate]:.1f} %")
    chosen = {"judge": Candidate(best)}
    chosen |= {
        level: nearest(found, wanted) for level, wanted in zip(LEVELS, task.levels, strict=True)
    }
    experts = {}
    for name, candidate in chosen.items():
        data, sha256 = _snapshot(run, candidate.steps)
        file = f"actor_{candidate.steps}.safetensors"
        (folder / file).write_bytes(data)
        experts[name] = {
            **asdict(candidate),
            "file": file,
            "sha256": sha256,
            "spec": json.loads(spec.to_json()),
            "selection_score": found[candidate],
            "scores": measure(candidate, REPORT, REPORT_EPISODES),
        }
    return experts


def operator_scores(task: Task, operator: Acting, use: int, episodes: int) -> list[float]:
    """Scores, in %, of an operator that drives all the time."""
    env, found = task.make(), []
    for episode in range(episodes):
        operator.start_episode()
        policy: Policy = lambda state: operator.action(task.view(state))  # noqa: E731
        found += scores(task, env, policy, use, 1, episode)
    return found


def peg_approach() -> Approach:
    """The way that judge and operator of the peg know, at the robot's speed."""
    robot = robot_configuration()
    return Approach(speed=robot["linear_scale"], period=1.0 / robot["control_rate"])


def _make_peg(task: Task, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    approach, found = peg_approach(), {}
    for bias in PEG_BIASES:
        actor = PegActor(ActorConfig(bias=bias), approach, seed)
        found[bias] = float(np.mean(operator_scores(task, actor, SELECTION, 50)))
        log(f"peg: bias {1e3 * bias:.1f} mm: {found[bias]:.1f} %")
    judge = NoisyJudge(ReferenceJudge(approach), 0.0, seed)
    experts: dict[str, Any] = {
        "judge": {"scores": operator_scores(task, judge, REPORT, REPORT_EPISODES)}
    }
    for level, wanted in zip(LEVELS, task.levels, strict=True):
        bias = nearest(found, wanted)
        actor = PegActor(ActorConfig(bias=bias), approach, seed)
        measured = operator_scores(task, actor, REPORT, REPORT_EPISODES)
        experts[level] = {"bias": bias, "selection_score": found[bias], "scores": measured}
    return experts


def _peg_operators(content: dict[str, Any]) -> Callable[[str, int], Acting]:
    def make_operator(level: str, seed: int) -> Acting:
        bias = content["experts"][level]["bias"]
        return PegActor(ActorConfig(bias=bias), peg_approach(), seed)

    return make_operator


def missing(tasks: list[str], directory: Path = DIRECTORY) -> list[str]:
    """Those of the tasks that have no experts yet."""
    return [name for name in tasks if not (directory / name / INDEX).is_file()]
