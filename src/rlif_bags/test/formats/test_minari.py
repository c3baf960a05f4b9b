"""Minari datasets: written for Minari, read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_bags import assert_equal_steps, make_episodes, rlif, write_bag

from rlif_bags.reading.step_reader import read_steps
from rlif_learner.data.steps import Outcome, StepRecord

HINT = "is not installed: pip install --group export"
minari = pytest.importorskip("minari", reason=f"minari {HINT}")
pytest.importorskip("h5py", reason=f"h5py {HINT}")


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
    assert rlif("import", dataset, "-o", tmp_path / "again") == 0
    assert_equal_steps(list(read_steps(tmp_path / "again")), steps)


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
    assert rlif("import", dataset, "-o", tmp_path / "again") == 0
    assert_equal_steps(list(read_steps(tmp_path / "again")), steps)


def test_write_minari_images_an_old_version_cannot_read_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = minari.dataset.minari_storage.MinariStorage
    monkeypatch.setattr(storage, "new", lambda data_path, **spaces: pytest.fail("was written"))
    bag = write_bag(tmp_path / "bag", make_episodes(1, images=True))
    assert rlif("export", bag, "-o", tmp_path / "peg-v0", "--format", "minari") == 1
    assert "camera camera_0: found an image of (4, 6, 3)" in capsys.readouterr().err


def test_write_minari_name_that_is_no_id_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(1))
    assert rlif("export", bag, "-o", tmp_path / "peg", "--format", "minari") == 1
    assert "expected NAME-v0" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]
