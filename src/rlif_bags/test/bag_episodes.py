"""Episodes of made-up Steps, their bags, and the commands as a shell calls them: for the tests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.step_writer import StepWriter
from rlif_learner.data.steps import Outcome, Source, StepRecord

PERIOD = 100_000_000  # ns


def make_step(
    sequence: int, index: int, length: int, episode: int = 1, **fields: Any
) -> StepRecord:
    """Step `index` of an episode of `length` actions; the operator drives from step 3 on."""
    last = index == length
    operator = 3 <= index < length
    values: dict[str, Any] = {
        "sequence": sequence,
        "episode_id": episode,
        "step_index": index,
        "is_first": index == 0,
        "is_last": last,
        "outcome": Outcome.SUCCESS if last else Outcome.RUNNING,
        "source": Source.NONE if last else Source.OPERATOR if operator else Source.POLICY,
        "onset": index == 3 and not last,
        "intervention_id": episode if operator else 0,
        "evaluation": False,
        "state": np.array([sequence, index, 0.5], np.float32),
        "action": np.zeros(0, np.float32) if last else np.full(2, index / 10, np.float32),
    }
    return StepRecord(**{**values, **fields})


def make_episodes(episodes: int = 3, length: int = 5, images: bool = False) -> list[StepRecord]:
    steps: list[StepRecord] = []
    for episode in range(1, episodes + 1):
        for index in range(length + 1):
            pixels = np.full((4, 6, 3), len(steps) % 256, np.uint8)
            fields = {"images": (pixels, pixels + 1)} if images else {}
            steps.append(make_step(len(steps), index, length, episode, **fields))
    return steps


def write_bag(path: Path, steps: list[StepRecord]) -> Path:
    with StepWriter(path) as writer:
        for step in steps:
            writer.write(step, 1_000_000_000 + step.sequence * PERIOD)
    return path


def assert_equal_steps(found: list[StepRecord], expected: list[StepRecord]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            got = getattr(one, name)
            if name == "images":
                assert all(np.array_equal(a, b) for a, b in zip(got, value, strict=True))
            elif name == "cameras":
                assert not value or got == value  # on the way nameless ones may get a name
            elif isinstance(value, np.ndarray):
                assert got.dtype == np.float32 and np.array_equal(got, value), name
            else:
                assert got == value, name


def run(command: Any, *words: object) -> int:
    """The exit code of a command with these words."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args([str(w) for w in words])))
