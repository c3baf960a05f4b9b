# SPDX-License-Identifier: Apache-2.0
"""Processor time of the table, out of some hundred measured steps of each algorithm on each task.

The experts of the measurement are not trained: their networks cost the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from paper.cells import OTHER_AVERAGES, longest_episode, run_cell
from paper.experts import TRAININGS, CriticJudge, Experts, NoisyActor, peg_approach
from paper.report import RESULTS, write_json
from paper.settings import METHODS, Cell, Settings
from paper.tasks import EVALUATION, TASKS, Task, episode_seed, play
from rlif_learner import RLPDConfig
from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_policy.networks import Actor, PolicySpec
from rlif_sim.strategies import Actor as PegActor
from rlif_sim.strategies import ActorConfig, ReferenceJudge

SPEED = RESULTS / "paper_speed.json"
MEASURED = {"rlpd": "rlif", "hg_dagger": "hg_dagger", "bc": "bc"}  # a method of each algorithm
_SHORT, _LONG = 200, 700  # steps of the two runs whose difference counts


def untrained(task: Task) -> Experts:
    """Experts with the networks of trained ones and random weights."""
    if task.name == "peg":
        return Experts(
            ReferenceJudge(peg_approach()),
            lambda level, seed: PegActor(ActorConfig(), peg_approach(), seed), {}, "untrained",
        )  # fmt: skip
    env = task.make()
    spec = PolicySpec(env.observation_space.shape[0], env.action_space.shape[0])
    config: RLPDConfig = TRAININGS[task.name].config()
    judge = CriticJudge(Actor(spec), EnsembleCritic(spec, config, torch.Generator().manual_seed(0)))
    return Experts(
        judge, lambda level, seed: NoisyActor(judge.actor, 0.1, 0.1, seed), {}, "untrained"
    )


def seconds_per_1000_steps(cell: Cell, settings: Settings, found: Experts) -> float:
    """Processor time without evaluation, demonstrations and the making of the learner."""
    bare = replace(
        settings, evaluate_every=10**9, final_episodes=0, prior_episodes=1, pretraining=0, warmup=0
    )
    spent = [
        run_cell(cell, found, log=lambda _: None, settings=replace(bare, steps=steps))["seconds"]
        for steps in (_SHORT, _LONG)
    ]
    return (spent[1]["processor"] - spent[0]["processor"]) * 1_000 / (_LONG - _SHORT)


def _evaluation(task: Task) -> float:
    """The same of an evaluation."""
    env = task.make()
    actor = Actor(PolicySpec(env.observation_space.shape[0], env.action_space.shape[0]))
    steps, begin = 0, time.process_time()
    for episode in range(1_000):
        steps += play(env, actor.act, [episode_seed(EVALUATION, episode)])[0].steps
        if steps >= 1_000:
            break
    return (time.process_time() - begin) * 1_000 / steps


def measure(
    cells: list[Cell], machine: dict[str, Any], log: Callable[[str], None], path: Path = SPEED
) -> None:
    """Measure the tasks of `cells`, and write what all of the cells take."""
    content = _read(path)
    content["machine"] = machine
    for name in dict.fromkeys(cell.task for cell in cells):
        task, found, rates = TASKS[name], untrained(TASKS[name]), {}
        for algorithm, method in MEASURED.items():
            cell = Cell(name, "weak", method, 0)
            rates[algorithm] = seconds_per_1000_steps(cell, cell.settings, found)
            log(f"{name} {algorithm}: {rates[algorithm]:.1f} s per 1,000 steps")
        rates["evaluation"] = _evaluation(task)
        if name in TRAININGS:
            cell = Cell(name, "any", "rlif", 0, "task_reward")
            rlpd = TRAININGS[name].config().to_mapping()
            rates["expert"] = seconds_per_1000_steps(cell, replace(cell.settings, rlpd=rlpd), found)
        content["seconds_per_1000_steps"][name] = rates
        content["load"][name] = os.getloadavg()[1]  # processes at work over the last five minutes
        content["settings"][name] = {
            "cell": Cell(name, "weak", "rlif", 0).settings.to_mapping(),
            "expert": asdict(TRAININGS[name]) if name in TRAININGS else None,
        }
        own = [one for one in cells if one.task == name]
        content["hours"][name] = {
            "cells": sum(_seconds(one, rates) for one in own) / 3600,
            "number": len(own),
            "expert": TRAININGS[name].steps * rates["expert"] / 3.6e6 if name in TRAININGS else 0.0,
        }
        log(f"{name}: hours of one core: {content['hours'][name]}")
        write_json(path, content)
    _read.cache_clear()


def _seconds(cell: Cell, rates: dict[str, float]) -> float:
    """Processor time of a cell: updates, and evaluation where all episodes are the longest."""
    settings = cell.settings
    points = settings.steps // settings.evaluate_every
    episodes = points * settings.curve_episodes + settings.final_episodes
    episodes *= 1 if settings.average is None else 2 + len(OTHER_AVERAGES)  # and the last actor
    evaluation = episodes * longest_episode(TASKS[cell.task].make()) * rates["evaluation"]
    pretraining = 0 if METHODS[cell.method].algorithm == "rlpd" else settings.pretraining
    own = settings.steps * rates[METHODS[cell.method].algorithm] + pretraining * rates["bc"]
    return (own + evaluation) / 1_000


@lru_cache(maxsize=1)
def _read(path: Path) -> dict[str, Any]:
    if path.is_file():
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    return {"load": {}, "seconds_per_1000_steps": {}, "settings": {}, "hours": {}}


def cost(cell: Cell) -> float:
    """How long a cell takes relative to others: measured, or its steps where nothing was."""
    rates = _read(SPEED)["seconds_per_1000_steps"].get(cell.task, {})
    return _seconds(cell, rates) if rates else cell.settings.steps / 100
