# SPDX-License-Identifier: Apache-2.0
"""A demo whose episodes a learned detector ends: when it is trained, and how it is judged by the truth
that the simulation hides."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlif_node.qos import LATCHED_10, RELIABLE
from rlif_node.stamps import to_ns

from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.summary import EpisodeRecord, wilson_interval
from rlif_msgs.msg import Episode, TaskSuccess

DELAY = 2  # steps until the scripted operator presses the success button, without a detector
PATIENCE = 10  # steps that it leaves to the detector
TRAINING = 900.0  # s of wall time for the training of the detector, on a slow and busy machine


def detector_problem(arguments: argparse.Namespace) -> str:
    """Why a run cannot have a success detector; empty: it can, or asks for none."""
    if not arguments.detector:
        return ""
    if arguments.real_time or arguments.operator == "me" or arguments.robots != 1:
        return "--detector: found --real-time, --operator me or --robots, expected none of them"
    if not 0 < arguments.detector_steps < arguments.steps:
        return f"--detector-steps: found {arguments.detector_steps}, expected 1 to {arguments.steps - 1}"
    return ""


def detector_trainings(arguments: argparse.Namespace) -> range:
    """After how many environment steps the success detector is trained."""
    every = arguments.detector_steps
    return range(every, arguments.steps if arguments.detector else 0, every)


class Truth:
    """Which episodes had succeeded when they ended, by the simulation's true_success."""

    def __init__(self, graph: GraphClient) -> None:
        self._starts: dict[int, int] = {}  # ns, by the episode's id
        self._stamps: list[int] = []  # ns, of successes
        subscribe = graph.node.create_subscription
        subscribe(TaskSuccess, "true_success", self._on_success, RELIABLE)
        subscribe(Episode, "episode", self._on_episode, LATCHED_10)

    def _on_success(self, message: TaskSuccess) -> None:
        self._stamps.append(to_ns(message.header.stamp))

    def _on_episode(self, message: Episode) -> None:
        if message.phase == Episode.RUNNING:
            self._starts[message.id] = to_ns(message.header.stamp)

    def succeeded(self, episode: Episode) -> bool:
        """Of an episode that has ended."""
        start, end = self._starts.get(episode.id, 0), to_ns(episode.header.stamp)
        return any(start <= stamp <= end for stamp in self._stamps)


def train_detector(graph: GraphClient, bag: Path, directory: Path, seed: int, again: bool) -> str:
    """Train it from the bag that is being written, and let the node use it. The graph stands still.

    `again`: it has ended episodes, and those that the operator has corrected count more.

    Returns why the detector of before goes on, where there is one; else GraphError.
    """
    log = directory.with_suffix(".log")
    # The scripted operator presses the success button DELAY steps late, and PATIENCE where the detector
    # has missed a success: what it saw in between is no failure.
    command = [sys.argv[0], "detector", "train", bag, "-o", directory, "--before", DELAY, "--seed", seed]  # fmt: skip
    command += ["--from-disagreements", "--margin", PATIENCE] if again else []
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([str(c) for c in command], stdout=file, stderr=file)
        try:
            what = "the training of the success detector"
            graph.wait(lambda: process.poll() is not None, what, TRAINING)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        text = log.read_text(encoding="utf-8").strip().splitlines()
        problem = f"the success detector was not trained: {text[-1] if text else log}"
        if again:
            return f"{problem}; the one of before goes on"
        raise GraphError(problem)
    graph.set_parameters("success_detector", detector=str(directory))
    graph.set_parameters("sim_operator", success_delay=PATIENCE)
    return ""


def judge_detector(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """What the detector was worth, by the truth: of the episodes that it ended or could have ended.

    precision, recall: of episodes; None where there is nothing to count
    """
    judged = [r for r in records if r.ended_by is not None]
    ended = [r for r in judged if r.ended_by == "detector"]
    right, true = sum(r.success for r in ended), sum(r.success for r in judged)
    false = len(ended) - right
    return {
        "episodes": len(judged),
        "precision": right / len(ended) if ended else None,
        "recall": right / true if true else None,
        "false_successes": false,
        "false_success_rate": false / len(judged) if judged else None,
        "false_success_rate_interval": list(wilson_interval(false, len(judged))),
    }
