# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets as written."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lerobot_data import CAMERAS, HINT, LEROBOT, episodes, export_dataset, picture
from step_bags import PERIOD, Cli, assert_equal_steps, imported, make_episodes, rlif, write_bag

from rlif_bags.step_writer import StepWriter
from rlif_learner.data.steps import Outcome

parquet = pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {HINT}")
pytest.importorskip("av", reason=f"av {HINT}")


def test_write_lerobot_lossless_comes_back_with_the_same_pixels(tmp_path: Path) -> None:
    steps = episodes()
    dataset = export_dataset(tmp_path, steps, "--codec", "lossless")
    found = imported(dataset)
    assert_equal_steps(found, steps)
    assert found[0].cameras == CAMERAS


# Of the h264 videos, in levels of 0 to 255, for pictures with smooth ramps and sharp edges.
MEAN_ERROR = 4.0


@pytest.mark.parametrize("options", [{}, {"height": 47}, {"channels": 1}])
def test_write_lerobot_videos_are_near_to_the_images(
    tmp_path: Path, options: dict[str, int]
) -> None:
    steps = episodes(**options)
    found = imported(export_dataset(tmp_path, steps))
    assert_equal_steps([replace(s, images=()) for s in found],
                               [replace(s, images=()) for s in steps])  # fmt: skip
    for one, other in zip(found, steps, strict=True):
        for got, sent in zip(one.images, other.images, strict=True):
            assert got.shape == sent.shape
            assert np.abs(got.astype(int) - sent).mean() < MEAN_ERROR


def test_write_lerobot_columns_hold_the_facts(tmp_path: Path) -> None:
    steps = episodes(2)
    steps[-1] = replace(steps[-1], outcome=Outcome.FAILURE)
    dataset = export_dataset(tmp_path, steps, "--task", "put the peg in")
    rows = parquet.read_table(dataset / "data/chunk-000/file-000.parquet").to_pydict()
    assert rows["intervention"] == ([False] * 3 + [True] * 3) * 2
    assert rows["next.reward"] == [0, 0, -1, 0, 0, 0] * 2
    assert rows["next.done"] == ([False] * 5 + [True]) * 2
    assert rows["next.success"] == [False] * 5 + [True] + [False] * 6
    assert rows["next.truncated"] == [False] * 11 + [True]
    assert rows["next.outcome"] == [0] * 5 + [1] + [0] * 5 + [2]
    assert rows["operator_action_known"] == rows["intervention"]
    assert rows["timestamp"] == pytest.approx([i / 10 for i in range(6)] * 2)
    assert rows["episode_index"] == [0] * 6 + [1] * 6 and rows["index"] == list(range(12))
    assert rows["stamp_ns"][0] == 1_000_000_000
    assert rows["next.observation.state"][5] == steps[6].state.tolist()
    assert parquet.read_table(dataset / "meta/tasks.parquet").to_pydict()["task"] == [
        "put the peg in"
    ]


def test_write_lerobot_without_cameras_has_no_videos(tmp_path: Path) -> None:
    steps = make_episodes(2)
    dataset = export_dataset(tmp_path, steps)
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["video_path"] is None and not (dataset / "videos").exists()
    assert info["fps"] == 10 and info["total_frames"] == 10
    assert_equal_steps(imported(dataset), steps)


def test_write_lerobot_gap_makes_two_episodes(tmp_path: Path) -> None:
    steps = make_episodes(1, length=8)
    steps.pop(4)
    info = json.loads((export_dataset(tmp_path, steps) / "meta/info.json").read_text())
    assert info["total_episodes"] == 2 and info["total_frames"] == 6


def test_write_lerobot_large_dataset_goes_into_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(f"{LEROBOT}.DATA_MIB", 0)
    monkeypatch.setattr(f"{LEROBOT}.VIDEO_MIB", 0)
    monkeypatch.setattr(f"{LEROBOT}.CHUNK_FILES", 2)
    steps = episodes()
    dataset = export_dataset(tmp_path, steps, "--codec", "lossless")
    found = sorted(p.relative_to(dataset / "data").as_posix() for p in dataset.glob("data/*/*"))
    assert found == [
        "chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet",
    ]  # fmt: skip
    assert_equal_steps(imported(dataset), steps)


def test_write_lerobot_failure_leaves_nothing(tmp_path: Path, cli: Cli) -> None:
    steps = episodes(2)
    steps[-3] = replace(steps[-3], images=(picture(0, 0, 24), picture(0, 1)))
    write_bag(tmp_path / "bag", steps, cameras=CAMERAS)
    args = (tmp_path / "bag", "-o", tmp_path / "out", "--format", "lerobot")
    assert (
        "found Steps of {'state': 3, 'action': 2, 'images': {'wrist': (24, 64, 3), "
        in cli.fails("export", *args)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]
    (tmp_path / "out").mkdir()
    assert "exists already" in cli.fails("export", *args)


LOAD = """
import json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset("local/test", root=sys.argv[1], video_backend="pyav",
                      delta_timestamps={"action": [0.0, 0.1]})
def plain(item):
    return {k: v if isinstance(v, str) else v.flatten()[:4].tolist() for k, v in item.items()}
rows = [plain(data[i]) for i in range(len(data))]
image = data[8]["observation.images.side"]
print(json.dumps({"episodes": data.num_episodes, "fps": data.fps, "rows": rows,
    "stats": {k: v["mean"].flatten().tolist() for k, v in data.meta.stats.items()},
    "image": (image * 255).round().int().tolist()}))
"""


def lerobot_python() -> str:
    """An interpreter that has LeRobot, or the test is skipped."""
    given = os.environ.get("RLIF_LEROBOT_PYTHON", "")
    if given:
        return given
    if importlib.util.find_spec("lerobot") is not None:
        return sys.executable
    pytest.skip("lerobot is not installed here: RLIF_LEROBOT_PYTHON=/path/to/python that has it")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_write_lerobot_is_read_by_lerobot(tmp_path: Path) -> None:
    python = lerobot_python()
    steps = episodes(3)
    dataset = export_dataset(tmp_path, steps, "--codec", "lossless", "--task", "put the peg in")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "cache")
    done = subprocess.run(
        [python, "-c", LOAD, str(dataset)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (found["episodes"], found["fps"], len(found["rows"])) == (3, 10, 18)
    driven = [step for step in steps if not step.is_last]
    for row, step in zip(found["rows"], driven, strict=True):
        assert row["observation.state"] == pytest.approx(step.state.tolist())
        assert row["action"][:2] == pytest.approx(step.action.tolist())
        assert row["intervention"] == [step.source == 2] and row["onset"] == [step.onset]
        assert row["task"] == "put the peg in"
    assert [row["next.reward"] for row in found["rows"]] == [[0], [0], [-1], [0], [0], [0]] * 3
    assert [row["next.success"] for row in found["rows"]][5] == [True]
    assert found["stats"]["action"] == pytest.approx(
        np.mean([step.action for step in driven], axis=0).tolist()
    )
    assert np.array_equal(np.moveaxis(np.array(found["image"]), 0, 2), driven[8].images[1])


def test_write_lerobot_bags_of_another_rate_are_refused(tmp_path: Path, cli: Cli) -> None:
    """Regression: the frames of all bags were stamped at the rate of the first."""
    steps = make_episodes(1, length=12)
    bags = [write_bag(tmp_path / str(rate), steps, rate) for rate in (10, 20)]
    args = ("export", *bags, "-o", tmp_path / "dataset", "--format", "lerobot")
    error = cli.fails(*args)
    assert (
        f"{bags[1]}: its Steps came at 20.00 Hz, those before at 10.00" in error
        and "--fps" in error
    )
    assert not (tmp_path / "dataset").exists()
    assert rlif(*args, "--fps", 10) == 0


@pytest.mark.parametrize("rate", [7.5, 2.5, 3.3])
def test_write_lerobot_fps_is_the_rounded_rate_of_the_steps(
    tmp_path: Path, cli: Cli, rate: float
) -> None:
    """Regression: two bags of 7.5 Hz were refused, as others than 8."""
    steps = make_episodes(1, length=12)
    bags = [write_bag(tmp_path / name, steps, rate) for name in ("one", "two")]
    output = cli.succeeds("export", *bags, "-o", tmp_path / "d", "--format", "lerobot")
    assert f"Steps came at {rate:.2f} Hz; LeRobot's fps is a whole number, {round(rate)}" in output


def test_write_lerobot_fps_is_of_a_long_episode(tmp_path: Path) -> None:
    """Regression: one step that came late made 5 Hz of a session of 10 Hz."""
    steps = [*make_episodes(1, length=1), *make_episodes(2, length=12)[13:]]
    bag = tmp_path / "bag"
    with StepWriter(bag) as writer:
        for at, step in enumerate(steps):
            late = 100_000_000 if at == 1 else 0
            writer.write(replace(step, sequence=at), 10**9 + at * PERIOD + late)
    assert rlif("export", bag, "-o", tmp_path / "d", "--format", "lerobot") == 0
    assert json.loads((tmp_path / "d/meta/info.json").read_text())["fps"] == 10


def test_write_lerobot_cameras_in_another_order_keep_their_columns(tmp_path: Path) -> None:
    """Regression: the second bag's images went into the columns of the other cameras."""
    steps = episodes(1)
    other = [replace(s, images=s.images[::-1], cameras=CAMERAS[::-1]) for s in steps]
    bags = [write_bag(tmp_path / "one", steps, cameras=CAMERAS), tmp_path / "two"]
    with StepWriter(bags[1]) as writer:
        for step in other:
            writer.write(step, 10**10 + step.sequence * PERIOD)
    args = ("-o", tmp_path / "d", "--format", "lerobot", "--codec", "lossless")
    assert rlif("export", *bags, *args) == 0
    found = imported(tmp_path / "d")
    assert len(found) == 2 * len(steps)
    for step, expected in zip(found, [*steps, *steps], strict=True):
        assert all((a == b).all() for a, b in zip(step.images, expected.images, strict=True))
