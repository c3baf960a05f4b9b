# SPDX-License-Identifier: Apache-2.0
"""The launch files of the suite and the robot configurations that come with it, read as `rlif launch` reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlif_bringup.launch_file import Process, read

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.yaml"))
SET_UPS = sorted(path.parent.name for path in ROOT.glob("config/*/robot.yaml"))


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Of an install prefix with the launch files, the configuration, and all their executables."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    share = tmp_path / "share/rlif_bringup"
    share.mkdir()
    for folder in ("launch", "config"):
        (share / folder).symlink_to(ROOT / folder)
    (index / "rlif_bringup").touch()
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    for package, executable in re.findall(r"pkg: (\w+)\s+exec: (\w+)", text):
        (index / package).touch()
        (tmp_path / "lib" / package).mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / package / executable).touch()
    return {"AMENT_PREFIX_PATH": str(tmp_path)}


def nodes(file: str, environment: Mapping[str, str], **arguments: str) -> dict[str, Process]:
    path = Path(environment["AMENT_PREFIX_PATH"]) / "share/rlif_bringup/launch" / file
    return {process.name: process for process in read(path, arguments, environment).processes}


def parameters(process: Process) -> dict[str, Any]:
    """What the node starts with: its files in order, then the launch file's own values."""
    values: dict[str, Any] = {}
    for flag, file in zip(process.command, process.command[1:], strict=False):
        if flag == "--params-file":
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            values.update(content["/**"]["ros__parameters"])
    return {**values, **process.parameters}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_launch_files_include_by_package_for_show_args(path: Path) -> None:
    """It follows an include only where the path needs neither arguments nor the file's place."""
    text = "\n".join(
        line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines()
    )
    assert "$(dirname)" not in text
    assert "$(filename)" not in text


@pytest.mark.parametrize("set_up", SET_UPS)
def test_settle_time_of_a_robot_covers_the_last_observation(
    set_up: str, environment: Mapping[str, str]
) -> None:
    """PITFALL, next states crossed episodes: in real time a reset at once moved the arm before the
    final observation was taken, so that a success ended on the next board."""
    graph = nodes("robot.launch.yaml", environment, robot=set_up, run_directory="run")
    episode = parameters(graph["episode"])
    period = 1.0 / parameters(graph["observer"])["control_rate"]
    assert episode["settle_time"] >= 2.0 * period


def test_simulated_robot_of_robot_sim_has_the_topics_of_the_graph(
    environment: Mapping[str, str],
) -> None:
    """Nothing tells the graph that it is simulated: no simulated time, no lock-step, all remapped.

    All below /sim: on a host with a real Servo it would have been driven by the scripted operator.
    """
    graph = nodes("robot_sim.launch.yaml", environment, run_directory="run")
    assert "watchdog" in graph and parameters(graph["sim_robot"])["wall_clock"] is True
    for name, process in graph.items():
        assert not parameters(process).get("use_sim_time"), name
        assert not parameters(process).get("lock_step"), name
    command = graph["arbiter"].command
    servo = "servo_node/delta_twist_cmds"
    assert f"command:=/sim/{servo}" in command
    assert f"{servo}:=/sim/{servo}" in graph["sim_robot"].command
    absolute = {word for p in graph.values() for word in p.command if ":=/" in word}
    assert not [w for w in absolute if not w.partition(":=")[2].startswith(("/sim/", "/rlif"))]
    for topic in ("ee_pose", "wrench", "joint_states"):
        remap = f"{topic}:=/sim/{topic}"
        assert remap in graph["sim_robot"].command and remap in graph["observer"].command


def test_settle_time_in_lock_step_is_zero(
    environment: Mapping[str, str],
) -> None:
    assert parameters(nodes("sim.launch.yaml", environment)["episode"])["settle_time"] == 0.0
    real_time = nodes("sim.launch.yaml", environment, lock_step="false")
    assert parameters(real_time["episode"])["settle_time"] >= 0.2


@pytest.mark.parametrize("set_up", SET_UPS)
def test_gripper_node_is_started_only_where_asked_for(
    set_up: str, environment: Mapping[str, str]
) -> None:
    def graph(**arguments: str) -> dict[str, Process]:
        given = {"robot": set_up, "run_directory": "run", **arguments}
        return nodes("robot.launch.yaml", environment, **given)

    assert "gripper" not in graph()
    assert parameters(graph(gripper="true")["gripper"])["gripper_output"] == "action"


@pytest.mark.parametrize("set_up", SET_UPS)
def test_watchdog_has_the_output_of_the_arbiter(
    set_up: str, environment: Mapping[str, str]
) -> None:
    """Zeros of another kind than the commands would stop nothing."""
    graph = nodes("robot.launch.yaml", environment, robot=set_up, run_directory="run")
    arbiter, watchdog = parameters(graph["arbiter"]), parameters(graph["watchdog"])
    assert watchdog["output"] == arbiter["output"]
    assert watchdog["axes"] == arbiter["axes"]
    if not set_up.startswith("sim"):  # which are usually in lock-step, without a watchdog
        assert watchdog["timeout"] > arbiter["stall_timeout"]


def test_pace_without_a_learner_is_off(environment: Mapping[str, str]) -> None:
    def paces(**arguments: str) -> bool:
        graph = nodes("sim.launch.yaml", environment, **arguments)
        return bool(parameters(graph["episode"])["pace"])

    assert paces()
    assert not paces(learner="false")
    assert paces(learner="false", pace="true"), "a learner may run elsewhere"


@pytest.mark.parametrize(
    ("given", "bag"), [("none", ""), ("some/bag", "some/bag"), (None, "run/bag")]
)
def test_bag_directory_none_records_no_bag(
    given: str | None, bag: str, environment: Mapping[str, str]
) -> None:
    arguments = {} if given is None else {"bag_directory": given}
    robot = {"robot": "sim", "run_directory": "run"}
    graph = nodes("robot.launch.yaml", environment, **robot, **arguments)
    assert graph["recorder"].parameters["bag_directory"] == bag


PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@pytest.mark.parametrize("file", ["robot.launch.yaml", "sim.launch.yaml"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "{share}/config/fastdds.xml"),
        (dict.fromkeys(PROFILES, "/mine.xml"), "/mine.xml"),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, None),
    ],
    ids=["unset", "own_profile", "own_transports"],
)
def test_fast_dds_profile_is_set_unless_the_user_chose_one(
    file: str, given: dict[str, str], expected: str | None, environment: Mapping[str, str]
) -> None:
    robot = {"robot": "sim", "run_directory": "run"} if file.startswith("robot") else {}
    share = Path(environment["AMENT_PREFIX_PATH"]) / "share/rlif_bringup"
    for process in nodes(file, {**environment, **given}, **robot).values():
        found = {process.environment.get(name) for name in PROFILES}
        assert found == {expected and expected.format(share=share)}, process.name
