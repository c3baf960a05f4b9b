# SPDX-License-Identifier: Apache-2.0
"""The robot configurations that are shipped: every node starts with them, and their values fit."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path

import pytest
import rclpy
import torch
import yaml
from rclpy.node import Node
from std_msgs.msg import Int8
from std_srvs.srv import SetBool

from rlif_bringup.launch_file import Process, read
from rlif_intervention.arbiter_parameters import PARAMETERS as ARBITER
from rlif_intervention.device_inputs import device_parameters
from rlif_intervention.presets import PRESETS
from rlif_learner.config import RLPDConfig
from rlif_moveit import reset_node, servo_adapter_node, workspace_node
from rlif_moveit.interfaces import ServoInterfaces
from rlif_moveit.planning import PlanConfig
from rlif_moveit.reset_goals import goal_from
from rlif_moveit.reset_node import PARAMETERS as RESET
from rlif_moveit.servo_adapter_node import PARAMETERS as ADAPTER
from rlif_moveit.workspace_node import PARAMETERS as WORKSPACE

CONFIG = Path(__file__).parents[1] / "config"
LAUNCH = CONFIG.parent / "launch"
ALL = sorted(path.parent.name for path in CONFIG.glob("*/robot.yaml"))
WITH_MOVEIT = ["franka_fr3_spacemouse", "ur5e_gamepad"]
PLANNED = [*WITH_MOVEIT, "panda_demo"]  # which has no device of its own, nor controllers

# Where there is no moveit_msgs: types of the same shape.
STAND_INS = ServoInterfaces(Int8, lambda m: m.data, SetBool, lambda _: SetBool.Request())

# Positions of the end effector in the named states of the SRDFs, m in the base frame: as measured.
NAMED = {
    ("franka_fr3_spacemouse", "ready"): (0.307, 0.0, 0.487),
    ("panda_demo", "ready"): (0.307, 0.0, 0.590),
}


def values(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]


@pytest.mark.parametrize("name", PLANNED)
def test_moveit_yaml_has_only_names_that_a_node_declares(name):
    known = {row.name for row in (*ADAPTER, *RESET, *WORKSPACE)}
    assert set(values(CONFIG / name / "moveit.yaml")) <= known


@pytest.mark.parametrize("name", ["servo_adapter", "reset_by_planning", "show_workspace"])
def test_parameter_files_of_moveit_nodes_have_the_defaults(name):
    table = {"servo_adapter": ADAPTER, "reset_by_planning": RESET, "show_workspace": WORKSPACE}
    defaults = {row.name: row.default for row in table[name]}
    found = values(CONFIG / f"{name}.yaml")
    assert set(found) <= set(defaults)
    differ = {k for k, v in found.items() if v != defaults[k]}
    assert differ <= {"servo_node_name"}  # absolute, as Servo stands outside of our namespace


@pytest.mark.parametrize("name", WITH_MOVEIT)
def test_devices_of_a_robot_have_only_parameters_that_exist(name):
    found = values(CONFIG / name / "robot.yaml")
    for device in found["devices"]:
        given = found[device]
        rows = device_parameters(device, given["preset"], PRESETS[given["preset"]], 0.5)
        known = {row.name for row in rows} | {f"{device}.preset"}
        assert {f"{device}.{key}" for key in given} <= known


@pytest.mark.parametrize(
    "path", sorted(CONFIG.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIG))
)
def test_no_list_of_a_parameter_file_is_empty(path):
    """To some ROS installations `[]` is an empty list, to others a parameter that was left out."""
    empty = [line for line in path.read_text(encoding="utf-8").splitlines() if ": []" in line]
    assert empty == []


@pytest.mark.parametrize("name", WITH_MOVEIT)
def test_buttons_of_a_robot_include_stop_and_have_one_meaning_each(name):
    found = values(CONFIG / name / "robot.yaml")
    for device in found["devices"]:
        given = found[device]
        rows = device_parameters(device, given["preset"], PRESETS[given["preset"]], 0.5)
        p = {row.name.split(".", 1)[1]: row.default for row in rows} | given
        buttons = [v for key, v in p.items() if key.endswith("_button") and v >= 0]
        assert p["stop_button"] >= 0 and len(set(buttons)) == len(buttons)


@pytest.mark.parametrize("name", PLANNED)
def test_hold_timeout_of_a_robot_notices_the_end_of_the_adapter(name):
    """`hold` comes ten times a second; three of them may be lost."""
    assert 0.3 <= values(CONFIG / name / "robot.yaml")["hold_timeout"] <= 1.0


@pytest.mark.parametrize("name", PLANNED)
def test_limits_of_a_robot_are_set(name):
    found = values(CONFIG / name / "robot.yaml")
    limits = [row.name for row in ARBITER if row.name.startswith(("max_linear", "max_angular"))]
    limits = [name for name in limits if "jerk" not in name]
    for limit in (*limits, "workspace_min", "workspace_max"):
        assert found[limit], f"{limit} is off"
    assert 0.0 < found["speed_scale"] <= 0.5
    assert found["base_frame"] == found["command_frame"], "the box needs it"


@pytest.mark.parametrize("name", PLANNED)
def test_reset_goal_of_a_robot_lies_in_its_box(name):
    defaults = {row.name: row.default for row in RESET}
    p = defaults | values(CONFIG / name / "moveit.yaml")
    goal = goal_from(p)
    PlanConfig(group=p["planning_group"], velocity_scale=p["velocity_scale"])
    robot = values(CONFIG / name / "robot.yaml")
    if p["goal"] == "named":
        box = zip(
            robot["workspace_min"],
            NAMED[name, p["goal_state"]],
            robot["workspace_max"],
            strict=True,
        )
        assert all(low + 0.02 <= value <= high - 0.02 for low, value, high in box)
    if p["goal"] == "pose":
        assert goal.frame == robot["base_frame"]
        for axis in range(3):
            low, high = robot["workspace_min"][axis], robot["workspace_max"][axis]
            spread = goal.position_spread[axis]
            assert low < goal.position[axis] - spread < goal.position[axis] + spread < high


@pytest.mark.parametrize("name", ALL)
def test_robot_learns_with_the_settings_that_were_seen_to_learn(name):
    """robot.yaml over learner.yaml, as the launch files have it. With a temperature of 1 at first, or the
    entropy in the target, the peg task was not learned in 2,500 steps."""
    general, own = values(CONFIG / "learner.yaml"), values(CONFIG / name / "robot.yaml")
    settings = general["rlpd"] | own["rlpd"]
    config = RLPDConfig.from_mapping(settings, own.get("preset", general["preset"]))
    assert config.clip_positive_values and not config.entropy_in_target
    assert (config.initial_temperature, config.discount, config.prior_ratio) == (0.05, 0.97, 0.5)


def launched(name: str, run_directory: Path) -> list[Process]:
    """All nodes of a configuration, those of moveit.launch.yaml among them."""
    values = {"robot": name, "config_directory": str(CONFIG)}
    files = [("robot", {"run_directory": str(run_directory)})]
    files += [("moveit", {})] if (CONFIG / name / "moveit.yaml").exists() else []
    return [
        process
        for file, more in files
        for process in read(LAUNCH / f"{file}.launch.yaml", values | more, os.environ).processes
    ]


def node_class(process: Process) -> type[Node]:
    """The class that the process's executable runs."""
    program = process.command[: process.command.index("--ros-args")][-1]
    executable, package = Path(program).name, Path(program).parent.name
    (point,) = (
        point
        for point in importlib.metadata.entry_points(group="console_scripts", name=executable)
        if point.module.startswith(f"{package}.")
    )
    module = importlib.import_module(point.module)
    (found,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Node") and isinstance(value, type) and value.__module__ == point.module
    )
    return found


@pytest.mark.parametrize("name", WITH_MOVEIT)
def test_servo_yaml_of_a_robot_has_what_the_real_servo_needs(name):
    """Seen on MoveIt Servo 2.12.4, or read in its sources: docs/moveit.md says which."""
    servo = yaml.safe_load((CONFIG / name / "servo.yaml").read_text(encoding="utf-8"))
    inner = servo["moveit_servo"]
    assert servo["update_period"] == inner["publish_period"], "top-level, or Servo aborts"
    assert servo["planning_group_name"] == inner["move_group_name"]
    assert inner["monitored_planning_scene_topic"] == "/monitored_planning_scene"
    controller = inner["command_out_topic"].split("/")[1]
    controllers = yaml.safe_load((CONFIG / name / "controllers.yaml").read_text(encoding="utf-8"))
    allowed = controllers[controller]["ros__parameters"]["allow_nonzero_velocity_at_trajectory_end"]
    assert allowed or not inner["publish_joint_velocities"]
    latency = values(CONFIG / name / "robot.yaml")["pose_latency"]
    assert latency >= inner["max_expected_latency"] + 0.1, "the arm would rest outside of its box"


@pytest.mark.ros
@pytest.mark.parametrize("name", ALL)
def test_nodes_of_a_robot_configuration_start_with_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in this process, with the parameter files, values and remappings of the launch file."""
    if "ee_pose: {tf" in (CONFIG / name / "robot.yaml").read_text(encoding="utf-8"):
        pytest.importorskip("tf2_ros")
    if importlib.util.find_spec("moveit_msgs") is None:
        monkeypatch.setattr(servo_adapter_node, "servo_interfaces", lambda *_: STAND_INS)
        monkeypatch.setattr(reset_node, "planning_interfaces", lambda: None)
        monkeypatch.setattr(reset_node, "MoveGroupPlanner", lambda *_: None)
        monkeypatch.setattr(workspace_node, "scene_interfaces", lambda: None)
        monkeypatch.setattr(workspace_node.WorkspaceBox, "walls", lambda *_: [])
    started = set()
    for process in launched(name, tmp_path / "run"):
        values = tmp_path / f"{process.name}.yaml"
        device = {} if torch.cuda.is_available() else {"device": "cpu"}
        content = {process.node: {"ros__parameters": {**process.parameters, **device}}}
        values.write_text(json.dumps(content), encoding="utf-8")
        arguments = process.command[process.command.index("--ros-args") :]
        rclpy.init(args=[*arguments, "--params-file", str(values)])
        try:
            node = node_class(process)()
            assert node.get_name() == process.name
            started.add(process.name)
            node.destroy_node()
        finally:
            rclpy.try_shutdown()
    assert {
        "observer",
        "policy",
        "arbiter",
        "episode",
        "recorder",
        "learner",
        "watchdog",
    } <= started
