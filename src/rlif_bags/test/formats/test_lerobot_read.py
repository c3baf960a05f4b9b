# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets as read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_data import HINT, LEROBOT, episodes, export_dataset
from step_bags import Cli, imported, make_episodes, rlif

from rlif_bags.formats.lerobot_read import LeRobotReader
from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import StepReader

parquet = pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {HINT}")
pytest.importorskip("av", reason=f"av {HINT}")


def test_lerobot_reader_other_version_or_missing_column_is_refused(tmp_path: Path) -> None:
    dataset = export_dataset(tmp_path, make_episodes(1))
    with pytest.raises(BagError, match=r"found no \['observation.effort'\], only \["):
        LeRobotReader(dataset, state=["observation.effort"])
    info = json.loads((dataset / "meta/info.json").read_text())
    (dataset / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    with pytest.raises(BagError, match="found LeRobot's format v2.1, expected v3"):
        LeRobotReader(dataset)


def test_lerobot_reader_without_final_images_drops_the_last_action(
    tmp_path: Path, cli: Cli
) -> None:
    dataset = export_dataset(tmp_path, episodes(2), "--codec", "lossless")
    (dataset / "rlif/final.parquet").unlink()
    assert "found no rlif/final.parquet" in cli.succeeds(
        "import", dataset, "-o", tmp_path / "again"
    )
    assert sum(1 for _ in StepReader(tmp_path / "again")) == 12
    assert len(imported(dataset, "--no-images")) == 14


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "data/chunk-000/file-001.parquet",
            "found data of episode None with None rows, expected 1",
        ),
        ("data/chunk-000/file-000.parquet", "found data of episode 1 with 6 rows, expected 0"),
        ("videos/observation.images.side/chunk-000/file-001.mp4", "not a readable video"),
    ],
)
def test_lerobot_reader_missing_file_gives_no_bag(
    tmp_path: Path, damage: str, message: str, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:

    monkeypatch.setattr(f"{LEROBOT}.DATA_MIB", 0)
    monkeypatch.setattr(f"{LEROBOT}.VIDEO_MIB", 0)
    dataset = export_dataset(tmp_path, episodes(2))
    (dataset / damage).unlink()
    assert message in cli.fails("import", dataset, "-o", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_lerobot_reader_another_feature_as_state(tmp_path: Path) -> None:
    dataset = export_dataset(tmp_path, make_episodes(2))
    found = imported(dataset, "--state-key", "policy_action")
    assert len(found) == 10 and {len(step.state) for step in found} == {2}


def test_lerobot_reader_cut_file_or_missing_column_is_named(tmp_path: Path, cli: Cli) -> None:
    dataset = export_dataset(tmp_path, make_episodes(1))
    file = dataset / "data/chunk-000/file-000.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file}: cannot be read" in cli.fails("import", dataset, "-o", tmp_path / "again")
    file.write_bytes(whole)
    table = parquet.read_table(file).drop_columns(["episode_index"])
    parquet.write_table(table, file)
    assert f"{file}: found no column 'episode_index'" in cli.fails(
        "import", dataset, "-o", tmp_path / "again"
    )


def rename_actions(dataset: Path, names: Any) -> None:
    """Other names for the two entries of an action."""
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["action"]["names"] = names
    (dataset / "meta/info.json").write_text(json.dumps(info))


NAMES = ["elbow.pos", "gripper.pos"]


@pytest.mark.parametrize(
    "names",
    [NAMES, {"motors": NAMES}, ["joint_position", "x"], ["left.qpos", "right.qpos"], ["Pos", "y"]],
)
def test_lerobot_reader_absolute_positions_are_refused_by_name(
    tmp_path: Path, cli: Cli, names: Any
) -> None:
    """Regression: "give the scale of the actions", which makes velocities of positions."""
    dataset = export_dataset(tmp_path, make_episodes(1))
    rename_actions(dataset, names)
    error = cli.fails("import", dataset, "-o", tmp_path / "again")
    assert "action is absolute positions (" in error and "--differences" in error
    rename_actions(dataset, ["x.vel", "position_x"])
    assert rlif("import", dataset, "-o", tmp_path / "again") == 0


def test_lerobot_reader_differences_of_positions_are_velocities(tmp_path: Path, cli: Cli) -> None:
    """Actions of 0, 0.1, 0.2 ... at 10 Hz: 1 a second. The gripper's position stays one."""
    dataset = export_dataset(tmp_path, make_episodes(2))
    rename_actions(dataset, NAMES)
    args = (dataset, "-o", tmp_path / "again", "--differences", "--action-scale", 4)
    assert "--gripper-range CLOSED OPEN" in cli.fails("import", *args)
    assert rlif("import", *args, "--gripper-range", 0.0, 0.4) == 0
    steps = [s for s in StepReader(tmp_path / "again") if not s.is_last]
    found = [s.action.tolist() for s in steps]
    one = [[0.0, -1.0], [0.25, -0.5], [0.25, 0.0], [0.25, 0.5], [0.25, 1.0]]
    assert np.allclose(found, one + one, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--gripper-range", 0, 1], "expected --differences with it"),
        (["--differences", "--gripper-range", 1, 1], "found 1.0 twice"),
    ],
)
def test_differences_wrong_options_are_refused(
    tmp_path: Path, cli: Cli, args: list[Any], message: str
) -> None:
    dataset = export_dataset(tmp_path, make_episodes(1))
    assert message in cli.fails("import", dataset, "-o", tmp_path / "again", *args)


def test_lerobot_reader_state_of_several_features_and_unused_ones_are_noted(
    tmp_path: Path, cli: Cli
) -> None:
    dataset = export_dataset(tmp_path, make_episodes(1))
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["observation.goal"] = {**info["features"]["policy_action"]}
    (dataset / "meta/info.json").write_text(json.dumps(info))
    file = dataset / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.append_column("observation.goal", table["policy_action"]), file)
    assert "not used: observation.goal; --state-key joins" in cli.succeeds(
        "import", dataset, "-o", tmp_path / "one"
    )
    keys = ("--state-key", "observation.state", "observation.goal")
    assert len(imported(dataset, *keys)[0].state) == 5
