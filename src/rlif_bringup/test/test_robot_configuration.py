# SPDX-License-Identifier: Apache-2.0
"""What is refused of a robot configuration before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from rlif_bringup.launch_file import Launch, LaunchFileError, Process
from rlif_bringup.robot_configuration import blind_policy, check_launch, parameters_of

CONFIG = Path(__file__).resolve().parents[3] / "config"


def launch(tmp_path: Path, images: bool, **robot: object) -> Launch:
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": robot}}))
    command = ("observer", "--ros-args", "--params-file", str(path))
    return Launch((), (Process("observer", command, os.environ, parameters={"images": images}),))


def test_check_launch_of_cameras_without_an_encoder_is_refused(tmp_path: Path) -> None:
    """Regression: two robots were shipped so, and their policy was blind without a message."""
    with pytest.raises(LaunchFileError, match=r"robot\.yaml: cameras wrist, fixed .*encoder: none"):
        check_launch(launch(tmp_path, True, cameras=["wrist", "fixed"]))


def test_check_launch_of_images_without_cameras_is_refused(tmp_path: Path) -> None:
    """Regression: the defaults of observer.yaml came back, and the observer waited for their images."""
    with pytest.raises(LaunchFileError, match="no cameras .*images:=false"):
        check_launch(launch(tmp_path, True, encoder="none"))


def test_check_launch_of_an_encoder_without_images_is_refused(tmp_path: Path) -> None:
    """Regression: the policy and the learner refused every observation; only their logs named it."""
    with pytest.raises(LaunchFileError, match=r"encoder small .*images:=true"):
        check_launch(launch(tmp_path, False, cameras=["wrist"], encoder="small"))


@pytest.mark.parametrize(
    ("images", "robot"),
    [
        (True, {"cameras": ["wrist"], "encoder": "small"}),
        (True, {"cameras": ["wrist"], "encoder": "none"}),  # on purpose
        (True, {}),
        (False, {"cameras": ["wrist"]}),
        (False, {"cameras": ["wrist"], "encoder": "none"}),
    ],
)
def test_check_launch_of_anything_else_passes(
    tmp_path: Path, images: bool, robot: dict[str, object]
) -> None:
    check_launch(launch(tmp_path, images, **robot))


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*/robot.yaml")), ids=lambda p: p.parent.name)
def test_blind_policy_of_a_shipped_robot_is_none(path: Path) -> None:
    assert blind_policy(parameters_of(path)) == ""
