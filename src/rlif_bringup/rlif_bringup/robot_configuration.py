# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a robot configuration that no node alone can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlif_bringup.launch_file import Launch, LaunchFileError


def blind_policy(robot: dict[str, Any]) -> str:
    """Why the policy of a robot.yaml would see none of its cameras; empty: it sees them, or is not meant to.

    robot: the parameters of the file
    """
    cameras = robot.get("cameras") or []
    if not cameras and robot.get("encoder") == "none":
        return "no cameras are configured, and images is true: start it with images:=false"
    if not cameras or "encoder" in robot:
        return ""
    return (
        f"cameras {', '.join(cameras)} are configured and no encoder: the policy would see none of them. "
        "Set encoder (small, or a pretrained one: docs/cameras.md), or encoder: none to record them only"
    )


def missing_images(robot: dict[str, Any]) -> str:
    """Why nothing can be learned by this robot.yaml without images; empty: it needs none.

    robot: the parameters of the file
    """
    encoder = robot.get("encoder") or "none"
    if encoder == "none":
        return ""
    return (
        f"encoder {encoder} is configured, and images is false: policy and learner would refuse every "
        "observation. Start it with images:=true, or set encoder: none"
    )


def parameters_of(path: Path) -> dict[str, Any]:
    """The parameters of a robot.yaml, for all nodes."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return dict(content.get("/**", {}).get("ros__parameters", {}))


def check_launch(launch: Launch) -> None:
    """Refuse a graph with images whose policy would not see them, or one without whose policy needs them.

    Raises:
        LaunchFileError: with the file to change.
    """
    for process in launch.processes:
        if process.name != "observer":
            continue
        check = blind_policy if process.parameters.get("images") else missing_images
        files = (b for a, b in zip(process.command, process.command[1:], strict=False)
                 if a == "--params-file" and Path(b).name == "robot.yaml")  # fmt: skip
        for file in files:
            problem = check(parameters_of(Path(file)))
            if problem:
                raise LaunchFileError(f"{file}: {problem}")
