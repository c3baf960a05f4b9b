"""The set-ups with MoveIt: every node that reads them starts with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rlif_node.qos import LATCHED
from visualization_msgs.msg import Marker

from rlif_intervention.arbiter_parameters import PARAMETERS as ARBITER
from rlif_intervention.device_inputs import device_parameters
from rlif_intervention.presets import PRESETS
from rlif_moveit.planning import PlanConfig
from rlif_moveit.reset_goals import goal_from
from rlif_moveit.reset_node import PARAMETERS as RESET
from rlif_moveit.servo_adapter_node import PARAMETERS as ADAPTER
from rlif_moveit.workspace_node import PARAMETERS as WORKSPACE
from rlif_msgs.msg import ControlState
from rlif_policy.features import StateLayout

CONFIG = Path(__file__).parents[3] / "config"
SET_UPS = ["franka_fr3_spacemouse", "ur5e_gamepad"]


def values(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]


@pytest.mark.parametrize("name", SET_UPS)
def test_moveit_yaml_has_no_name_that_no_node_declares(name):
    known = {row.name for row in (*ADAPTER, *RESET, *WORKSPACE)}
    assert set(values(CONFIG / name / "moveit.yaml")) <= known


@pytest.mark.parametrize("name", ["servo_adapter", "reset_by_planning", "show_workspace"])
def test_the_nodes_own_files_say_the_defaults(name):
    table = {"servo_adapter": ADAPTER, "reset_by_planning": RESET, "show_workspace": WORKSPACE}
    defaults = {row.name: row.default for row in table[name]}
    found = values(CONFIG / f"{name}.yaml")
    assert set(found) <= set(defaults)
    differ = {k for k, v in found.items() if v != defaults[k]}
    assert differ <= {"servo_node_name"}  # absolute, as Servo stands outside of our namespace


@pytest.mark.parametrize("name", SET_UPS)
def test_devices_are_named_and_configured_with_names_that_exist(name):
    found = values(CONFIG / name / "robot.yaml")
    for device in found["devices"]:
        given = found[device]
        rows = device_parameters(device, given["preset"], PRESETS[given["preset"]], 0.5)
        known = {row.name for row in rows} | {f"{device}.preset"}
        assert {f"{device}.{key}" for key in given} <= known


@pytest.mark.parametrize("name", SET_UPS)
def test_a_stop_button_is_at_hand_and_no_button_has_two_meanings(name):
    found = values(CONFIG / name / "robot.yaml")
    for device in found["devices"]:
        given = found[device]
        rows = device_parameters(device, given["preset"], PRESETS[given["preset"]], 0.5)
        p = {row.name.split(".", 1)[1]: row.default for row in rows} | given
        buttons = [v for key, v in p.items() if key.endswith("_button") and v >= 0]
        assert p["stop_button"] >= 0 and len(set(buttons)) == len(buttons)


@pytest.mark.parametrize("name", SET_UPS)
def test_the_end_of_the_adapter_is_noticed(name):
    """`hold` comes ten times a second; three of them may be lost."""
    assert 0.3 <= values(CONFIG / name / "robot.yaml")["hold_timeout"] <= 1.0


@pytest.mark.parametrize("name", SET_UPS)
def test_every_limit_is_set_and_the_state_has_a_scale_for_each_entry(name):
    found = values(CONFIG / name / "robot.yaml")
    limits = [row.name for row in ARBITER if row.name.startswith(("max_linear", "max_angular"))]
    limits = [name for name in limits if "jerk" not in name]
    for limit in (*limits, "workspace_min", "workspace_max"):
        assert found[limit], f"{limit} is off"
    assert 0.0 < found["speed_scale"] <= 0.5
    assert len(found["state_scale"]) == StateLayout(tuple(found["features"])).state_dim
    assert found["base_frame"] == found["command_frame"], "the box needs it"


@pytest.mark.parametrize("name", SET_UPS)
def test_the_goal_of_resets_is_one_and_lies_in_the_box(name):
    defaults = {row.name: row.default for row in RESET}
    p = defaults | values(CONFIG / name / "moveit.yaml")
    goal = goal_from(p)
    PlanConfig(group=p["planning_group"], velocity_scale=p["velocity_scale"])
    if p["goal"] == "pose":
        robot = values(CONFIG / name / "robot.yaml")
        assert goal.frame == robot["base_frame"]
        for axis in range(3):
            low, high = robot["workspace_min"][axis], robot["workspace_max"][axis]
            spread = goal.position_spread[axis]
            assert low < goal.position[axis] - spread < goal.position[axis] + spread < high


@pytest.mark.ros
@pytest.mark.parametrize("name", SET_UPS)
def test_the_nodes_start_with_the_set_up(name, bench, start_node):
    robot, moveit = CONFIG / name / "robot.yaml", CONFIG / name / "moveit.yaml"
    states = bench.listen(ControlState, "control_state", LATCHED)
    boxes = bench.listen(Marker, "workspace_marker", LATCHED)
    start_node("rlif_intervention", "arbiter", files=[CONFIG / "arbiter.yaml", robot])
    start_node("rlif_policy", "observer", files=[CONFIG / "observer.yaml", robot])
    start_node("rlif_intervention", "episode", files=[CONFIG / "episode.yaml", robot])
    start_node(
        "rlif_moveit", "servo_adapter", files=[CONFIG / "servo_adapter.yaml", robot, moveit],
        servo_interface="humble",
    )  # fmt: skip
    start_node(
        "rlif_moveit", "show_workspace", files=[CONFIG / "show_workspace.yaml", robot], walls=[]
    )
    bench.until(lambda: states and states[-1].state == ControlState.DISARMED, "the arbiter", 30.0)
    bench.until(lambda: bench.diagnostics("ee_pose"), "the observer", 30.0)
    bench.until(lambda: bench.hold and "not there" in bench.hold, "the adapter", 30.0)
    bench.until(lambda: boxes, "the box", 30.0)
    bench.until(lambda: "episode" in bench.node.get_node_names(), "the episode node", 30.0)
    assert not states[-1].reason.startswith("FAULT")
