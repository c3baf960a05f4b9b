"""The doctor: each check by itself, then a live graph of stand-ins."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os

import pytest
from rich.console import Console

from rlif_bringup import doctor
from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import Diagnostic, Snapshot, Traffic, image_problem

ARBITER = {
    "axes": ["x", "y", "yaw"],
    "command_rate": 50.0,
    "command_frame": "base",
    "lock_step": False,
    "linear_scale": 0.1,
    "speed_scale": 0.5,
    "max_linear_speed": 0.1,
    "max_linear_acceleration": 0.5,
    "max_linear_deceleration": 1.0,
    "angular_scale": 0.5,
    "max_angular_speed": 0.5,
    "max_angular_acceleration": 2.0,
    "max_angular_deceleration": 4.0,
    "pose_timeout": 0.3,
    "pose_latency": 0.05,
    "hold_timeout": 0.5,
    "workspace_min": [0.3, -0.3, 0.0],
    "workspace_max": [0.7, 0.3, 0.5],
}
OBSERVER = {
    "control_rate": 10.0,
    "base_frame": "base",
    "images": True,
    "cameras": ["wrist"],
    "image_width": 128,
    "image_height": 128,
}
WAITS = {"state": "paused", "command_type_selected": "true"}
HEALTHY = Snapshot(
    seconds=5.0,
    moveit=True,
    parameters={
        "arbiter": ARBITER,
        "observer": OBSERVER,
        "policy": {},
        "episode": {"reset_service": True},
        "recorder": {"bag_directory": "somewhere"},
    },
    observation=Traffic("/observation", 50, 4.9, 1, 3),
    observation_age=(0.01, 0.08),
    state_size=6,
    images=((128, 128),),
    policy_action=Traffic("/policy_action", 50, 4.9, 1, 1),
    action_size=3,
    policy_version=7,
    weights=(7, {"state_dim": 6, "action_dim": 3}),
    command=Traffic("/servo_node/delta_twist_cmds", 250, 4.98, 2, 1),
    command_publishers=frozenset({"arbiter", "watchdog"}),
    command_frames=frozenset({"base"}),
    control=(0, "not armed yet"),
    hold="Servo is paused: the arbiter is not armed",
    holds=Traffic("/hold", 50, 4.9, 1, 1),
    alive=Traffic("/arbiter_alive", 100, 4.95, 1, 2),
    ee_pose=((0.5, 0.0, 0.2), "base"),
    pose=Traffic("/tip", 500, 4.99, 1, 2),
    pose_age=(0.001, 0.02),
    diagnostics=(
        Diagnostic("observer: /ee_pose", 0, "ok"),
        Diagnostic("arbiter: device joy", 0, "fresh"),
        Diagnostic("watchdog: arbiter", 0, "the arbiter is alive"),
        Diagnostic("servo_adapter: servo", 1, "Servo is paused", WAITS),
        Diagnostic("servo_adapter: servo status", 3, "none; a paused Servo sends none"),
        Diagnostic("reset_by_planning: reset", 0, "ready"),
    ),
)


def changed(**values):
    """A healthy graph but for this; ARBITER_x and OBSERVER_x change a parameter."""
    parameters = {name: dict(p) for name, p in HEALTHY.parameters.items()}
    for name in [n for n in values if n.startswith(("ARBITER_", "OBSERVER_"))]:
        node, key = name.split("_", 1)
        parameters[node.lower()][key] = values.pop(name)
    return dataclasses.replace(HEALTHY, **({"parameters": parameters} | values))


def diagnostics(name, level, message, **values):
    return (*without(name), Diagnostic(name, level, message, values))


def without(name):
    return tuple(d for d in HEALTHY.diagnostics if d.name != name)


def worst(snapshot, name):
    """(verdict, found and advice) of a check."""
    found = [f for f in check(snapshot) if f.name == name]
    assert found, f"no check {name}: {[f.name for f in check(snapshot)]}"
    order = list(Verdict)
    f = max(found, key=lambda f: order.index(f.verdict))
    return f.verdict, f"{f.found} | {f.advice}"


def test_a_healthy_graph_passes_everything():
    findings = check(HEALTHY)
    assert {f.verdict for f in findings} == {Verdict.PASS}
    assert len({f.name for f in findings}) >= 15
    assert doctor.exit_code(findings, strict=True) == 0


FAILS = [
    ("nodes", {"parameters": {}}, "robot.launch.yaml"),
    ("observation", {"observation": Traffic("/observation")}, "nothing on /observation"),
    ("observation", {"observation": Traffic("/observation", 25, 4.9, 1, 1)}, "4.9 Hz"),
    ("source /ee_pose", {"diagnostics": diagnostics("observer: /ee_pose", 2, "never")}, "driver"),
    ("clocks", {"observation_age": (-2.0, -1.9)}, "future"),
    ("clocks", {"observation_age": (0.1, 5.0)}, "5.000 s old"),
    ("images", {"images": ()}, "0 in an observation"),
    ("images", {"images": ((640, 480),)}, "640"),
    ("policy", {"policy_action": Traffic("/policy_action")}, "its log"),
    ("action", {"action_size": 6}, "axes"),
    ("weights", {"weights": (7, {"state_dim": 9, "action_dim": 3})}, "state_dim"),
    ("weights", {"weights": (8, {"state_dim": 6, "action_dim": 3})}, "refused"),
    ("command", {"command": Traffic("/command", 100, 4.9, 1, 1)}, "overloaded"),
    ("command_rate", {"ARBITER_command_rate": 20.0}, "30 Hz"),
    ("robot", {"command": Traffic("/command", 250, 4.98, 1, 0)}, "nobody listens"),
    ("zeros", {"command_moves": True}, "somebody else"),
    ("frames", {"ARBITER_command_frame": "tool0"}, "base frame"),
    ("frames", {"ee_pose": ((0.5, 0.0, 0.2), "world")}, "'world'"),
    ("frames", {"command_frames": frozenset({"base", "tool"})}, "tool"),
    ("workspace", {"ee_pose": ((0.5, 0.0, 0.9), "base")}, "outside"),
    ("workspace", {"ee_pose": None}, "remap"),
    ("device joy", {"diagnostics": diagnostics("arbiter: device joy", 1, "never moved")}, "move it"),
    ("device", {"diagnostics": without("arbiter: device joy")}, "devices"),
    ("stop", {"stop": True}, "safe"),
    ("control", {"control": None}, "start it"),
    ("control", {"control": (4, "not finite")}, "not finite"),
    ("watchdog", {"diagnostics": diagnostics("watchdog: arbiter", 2, "silent")}, "silent"),
    ("servo", {"hold": "Servo is not there: start servo_node"}, "start servo_node"),
    ("servo", {"hold": None}, "moveit.launch.yaml"),
    ("servo", {"holds": Traffic("/hold", 1, 0.0, 0, 1)}, "has died"),
    ("servo", {"diagnostics": without("servo_adapter: servo")}, "no diagnostics"),
    (
        "servo",
        {"diagnostics": diagnostics("servo_adapter: servo", 1, "", state="unknown")},
        "not confirmed its pause",
    ),
    (
        "servo",
        {
            "diagnostics": diagnostics(
                "servo_adapter: servo", 1, "", state="paused", command_type_selected="false"
            )
        },
        "command type",
    ),
    (
        "servo",
        {"hold": "", "diagnostics": diagnostics("servo_adapter: servo", 0, "", state="running")},
        "command type",
    ),
    ("publishers", {"holds": Traffic("/hold", 50, 4.9, 2, 1)}, "/hold"),
    ("publishers", {"observation": Traffic("/observation", 50, 4.9, 2, 3)}, "expected one"),
    ("publishers", {"policy_action": Traffic("/policy_action", 50, 4.9, 2, 1)}, "expected one"),
    ("publishers", {"pose": Traffic("/tip", 500, 4.99, 2, 2)}, "/tip"),
    ("publishers", {"command_publishers": frozenset({"arbiter", "teleop"})}, "teleop can command"),
    ("reset", {"diagnostics": without("reset_by_planning: reset")}, "reset_service"),
    (
        "reset",
        {"diagnostics": diagnostics("reset_by_planning: reset", 2, "a human has to act")},
        "has to act",
    ),
    ("arbiter_alive", {"alive": Traffic("/arbiter_alive")}, "nothing on"),
    ("ee_pose", {"pose": Traffic("/tip", 20, 4.9, 1, 2)}, "3.9 Hz"),
    ("ee_pose age", {"pose_age": (0.01, 0.5)}, "0.500 s old"),
    ("ee_pose age", {"pose_age": (-0.5, -0.4)}, "future"),
    ("images", {"image_problems": ("image 0: all pixels are the same",)}, "the same"),
    (
        "weights",
        {"weights": (7, {"state_dim": 6, "action_dim": 3, "images": [[64, 64, 3]]})},
        "cameras of [(64, 64)]",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), FAILS)
def test_each_trouble_fails_its_own_check_and_says_what_to_do(name, change, words):
    snapshot = changed(**change)
    verdict, text = worst(snapshot, name)
    assert verdict is Verdict.FAIL and words in text
    assert doctor.exit_code(check(snapshot), strict=False) == 1


WARNS = [
    ("recording", {"parameters": {k: v for k, v in HEALTHY.parameters.items() if k != "recorder"}}),
    ("weights", {"weights": None, "policy_version": 0}),
    ("speed", {"ARBITER_linear_scale": 0.8, "ARBITER_max_linear_speed": 0.5}),
    ("acceleration", {"ARBITER_max_linear_deceleration": 0.0}),
    ("workspace", {"ARBITER_workspace_min": []}),
    ("control", {"control": (2, "the policy drives")}),
    ("speed", {"ARBITER_max_linear_speed": 0.0}),
    ("turning", {"ARBITER_angular_scale": 3.0, "ARBITER_max_angular_speed": 3.0}),
    ("turning", {"ARBITER_max_angular_speed": 0.0}),
    ("turning acceleration", {"ARBITER_max_angular_acceleration": 0.0}),
    ("ee_pose age", {"ARBITER_pose_latency": 0.01}),
    ("hold_timeout", {"ARBITER_hold_timeout": 0.0}),
    ("watchdog", {"diagnostics": without("watchdog: arbiter")}),
    ("servo", {"hold": None, "moveit": False}),
    ("servo status", {"diagnostics": diagnostics("servo_adapter: servo status", 1, "close")}),
]


@pytest.mark.parametrize(("name", "change"), WARNS)
def test_what_only_deserves_a_thought_warns_and_fails_only_when_strict(name, change):
    snapshot = changed(**change)
    assert worst(snapshot, name)[0] is Verdict.WARN
    assert doctor.exit_code(check(snapshot), strict=False) == 0
    assert doctor.exit_code(check(snapshot), strict=True) == 1


def test_without_an_axis_that_turns_its_limits_are_not_asked_for():
    off = {"ARBITER_axes": ["x", "y", "z"], "ARBITER_max_angular_speed": 0.0}
    assert all(not f.name.startswith("turning") for f in check(changed(**off)))


def test_without_moveit_nothing_is_asked_of_it():
    """The arm of a robot that is driven by a controller of its own."""
    kept = tuple(d for d in HEALTHY.diagnostics if "servo" not in d.name and "reset" not in d.name)
    alone = changed(moveit=False, hold=None, holds=Traffic("/hold"), diagnostics=kept)
    assert doctor.exit_code(check(alone), strict=False) == 0


def test_a_trajectory_output_is_silent_while_the_arm_stands_and_a_velocity_output_is_not():
    silent = Traffic("/joint_trajectory", 0, 0.0, 1, 1)
    found = check(changed(ARBITER_output="joint_trajectory", command=silent))
    assert {f.name: f.verdict for f in found}["robot"] is Verdict.PASS
    assert all(f.name not in ("command", "speed") for f in found)
    silent = Traffic("/joint_command", 0, 0.0, 1, 1)
    verdict, words = worst(changed(ARBITER_output="joint_velocity", command=silent), "command")
    assert verdict is Verdict.FAIL and "/joint_command" in words


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ((2, 1, "rgb8", [1, 2, 3, 4, 5, 6]), ""),
        ((2, 1, "bgr8", [1, 2, 3, 4, 5, 6]), "rgb8"),
        ((2, 1, "rgb8", [1, 2, 3]), "3 bytes, expected 6"),
        ((2, 1, "rgb8", [0] * 6), "lens cap"),
    ],
)
def test_images_that_cannot_be_learned_from_are_seen(image, word):
    assert (word in image_problem(*image)) if word else not image_problem(*image)


def test_in_lock_step_rates_and_limits_are_not_judged():
    slow = Traffic("/observation", 3, 4.9, 1, 1)
    snapshot = changed(ARBITER_lock_step=True, observation=slow, observation_age=(-9.0, 9.0))
    assert doctor.exit_code(check(snapshot), strict=True) == 0


def test_the_clock_of_a_simulation_is_not_judged():
    snapshot = changed(ARBITER_use_sim_time=True, observation_age=(-0.1, 0.0))
    assert all(f.name != "clocks" for f in check(snapshot))


def test_the_table_shows_every_finding_and_the_last_line_says_whether_to_arm():
    out = io.StringIO()
    doctor.show(check(changed(stop=True)), Console(file=out, width=200))
    text = out.getvalue()
    assert "Do not arm yet." in text and "the stop topic says true" in text
    assert "the end effector is inside" in text
    rows = json.loads(doctor.as_json(check(HEALTHY)))
    assert {r["verdict"] for r in rows} == {"pass"}


def arguments(*given):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return parser.parse_args(given)


def test_a_set_up_that_is_not_there_is_refused_with_those_that_are(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "topics.launch.yaml").write_text("launch: []\n")
    got = doctor.run(arguments("--robot", "yours", "--config-directory", str(tmp_path)))
    assert got == 2 and "there are: mine" in capsys.readouterr().err
    assert doctor.run(arguments("--seconds", "0")) == 2


@pytest.mark.ros
def test_an_empty_domain_fails_and_says_to_start_the_graph(capsys):
    domain = str(200 + os.getpid() % 30)  # where no other test is
    got = doctor.run(arguments("--seconds", "0.2", "--json", "--domain-id", domain))
    rows = {r["check"]: r for r in json.loads(capsys.readouterr().out)}
    assert got == 1 and rows["nodes"]["verdict"] == "FAIL"
    assert "arbiter" in rows["nodes"]["found"] and rows["control"]["verdict"] == "FAIL"


@pytest.mark.ros
def test_a_live_arbiter_with_a_remapped_robot_is_seen(
    tmp_path, start_node, ros_node, spin_until, capsys
):
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import PoseStamped, TwistStamped

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "topics.launch.yaml").write_text(
        "launch:\n- set_remap: {from: command, to: servo_node/delta_twist_cmds}\n"
        "- set_remap: {from: ee_pose, to: tip}\n"
    )
    names = {"command": "servo_node/delta_twist_cmds", "ee_pose": "tip"}
    box = "[-1.0, -1.0, -1.0]", "[1.0, 1.0, 1.0]"
    start_node(
        "rlif_intervention", "arbiter", remap=names, workspace_min=box[0], workspace_max=box[1]
    )
    start_node("rlif_intervention", "watchdog", remap=names)
    commands, reports = [], []
    ros_node.create_subscription(TwistStamped, names["command"], commands.append, 1)
    ros_node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    tip = ros_node.create_publisher(PoseStamped, "tip", 10)
    pose = PoseStamped()
    pose.header.frame_id = "base"
    ros_node.create_timer(0.1, lambda: tip.publish(pose))
    spin_until(lambda: commands, "the arbiter's commands")
    spin_until(
        lambda: any("watchdog" in s.name for report in reports for s in report.status),
        "the watchdog's diagnostics",
    )
    given = arguments(
        "--robot", "mine", "--config-directory", str(tmp_path), "--seconds", "4", "--json",
        "--domain-id", os.environ["ROS_DOMAIN_ID"],
    )  # fmt: skip
    rows = listen_beside(given, ros_node, capsys)
    assert rows["nodes"]["found"] == "no answer from observer, policy, episode"
    for name in ("command", "robot", "frames", "workspace", "watchdog"):
        assert rows[name]["verdict"] == "pass", rows[name]
    assert rows["control"]["found"].startswith("DISARMED")
    assert rows["device joy"]["verdict"] == "FAIL"


def listen_beside(given, node, capsys):
    """The doctor in a thread of its own, while the test's node goes on."""
    import threading

    codes = []
    thread = threading.Thread(target=lambda: codes.append(doctor.run(given)))
    thread.start()
    while thread.is_alive():
        node.executor.spin_once(timeout_sec=0.02)
    thread.join()
    assert codes == [1]
    return {r["check"]: r for r in json.loads(capsys.readouterr().out)}
