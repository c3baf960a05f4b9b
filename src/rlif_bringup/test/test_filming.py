# SPDX-License-Identifier: Apache-2.0
"""The film of a run: made where it can be, and a line where it cannot; never the end of the run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlif_bags.step_writer import StepWriter
from rlif_bringup import evaluate, filming
from rlif_bringup.summary import EpisodeRecord
from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig, RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_policy.networks import PolicySpec

LENGTH = 4
SPEC = PolicySpec(state_dim=3, action_dim=2, hidden=(8,))


def write_bag(path: Path, images: bool = True) -> Path:
    """Episodes 1 to 6."""
    with StepWriter(path) as writer:
        for n in range(6 * (LENGTH + 1)):
            episode, index = divmod(n, LENGTH + 1)
            last = index == LENGTH
            picture = np.full((8, 8, 3), 8 * n, np.uint8)
            step = StepRecord(
                n, 1 + episode, index, index == 0, last, Outcome.SUCCESS if last else 0,
                Source.NONE if last else Source.POLICY, False, 0, True, np.zeros(3, np.float32),
                np.zeros(0 if last else 2, np.float32), (picture, picture) if images else (),
            )  # fmt: skip
            writer.write(step, 1_000_000_000 + n * 100_000_000)
    return path


def store(path: Path, learner: Any) -> Path:
    state_dim = learner.spec.state_dim
    CheckpointStore(path).save(learner, Buffers(ReplayBuffer(8, state_dim, 2), None))
    return path


def record(phase: str, number: int) -> EpisodeRecord:
    return EpisodeRecord(phase, number, 0, LENGTH, 0, 0, True, 1.0)


RECORDS = [record("policy", n) for n in (3, 4, 5, 6)] + [record("training", n) for n in (1, 2)]


class Graph:
    """In the place of a running graph."""

    def parameters(self, node: str) -> dict[str, Any]:
        return {"encoder_weights": f"of {node}"}


def test_plan_film_needs_images_and_a_bag() -> None:
    said: list[str] = []
    on = {"images": True, "bag_directory": Path("a/bag")}
    plan: Any = filming.plan_film
    assert plan(None, on, Graph(), said.append) == filming.FilmPlan(Path("a/bag"), 3, "of policy")
    assert plan(5, {**on, "images": "true"}, Graph(), said.append).count == 5
    assert plan(0, on, Graph(), said.append) is None
    assert plan(None, {**on, "images": False}, Graph(), said.append) is None
    assert said == [], "nobody asked"
    assert plan(2, {**on, "images": "false"}, Graph(), said.append) is None
    assert plan(None, {"images": True}, Graph(), said.append) is None
    assert ["--images" in said[0], "bag_directory" in said[1]] == [True, True]


def make(tmp_path: Path, bag: Path, checkpoint: Path, records: Any = RECORDS) -> list[str]:
    said: list[str] = []
    plan = filming.FilmPlan(bag, 3, "torchvision")
    filming.make_film(plan, records, checkpoint, tmp_path, said.append)
    return said


@pytest.mark.slow
def test_make_film_shows_the_first_episodes_of_the_policy_alone(tmp_path: Path) -> None:
    run = store(tmp_path / "run", RLPD(RLPDConfig(hidden=(8,)), SPEC))
    assert make(tmp_path, write_bag(tmp_path / "bag"), run) == []
    with Image.open(tmp_path / "episodes.gif") as gif:
        assert gif.n_frames == 3 * (LENGTH + 1)
        valued = gif.width
        # The cameras' grey tells which Steps these are: those of episode 3 come first.
        grey = np.asarray(gif.convert("RGB"))[150, 100].astype(int)
    assert np.abs(grey - 8 * 2 * (LENGTH + 1)).max() < 6
    filmed = tmp_path / "bc"
    filmed.mkdir()
    said = make(filmed, tmp_path / "bag", store(tmp_path / "b", BC(ImitationConfig(), SPEC)))
    assert len(said) == 1 and "without the critic's value" in said[0] and "BC" in said[0]
    with Image.open(filmed / "episodes.gif") as gif:
        assert gif.width < valued, "a film all the same"


def test_make_film_that_fails_reports_a_line(tmp_path: Path) -> None:
    run = store(tmp_path / "run", RLPD(RLPDConfig(hidden=(8,)), SPEC))
    assert "no film" in make(tmp_path, tmp_path / "none", run)[0]
    assert "hold no images" in make(tmp_path, write_bag(tmp_path / "blind", False), run)[0]
    bag = write_bag(tmp_path / "bag")
    assert "not evaluated" in make(tmp_path, bag, run, RECORDS[4:])[0]
    other = store(tmp_path / "other", RLPD(RLPDConfig(hidden=(8,)), PolicySpec(4, 2)))
    (said,) = make(tmp_path, bag, other)
    assert "is of another network" in said and not (tmp_path / "episodes.gif").exists()


@pytest.mark.parametrize(("words", "asked"), [((), None), (("--film", "0"), 0)])
def test_film_option_is_parsed(words: tuple[str, ...], asked: int | None) -> None:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    assert parser.parse_args(["run", *words]).film == asked
