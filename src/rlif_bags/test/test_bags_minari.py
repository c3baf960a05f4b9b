"""Minari datasets: what is written is what Minari reads, and comes back as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest
from bag_episodes import run

from rlif_bags.commands import export as export_command
from rlif_bags.commands import import_ as import_command
from rlif_bags.reading.step_reader import read_steps
from rlif_learner.data.steps import Outcome, StepRecord

HINT = "is not installed: pip install --group export"
minari = pytest.importorskip("minari", reason=f"minari {HINT}")
pytest.importorskip("h5py", reason=f"h5py {HINT}")


def export(tmp_path: Path, steps: list[StepRecord], *options: object) -> Path:
    bag = helpers.write_bag(tmp_path / "bag", steps)
    out = tmp_path / "peg-v0"
    assert run(export_command, bag, "-o", out, "--format", "minari", *options) == 0
    return out


def load(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As a user does."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(dataset.parent))
    return minari.load_dataset(dataset.name)


def test_minari_itself_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = helpers.make_episodes(3)
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


def test_there_and_back_again(tmp_path: Path) -> None:
    steps = helpers.make_episodes(3)
    steps[5] = replace(steps[5], outcome=Outcome.FAILURE)
    dataset = export(tmp_path, steps)
    assert run(import_command, dataset, "-o", tmp_path / "again") == 0
    helpers.assert_equal_steps(list(read_steps(tmp_path / "again")), steps)


@pytest.mark.parametrize("size", [4, 40])
def test_images_keep_their_pixels_and_order(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(minari.dataset.minari_storage.MinariStorage, "jpeg_encoding"):
        pytest.skip("this version of Minari stores images as JPEG")
    random = np.random.default_rng(0)
    steps = [
        replace(s, images=tuple(random.integers(0, 256, (2, size, size, 3), np.uint8)))
        for s in helpers.make_episodes(2)
    ]
    dataset = export(tmp_path, steps)
    episode = load(dataset, monkeypatch)[0]
    assert set(episode.observations) == {"state", "images"}
    assert run(import_command, dataset, "-o", tmp_path / "again") == 0
    helpers.assert_equal_steps(list(read_steps(tmp_path / "again")), steps)


def test_images_that_an_old_version_cannot_read_back_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = minari.dataset.minari_storage.MinariStorage
    monkeypatch.setattr(storage, "new", lambda data_path, **spaces: pytest.fail("was written"))
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1, images=True))
    assert run(export_command, bag, "-o", tmp_path / "peg-v0", "--format", "minari") == 1
    assert "camera camera_0: found an image of (4, 6, 3)" in capsys.readouterr().err


def test_a_name_that_is_no_id_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert run(export_command, bag, "-o", tmp_path / "peg", "--format", "minari") == 1
    assert "expected NAME-v0" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]
