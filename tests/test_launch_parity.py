# SPDX-License-Identifier: Apache-2.0
"""`rlif launch` starts what `ros2 launch` starts: compared process by process, where launch is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.parameter import parameter_dict_from_yaml_file, parameter_value_to_python

from rlif_bringup.launch_file import read

launch = pytest.importorskip("launch", reason="launch is not installed (it comes with ROS 2)")
pytest.importorskip("launch_ros", reason="launch_ros is not installed (it comes with ROS 2)")
pytest.importorskip("launch_yaml", reason="launch_yaml is not installed (it comes with ROS 2)")

ROOT = Path(__file__).parents[1]
LAUNCH, CONFIG = ROOT / "launch", ROOT / "config"
RUN = {"run_directory": "/tmp/never_written"}
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
SET = (*PROFILES, "ROS_AUTOMATIC_DISCOVERY_RANGE")  # variables
CASES = [
    ("sim.launch.yaml", {}),
    ("sim.launch.yaml", {"robot": "sim_vision", "images": "true", "seed": "7", "auto_start": "true"}),
    ("sim.launch.yaml", {"namespace": "left", "lock_step": "false", "watchdog": "true"}),
    ("sim.launch.yaml", {"namespace": "arm_1", "clock": "/arm_1/clock", "learner": "false"}),
    ("robot.launch.yaml", {"robot": "ur5e_gamepad", "namespace": "none", **RUN}),
    ("robot.launch.yaml", {"robot": "franka_fr3_spacemouse", "gripper": "true", **RUN}),
    ("robot_sim.launch.yaml", RUN),
    ("moveit.launch.yaml", {"robot": "ur5e_gamepad"}),
    ("moveit.launch.yaml", {"robot": "franka_fr3_spacemouse"}),
    ("moveit.launch.yaml", {"robot": "ur5e_gamepad", "servo": "false", "namespace": "none"}),
    ("learner.launch.yaml", {"robot": "sim", "robots": "[arm_1, arm_2]", **RUN}),
    ("learner.launch.yaml", {"console": "true", "resume": "runs/1", "log_level": "debug"}),
    ("graph.launch.yaml", {"robot": "sim", "config_directory": str(CONFIG)}),
    ("graph.launch.yaml", {"robot": "sim", "config_directory": str(CONFIG), "console": "true",
                           "learner": "false", "recorder": "false", "lock_step": "true"}),
    ("fastdds.launch.yaml", {}),
    *(("robot.launch.yaml", {"robot": path.parent.name, **RUN}) for path in CONFIG.glob("*/robot.yaml")),
]  # fmt: skip


@dataclass(frozen=True)
class Started:
    """A process as the system would see it; parameters resolved in the order of the command line.

    environment: the variables that the launch files set
    """

    before_ros: tuple[str, ...]
    remaps: tuple[str, ...]
    others: tuple[str, ...]
    parameters: Mapping[str, Any]
    environment: Mapping[str, str | None]

    @property
    def name(self) -> str:
        names = [r.partition(":=")[2] for r in self.remaps if r.startswith("__node:=")]
        return names[0] if names else " ".join(self.before_ros)


def started(command: list[str], environment: Mapping[str, str]) -> Started:
    """Takes a command line apart; reads its parameter files while they exist."""
    at = command.index("--ros-args") if "--ros-args" in command else len(command)
    remaps, others, parameters = [], [], {}
    rest = iter(command[at:])
    for word in rest:
        if word == "--ros-args":
            continue
        if word == "-r":
            remaps.append(next(rest))
            if remaps[-1] == "__ns:=/":  # the same as none
                remaps.pop()
        elif word == "--params-file":
            found = parameter_dict_from_yaml_file(next(rest), use_wildcard=True)
            parameters |= {k: parameter_value_to_python(p.value) for k, p in found.items()}
        elif word == "-p":
            name, _, text = next(rest).partition(":=")
            parameters[name] = yaml.safe_load(text)
        else:
            others.append(word)
    chosen = {name: environment.get(name) for name in SET}
    return Started(tuple(command[:at]), tuple(sorted(remaps)), tuple(others), parameters, chosen)


def as_launch_starts_it(
    file: str, arguments: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Started]:
    """What the real `launch` would execute; nothing is."""
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import AnyLaunchDescriptionSource

    found: list[Started] = []

    class RefusedError(Exception):
        """Instead of the process."""

    async def execute(*_: object, cmd: list[str], env: Mapping[str, str], **__: object) -> None:
        found.append(started(cmd, env))
        raise RefusedError

    monkeypatch.setattr("launch.actions.execute_local.async_execute_process", execute)
    source = AnyLaunchDescriptionSource(str(LAUNCH / file))
    include = IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(launch.LaunchDescription([include]))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(service.run_async(shutdown_when_idle=True))
    finally:
        loop.close()
    return {process.name: process for process in found}


@pytest.mark.parametrize(
    ("file", "arguments"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v.values())[:30]
)  # fmt: skip
def test_launch_file_starts_the_same_as_with_ros2_launch(file, arguments, monkeypatch):
    for name in PROFILES:
        monkeypatch.delenv(name, raising=False)
    ours = {}
    for process in read(LAUNCH / file, arguments, os.environ).processes:
        found = started(list(process.command), process.environment)
        # rlif launch writes these into a file as it starts the process; `launch` does so at once.
        ours[process.name] = replace(found, parameters={**found.parameters, **process.parameters})
    theirs = as_launch_starts_it(file, arguments, monkeypatch)
    assert ours.keys() == theirs.keys()
    assert ours or file == "fastdds.launch.yaml", "nothing was started"
    for name in ours:
        assert ours[name] == theirs[name], name


def test_cases_name_each_launch_file():
    assert {file for file, _ in CASES} == {path.name for path in LAUNCH.glob("*.launch.yaml")}
