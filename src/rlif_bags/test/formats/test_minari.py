# SPDX-License-Identifier: Apache-2.0
"""Minari datasets: written for Minari, read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_bags import Cli, assert_equal_steps, imported, make_episodes, rlif, write_bag

from rlif_bags.reading.step_reader import StepReader
from rlif_learner.data.steps import Outcome, StepRecord

HINT = "is not installed: pip install --group export"
minari = pytest.importorskip("minari", reason=f"minari {HINT}")
pytest.importorskip("h5py", reason=f"h5py {HINT}")
spaces = pytest.importorskip("gymnasium.spaces", reason=f"gymnasium {HINT}")


def export(tmp_path: Path, steps: list[StepRecord], *options: object) -> Path:
    bag = write_bag(tmp_path / "bag", steps)
    out = tmp_path / "peg-v0"
    assert rlif("export", bag, "-o", out, "--format", "minari", *options) == 0
    return out


def load(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As a user does."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(dataset.parent))
    return minari.load_dataset(dataset.name)


def test_write_minari_is_read_by_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = make_episodes(3)
    steps[-1] = replace(steps[-1], outcome=Outcome.TRUNCATED)
    data = load(export(tmp_path, steps, "--author", "a lab"), monkeypatch)
    assert (data.total_episodes, data.total_steps) == (3, 15)
    for number, episode in enumerate(data.iterate_episodes()):
        mine = steps[number * 6 : number * 6 + 6]
        assert np.array_equal(episode.observations, [s.state for s in mine])
        assert np.array_equal(episode.actions, [s.action for s in mine[:-1]])
        assert episode.rewards.tolist() == [0, 0, -1, 0, 0]
        assert episode.terminations.tolist() == [False] * 4 + [number < 2]
        assert episode.truncations.tolist() == [False] * 4 + [number == 2]
        assert episode.infos["interventions"].tolist() == [False] * 3 + [True, True, False]
    assert data.spec.dataset_id == "peg-v0" and data.storage.metadata["author"] == {"a lab"}
    assert [e.id for e in data.sample_episodes(2)]


def test_read_minari_gives_the_written_steps(tmp_path: Path) -> None:
    steps = make_episodes(3)
    steps[5] = replace(steps[5], outcome=Outcome.FAILURE)
    dataset = export(tmp_path, steps)
    assert_equal_steps(imported(dataset), steps)


@pytest.mark.parametrize("size", [4, 40])
def test_read_minari_images_keep_pixels_and_order(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(minari.dataset.minari_storage.MinariStorage, "jpeg_encoding"):
        pytest.skip("this version of Minari stores images as JPEG")
    random = np.random.default_rng(0)
    steps = [
        replace(s, images=tuple(random.integers(0, 256, (2, size, size, 3), np.uint8)))
        for s in make_episodes(2)
    ]
    dataset = export(tmp_path, steps)
    episode = load(dataset, monkeypatch)[0]
    assert set(episode.observations) == {"state", "images"}
    assert_equal_steps(imported(dataset), steps)


def test_write_minari_images_an_old_version_cannot_read_are_refused(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = minari.dataset.minari_storage.MinariStorage
    monkeypatch.setattr(storage, "new", lambda data_path, **spaces: pytest.fail("was written"))
    bag = write_bag(tmp_path / "bag", make_episodes(1, images=True))
    assert "camera camera_0: found an image of (4, 6, 3)" in cli.fails(
        "export", bag, "-o", tmp_path / "peg-v0", "--format", "minari"
    )


def test_write_minari_name_that_is_no_id_is_refused(tmp_path: Path, cli: Cli, bag: Path) -> None:
    assert "expected NAME-v0" in cli.fails(
        "export", bag, "-o", tmp_path / "peg", "--format", "minari"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


def dataset_of(path: Path, entries: dict[str, int]) -> Path:
    """A dataset of two episodes of four actions whose observations are a dictionary of vectors."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    def box(size: int) -> Any:
        return spaces.Box(-np.inf, np.inf, (size,), np.float64)

    (path / "data").mkdir(parents=True)
    space = spaces.Dict({name: box(size) for name, size in entries.items()})
    storage = MinariStorage.new(path / "data", observation_space=space, action_space=box(2))
    storage.update_metadata({"dataset_id": path.name, "minari_version": minari.__version__})
    for episode in range(2):
        observations = {
            name: np.full((5, size), 10.0 * episode + at)
            for at, (name, size) in enumerate(entries.items())
        }
        storage.update_episodes([EpisodeBuffer(
            observations=observations, actions=np.zeros((4, 2)), rewards=np.ones(4),
            terminations=np.zeros(4, bool), truncations=np.arange(4) == 3, infos={},
        )])  # fmt: skip
    return path


GOAL = {"achieved_goal": 2, "desired_goal": 2, "observation": 4}


def test_minari_reader_goal_is_part_of_the_state(tmp_path: Path, cli: Cli) -> None:
    """Regression: desired_goal was dropped without a word."""
    dataset = dataset_of(tmp_path / "goal-v0", GOAL)
    output = cli.succeeds("import", dataset, "-o", tmp_path / "bag")
    assert "the state is observation and desired_goal" in output
    assert "not used: achieved_goal" in output
    steps = list(StepReader(tmp_path / "bag"))
    assert len(steps) == 10 and steps[0].state.tolist() == [2.0] * 4 + [1.0] * 2
    keys = ("--state-key", "desired_goal", "observation")
    assert imported(dataset, *keys)[0].state.tolist() == [1.0] * 2 + [2.0] * 4
    assert "found no vectors ['goal'], only achieved_goal [2]" in cli.fails(
        "import", dataset, "-o", tmp_path / "no", "--state-key", "goal"
    )


@pytest.mark.parametrize(
    "entries", [{"observation": 4, "target": 2}, {"state": 3, "desired_goal": 2}, {"a": 1, "b": 2}]
)
def test_minari_reader_several_vectors_are_refused_with_the_option(
    tmp_path: Path, cli: Cli, entries: dict[str, int]
) -> None:
    dataset = dataset_of(tmp_path / "dict-v0", entries)
    error = cli.fails("import", dataset, "-o", tmp_path / "bag")
    assert "--state-key NAME... joins some of" in error
    assert all(f"{name} [{size}]" in error for name, size in entries.items())
