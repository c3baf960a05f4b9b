# SPDX-License-Identifier: Apache-2.0
"""Methods, settings and ablations: what a cell of the table is.

Where a number is not that of the authors' code (arXiv 2311.12996 and their repository), a comment says
so; docs/paper.md lists these deviations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import product
from typing import Any

from paper.tasks import LEVELS, TASKS, robot_configuration
from rlif_learner import ImitationConfig, RLPDConfig

# ---- methods


@dataclass(frozen=True)
class Method:
    """How a policy is learned and when the operator acts.

    :param algorithm: "rlpd" on the labels of interventions, "hg_dagger" or "bc"
    :param strategy: "value", "random" or "never"
    :param probability: of the random strategy, per step and without hold
    :param relabels: the policy keeps control, and the operator's action is recorded as the label of
        the visited state: DAgger. Otherwise the operator takes over.
    :param failure_reward: of tasks whose failures have a reward, instead of that
    """

    title: str
    algorithm: str
    strategy: str
    probability: float = 0.0
    relabels: bool = False
    failure_reward: float | None = None


METHODS = {
    "rlif": Method("RLIF value", "rlpd", "value"),
    # Every second step of the policy is labelled, whatever it does: to go on is worth -0.5 / (1 - 0.99).
    # With falls of -20 it learned to fall. -100, a label on each step, is the least value there is.
    "rlif_random": Method("RLIF random", "rlpd", "random", 0.5, failure_reward=-100.0),
    "hg_dagger": Method("HG-DAgger", "hg_dagger", "value"),
    "hg_dagger_85": Method("HG-DAgger 85 %", "hg_dagger", "random", 0.85),
    "dagger": Method("DAgger", "hg_dagger", "random", 1.0, relabels=True),
    "dagger_85": Method("DAgger 85 %", "hg_dagger", "random", 0.85, relabels=True),
    "bc": Method("BC", "bc", "never"),
}

# ---- settings


@dataclass(frozen=True)
class Settings:
    """Settings of a cell.

    :param steps: of the environment
    :param evaluate_every: environment steps between two points of the learning curve
    :param curve_episodes, final_episodes: of a point of the curve, and of the score
    :param episode_steps: after which an episode of training is truncated; without it as in the
        evaluation. Demonstrations are as long as those.
    :param average: decay per update of the moving average of the actor, whose score is taken; without
        it the last actor's. What acts in training is the learner's own.
    :param prior_episodes, prior_noise: demonstrations by the judge's policy, the same for all methods
        and levels, and the standard deviation of the noise on their actions
    :param prior_into_online: demonstrations of RLPD go into the online buffer with reward 0
    :param alpha, delta: of the value strategy; without alpha, delta
    :param rest: steps that the policy drives after a take-over
    :param pretraining: gradient steps of the imitation methods before the first environment step
    :param warmup: environment steps before the first update of RLPD
    :param keep_operator: False drops the operator's transitions of a take-over but the last
    :param fall_is_failure: an episode that the environment terminates without success is a failure
        (-1), as one that an operator ends so; otherwise it is truncated, and only interventions are
        labelled. Q_ref does not object to every way of falling, and one without a label is as good as
        to walk on.
    :param failure_reward: of RLPD, see rlif_learner.data.labels; 0: a failure is -1 and not terminal
    :param state_scale: of each entry of the state, a number that the networks see as 1
    :param normalise: offset and scale are those of the demonstrations, as the learner node has them
    :param task_reward: the task's reward instead of interventions, and no operator
    """

    steps: int
    evaluate_every: int
    hidden: tuple[int, ...]
    rlpd: Mapping[str, Any]
    imitation: Mapping[str, Any]
    prior_episodes: int
    prior_noise: float
    prior_into_online: bool
    alpha: float | None
    delta: float = 0.0
    beta: float = 0.95
    take_over_length: int = 4
    rest: int = 1
    label_scheme: str = "onset"
    keep_operator: bool = True
    fall_is_failure: bool = False
    failure_reward: float = 0.0
    task_reward: bool = False
    pretraining: int = 5_000
    warmup: int = 500
    curve_episodes: int = 5
    final_episodes: int = 50
    average: float | None = None
    episode_steps: int | None = None
    state_scale: tuple[float, ...] = ()
    normalise: bool = False

    def rlpd_config(self) -> RLPDConfig:
        return RLPDConfig.from_mapping(self.rlpd, "rlif")

    def imitation_config(self) -> ImitationConfig:
        return ImitationConfig.from_mapping(self.imitation)

    def to_mapping(self) -> dict[str, Any]:
        """As JSON holds it, with all settings of the learner."""
        complete = {**asdict(self), "rlpd": self.rlpd_config().to_mapping()}
        complete["imitation"] = self.imitation_config().to_mapping()
        mapping: dict[str, Any] = json.loads(json.dumps(complete))
        return mapping


def with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a result holds them, with the defaults of what has been added since."""
    known = {one.name: one.default for one in fields(Settings) if one.default is not MISSING}
    complete: dict[str, Any] = json.loads(json.dumps({**known, **mapping}))
    if "rlpd" in complete:
        complete["rlpd"] = RLPDConfig.from_mapping(complete["rlpd"]).to_mapping()
    return complete


# What an algorithm makes no use of: a result does not depend on it.
UNUSED = {
    "rlpd": ("imitation", "pretraining"),
    "hg_dagger": ("rlpd", "warmup", "failure_reward"),
    "bc": ("rlpd", "warmup", "failure_reward", "episode_steps"),
}


def used(mapping: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """Of settings as JSON holds them, those that the method's result depends on."""
    return {name: value for name, value in mapping.items() if name not in UNUSED[method.algorithm]}


# Smaller than the authors': 5 critics of 128x2 for 10 of 256x3, 2 critic steps per environment step for
# 15 (hopper) and 5 (pen); walker2d has 1 there. Half of each batch is prior data, as in RLPD. The actor
# learns at a third of their rate: with few labels its gradient is mostly noise, and Adam's steps do not
# shrink with it. Of the operator's steps, half are learned with the action of the policy that they
# overruled: nobody executes it, and its value is free otherwise.
_SMALL = {
    "hidden": (128, 128), "ensemble_size": 5, "utd": 2, "prior_ratio": 0.5, "refused_ratio": 0.5,
    "clip_positive_values": True, "actor_learning_rate": 1e-4,
}  # fmt: skip


def _trained_judge(action_dim: int, alpha: float) -> Settings:
    """Of the tasks whose judge is trained.

    One demonstration: of two, imitation alone was as good as the judge of hopper; of walker2d of five,
    and of one it scored 2 %. Less noise on the actions than the authors' (initial temperature 1, target
    entropy -action_dim / 2): of a walking policy under that noise, the mean action fell where sampled
    ones walked for 1,000 steps.

    States are normalised: of hopper's, velocities are tens of times as large as the angles that tell
    a fall. A fall is worth as much as to be taken over again after each take-over of 4 steps, and for
    ever: -1 / (1 - 0.99^5). Episodes of training are short, so that the beginning of one is a part of
    what is learned from: in 1,000 steps of hopping it is passed once, and most falls were there.
    """
    entropy = {"initial_temperature": 0.1, "target_entropy": -float(action_dim)}
    return Settings(
        steps=40_000, evaluate_every=4_000, hidden=(128, 128), rlpd={**_SMALL, **entropy},
        imitation={"utd": 1}, prior_episodes=1, prior_noise=0.1, prior_into_online=False, alpha=alpha,
        fall_is_failure=True, failure_reward=-20.0, average=0.999, normalise=True,
        episode_steps=400,
    )  # fmt: skip


def _peg() -> Settings:
    """The demo's networks and settings of RLPD (config/sim/robot.yaml), without the clipped values."""
    robot = robot_configuration()
    return Settings(
        steps=8_000, evaluate_every=1_000, hidden=tuple(robot["hidden"]), rlpd=robot["rlpd"],
        imitation={"utd": 1}, prior_episodes=5, prior_noise=0.1, prior_into_online=False,
        alpha=None, delta=0.6, state_scale=tuple(robot["state_scale"]),
        pretraining=2_000, warmup=200, curve_episodes=20,
    )  # fmt: skip


SETTINGS: dict[str, Settings] = {
    "hopper": _trained_judge(3, alpha=0.975),
    "walker2d": replace(_trained_judge(6, alpha=0.99), prior_episodes=3),
    "pen": replace(_trained_judge(24, alpha=0.97), prior_episodes=50, curve_episodes=20),
    "peg": _peg(),
}

# ---- ablations


@dataclass(frozen=True)
class Ablation:
    """One change against the settings. rlpd: changes among RLPD's own."""

    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rlpd: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, settings: Settings) -> Settings:
        changed = replace(settings, **dict(self.changes))
        return replace(changed, rlpd={**changed.rlpd, **self.rlpd})


ABLATIONS = {
    "every_step": Ablation(
        "-1 on every step before one of the operator", {"label_scheme": "every_step"}
    ),
    "drop_operator": Ablation("the operator's transitions dropped", {"keep_operator": False}),
    "fall_unlabelled": Ablation("a fall is not labelled", {"fall_is_failure": False}),
    "fall_truncated": Ablation("a fall is -1 and not terminal", {"failure_reward": 0.0}),
    "entropy_in_target": Ablation(
        "with the entropy in the target, and values that are not clipped, as it may be positive",
        rlpd={"entropy_in_target": True, "clip_positive_values": False},
    ),
    "authors_entropy": Ablation(
        "initial temperature 1, target entropy -dim/2",
        rlpd={"initial_temperature": 1.0, "target_entropy": None},
    ),
    "clip_positive_values": Ablation(
        "next values of at most 0 in the target", rlpd={"clip_positive_values": True}
    ),
    "unclipped_values": Ablation(
        "next values above 0 in the target", rlpd={"clip_positive_values": False}
    ),
    "authors_actor_rate": Ablation("actor's learning rate 3e-4", rlpd={"actor_learning_rate": 3e-4}),
    "executed_actions": Ablation(
        "of the operator's steps, the executed action alone", rlpd={"refused_ratio": 0.0}
    ),
    "raw_states": Ablation("states are not normalised", {"normalise": False}),
    "beta_0.8": Ablation("beta 0.8", {"beta": 0.8}),
    "beta_1": Ablation("beta 1", {"beta": 1.0}),
    "length_1": Ablation("take-overs of 1 step", {"take_over_length": 1}),
    "length_16": Ablation("take-overs of 16 steps", {"take_over_length": 16}),
    "prior_into_online": Ablation(
        "demonstrations in the online buffer", {"prior_into_online": True}, {"prior_ratio": 0.0}
    ),
    "whole_episodes": Ablation("episodes of training as long as in the evaluation", {"episode_steps": None}),
    "longer": Ablation("60,000 steps", {"steps": 60_000}),
    "full_size": Ablation(
        "10 critics of 256x3, 5 critic steps, an actor of 256x2", {"hidden": (256, 256)},
        {"hidden": (256,) * 3, "ensemble_size": 10, "utd": 5},
    ),
    "task_reward": Ablation("RLPD with the task's reward", {"task_reward": True}),
}  # fmt: skip

# ---- cells


@dataclass(frozen=True, order=True)
class Cell:
    """One run. level: one of LEVELS, or "any" where no operator takes part"""

    task: str
    level: str
    method: str
    seed: int
    ablation: str = ""

    @property
    def name(self) -> str:
        parts = [self.task, self.level, self.method, self.ablation, f"seed{self.seed}"]
        return "-".join(part for part in parts if part)

    @property
    def settings(self) -> Settings:
        settings, failure_reward = SETTINGS[self.task], METHODS[self.method].failure_reward
        if settings.failure_reward and failure_reward is not None:
            settings = replace(settings, failure_reward=failure_reward)
        return ABLATIONS[self.ablation].apply(settings) if self.ablation else settings

    @property
    def used_settings(self) -> dict[str, Any]:
        """As JSON holds them, those that the result depends on."""
        return used(self.settings.to_mapping(), METHODS[self.method])


def has_operator(method: Method, settings: Settings) -> bool:
    """Whether an operator takes part: BC and the task's reward have none."""
    return method.strategy != "never" and not settings.task_reward


def main_cells(
    tasks: list[str], methods: list[str], levels: list[str], seeds: list[int]
) -> list[Cell]:
    """The cells of the table. Seeds vary last, so that a whole table of one seed comes first."""
    return _cells(tasks, [""], methods, levels, seeds)


def ablation_cells(
    tasks: list[str], ablations: list[str], methods: list[str], levels: list[str], seeds: list[int]
) -> list[Cell]:
    """Changes of methods, in the same order.

    ValueError for an ablation that changes nothing, as a method of a task has it so.
    """
    for task, name, method in product(tasks, ablations, methods):
        plain, changed = Cell(task, "any", method, 0), Cell(task, "any", method, 0, name)
        if changed.used_settings == plain.used_settings:
            raise ValueError(
                f"ablation {name}: {method} of {task} has it so; expected another ablation, method or task"
            )
    return _cells(tasks, ablations, methods, levels, seeds)


def _cells(
    tasks: list[str], ablations: list[str], methods: list[str], levels: list[str], seeds: list[int]
) -> list[Cell]:
    cells = []
    for seed, task, name, method in product(seeds, tasks, ablations, methods):
        alone = Cell(task, "any", method, seed, name)
        if has_operator(METHODS[method], alone.settings):
            cells += [replace(alone, level=level) for level in levels]
        else:
            cells.append(alone)
    return cells


DEFAULT_TASKS = [name for name, task in TASKS.items() if task.by_default]
ALL_LEVELS = list(LEVELS)
