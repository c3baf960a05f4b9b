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
from rlif_bringup.doctor_checks import Verdict, check
from rlif_bringup.doctor_snapshot import Diagnostic, Snapshot, Traffic

ARBITER = {
    "axes": ["x", "y", "z"],
    "command_rate": 50.0,
    "command_frame": "base",
    "lock_step": False,
    "linear_scale": 0.1,
    "speed_scale": 0.5,
    "max_linear_acceleration": 0.5,
    "max_linear_deceleration": 1.0,
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
HEALTHY = Snapshot(
    seconds=5.0,
    parameters={
        "arbiter": ARBITER,
        "observer": OBSERVER,
        "policy": {},
        "episode": {},
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
    command=Traffic("/servo_node/delta_twist_cmds", 250, 4.98, 1, 1),
    command_frames=frozenset({"base"}),
    control=(0, "not armed yet"),
    hold="Servo is paused: the arbiter is not armed",
    ee_pose=((0.5, 0.0, 0.2), "base"),
    diagnostics=(
        Diagnostic("observer: /ee_pose", 0, "ok"),
        Diagnostic("arbiter: device joy", 0, "fresh"),
        Diagnostic("watchdog: arbiter", 0, "the arbiter is alive"),
    ),
)


def changed(**values):
    """A healthy graph but for this; ARBITER_x and OBSERVER_x change a parameter."""
    parameters = {name: dict(p) for name, p in HEALTHY.parameters.items()}
    for name in [n for n in values if n.startswith(("ARBITER_", "OBSERVER_"))]:
        node, key = name.split("_", 1)
        parameters[node.lower()][key] = values.pop(name)
    return dataclasses.replace(HEALTHY, **({"parameters": parameters} | values))


def diagnostics(name, level, message):
    kept = tuple(d for d in HEALTHY.diagnostics if d.name != name)
    return (*kept, Diagnostic(name, level, message))


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
    ("device", {"diagnostics": HEALTHY.diagnostics[:1]}, "devices"),
    ("stop", {"stop": True}, "safe"),
    ("control", {"control": None}, "start it"),
    ("control", {"control": (4, "not finite")}, "not finite"),
    ("watchdog", {"diagnostics": diagnostics("watchdog: arbiter", 2, "silent")}, "silent"),
    ("servo", {"hold": "Servo is not there: start servo_node"}, "start servo_node"),
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
    ("speed", {"ARBITER_linear_scale": 0.8}),
    ("acceleration", {"ARBITER_max_linear_deceleration": 0.0}),
    ("workspace", {"ARBITER_workspace_min": []}),
    ("control", {"control": (2, "the policy drives")}),
    ("watchdog", {"diagnostics": HEALTHY.diagnostics[:2]}),
    ("servo", {"hold": None}),
    ("servo status", {"diagnostics": diagnostics("servo_adapter: servo status", 1, "close")}),
]


@pytest.mark.parametrize(("name", "change"), WARNS)
def test_what_only_deserves_a_thought_warns_and_fails_only_when_strict(name, change):
    snapshot = changed(**change)
    assert worst(snapshot, name)[0] is Verdict.WARN
    assert doctor.exit_code(check(snapshot), strict=False) == 0
    assert doctor.exit_code(check(snapshot), strict=True) == 1


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


def test_an_empty_domain_fails_and_says_to_start_the_graph(capsys):
    domain = str(200 + os.getpid() % 30)  # where no other test is
    got = doctor.run(arguments("--seconds", "0.2", "--json", "--domain-id", domain))
    rows = {r["check"]: r for r in json.loads(capsys.readouterr().out)}
    assert got == 1 and rows["nodes"]["verdict"] == "FAIL"
    assert "arbiter" in rows["nodes"]["found"] and rows["control"]["verdict"] == "FAIL"


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
