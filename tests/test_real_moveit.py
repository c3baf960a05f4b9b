# SPDX-License-Identifier: Apache-2.0
"""Against the real MoveIt: its Panda demo with mock hardware, Servo and move_group, as docs/panda_demo.md.

Skipped where MoveIt is not sourced. `pytest -n 0 -s tests/test_real_*.py` prints the figures of docs/moveit.md.
How an arm moves, stops and stays in its box is in test_real_arms.py, for every robot configuration.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from gamepad_rig import is_there, marks
from geometry_msgs.msg import TwistStamped
from moveit_rig import MOVEIT, READY, Changes, MoveItRig, box
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rlif_node.qos import LATCHED, RELIABLE
from std_msgs.msg import Bool
from std_srvs.srv import SetBool
from waiting import scaled

from rlif_bringup.graph_client import GraphError
from rlif_msgs.msg import ControlState, PolicyHold

pytestmark = marks(*MOVEIT)
if all(map(is_there, MOVEIT)):
    from moveit_msgs.msg import ServoStatus

# Of a stop at SPEED, as docs/moveit.md has it, and something for a loaded machine.
STOP_TIME, STOP_DISTANCE = 0.40, 0.030  # s, m


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoveItRig]:
    with ExitStack() as stack:
        found = MoveItRig(tmp_path_factory.mktemp("moveit"), stack, Changes())
        found.arm()
        yield found


# What is kept of Servo in src/rlif_moveit/test/recorded: RLIF_REAL_MOVEIT_BAGS=DIRECTORY writes it anew.
BAGS = {
    "test_commands_are_followed_braked_and_refused": "commands",
    "test_arm_before_an_obstacle_is_held_and_a_reset_frees_it": "obstacle",
    "test_arm_leaving_a_singularity_is_slowed_and_not_held": "singularity",
    "test_arm_in_contact_is_held_until_the_obstacle_is_gone_and_a_person_has_driven": "contact",
}


@pytest.fixture(autouse=True)
def _recorded(request: pytest.FixtureRequest, rig: MoveItRig) -> Iterator[None]:
    with ExitStack() as stack:
        if name := BAGS.get(request.function.__name__):
            stack.enter_context(rig.recorded(name))
        yield


def show(what: str, **figures: float) -> None:
    print(f"\n{what}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))


def test_commands_are_followed_braked_and_refused(rig: MoveItRig) -> None:
    rig.to_ready()
    for stick in ({"x": 1.0}, {"y": -1.0}):
        rig.push(**stick)
        rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
        rig.graph.spin(1.0)
        rig.release()
        rig.wait(lambda: rig.state == ControlState.POLICY, "POLICY")
        rig.graph.spin(0.5)
    rig.push(x=-1.0)
    rig.graph.spin(1.0)
    rig.disarm()
    rig.wait(lambda: rig.state == ControlState.DISARMED, "DISARMED")
    rig.graph.spin(1.0)


def test_stop_topic_is_a_fault_and_the_arm_stands(rig: MoveItRig) -> None:
    stop = rig.graph.node.create_publisher(Bool, "stop", LATCHED)
    rig.wait(stop.get_subscription_count, "the arbiter on `stop`")
    seconds, metres, deceleration = rig.stop_after(lambda: stop.publish(Bool(data=True)))
    show("stop", seconds=seconds, metres=metres, deceleration=deceleration)
    assert rig.state == ControlState.FAULT
    assert seconds <= STOP_TIME and metres <= STOP_DISTANCE
    stop.publish(Bool(data=False))
    rig.graph.spin(0.5)
    rig.graph.node.destroy_publisher(stop)
    rig.arm()


def test_servo_paused_by_somebody_else_is_named(rig: MoveItRig) -> None:
    rig.to_ready()
    client = rig.graph.node.create_client(SetBool, "/servo_node/pause_servo")
    rig.wait(client.service_is_ready, "pause_servo")
    client.call_async(SetBool.Request(data=True))
    rig.wait(lambda: "another node has paused it" in rig.hold.reason, "a hold")
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD")
    client.call_async(SetBool.Request(data=False))
    rig.wait(lambda: rig.state == ControlState.POLICY, "the policy again")


def test_arm_before_an_obstacle_is_held_and_a_reset_frees_it(rig: MoveItRig) -> None:
    rig.to_ready()
    obstacle = ((0.307, 0.30, 0.55), (0.3, 0.1, 0.5))
    rig.scene(box("obstacle", *obstacle))
    codes = rig.drive_until_held(10.0, y=0.5)
    assert ServoStatus.DECELERATE_FOR_COLLISION in codes
    assert rig.hold.reason_code == PolicyHold.NOT_MOVING
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD after the release")
    rig.to_ready()
    assert rig.hold.reason_code == PolicyHold.NONE
    rig.scene(box("obstacle", *obstacle, add=False))


@pytest.mark.parametrize(
    ("stick", "code", "reason"),
    [
        ({"x": 1.0}, "DECELERATE_FOR_APPROACHING_SINGULARITY", PolicyHold.NOT_MOVING),
        ({"x": -0.6, "z": -1.0}, "JOINT_BOUND", PolicyHold.SERVO_STATUS),
    ],
    ids=["stretched", "folded"],
)
def test_arm_at_the_end_of_its_reach_is_held_and_a_reset_frees_it(
    rig: MoveItRig, stick: dict[str, float], code: str, reason: int
) -> None:
    rig.to_ready()
    codes = rig.drive_until_held(20.0, **stick)
    assert getattr(ServoStatus, code) in codes
    assert rig.hold.reason_code == reason
    rig.to_ready()
    assert rig.hold.reason_code == PolicyHold.NONE


def test_arm_in_contact_is_held_until_the_obstacle_is_gone_and_a_person_has_driven(
    rig: MoveItRig,
) -> None:
    rig.to_ready()
    obstacle = (READY, (0.1, 0.1, 0.1))
    rig.scene(box("contact", *obstacle))
    codes = rig.drive_until_held(5.0, z=0.5)
    assert ServoStatus.HALT_FOR_COLLISION in codes
    assert rig.hold.reason_code == PolicyHold.SERVO_STATUS
    rig.graph.trigger("end_episode_failure")
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD")
    with pytest.raises(GraphError, match="call reset_again") as error:
        rig.graph.trigger("reset")
    print(f"\nreset out of contact: {error.value}")
    rig.scene(box("contact", *obstacle, add=False))
    rig.graph.trigger("reset_again")
    rig.to_ready()
    assert rig.hold.reason_code == PolicyHold.NONE


def test_command_in_an_unknown_frame_is_invalid_and_holds(rig: MoveItRig) -> None:
    rig.to_ready()
    stray = rig.graph.node.create_publisher(TwistStamped, "/servo_node/delta_twist_cmds", RELIABLE)

    def held() -> bool:
        message = TwistStamped()
        message.header.stamp = rig.graph.node.get_clock().now().to_msg()
        message.header.frame_id, message.twist.linear.x = "nowhere", 0.01
        stray.publish(message)
        return rig.hold.reason_code != PolicyHold.NONE

    since = time.time()
    rig.wait(held, "a hold")
    codes = {code for t, code in rig.codes if t >= since}
    print(f"\ncodes {sorted(codes)}: {rig.hold.reason}")
    rig.graph.node.destroy_publisher(stray)
    assert ServoStatus.INVALID in codes and rig.hold.reason_code == PolicyHold.SERVO_STATUS


def doctor(rig: MoveItRig) -> dict[str, str]:
    """What `rlif doctor` finds amiss: words and remedy by name of the check."""
    arbiter = rig.nodes.processes["arbiter"]
    command = ["rlif", "doctor", "--robot", "panda_demo", "--json", "--seconds", "3"]
    command += ["--domain-id", arbiter.environment["ROS_DOMAIN_ID"]]
    command += ["--config-directory", str(rig.nodes.directory / "config")]
    done = subprocess.run(
        command, env=dict(arbiter.environment), capture_output=True, text=True, timeout=scaled(90)
    )
    found = json.loads(done.stdout)
    amiss = [f for f in found if f["verdict"].lower() != "pass"]
    print(*(f"\n{f}" for f in amiss))
    return {f["check"]: f"{f['found']} {f['advice']}" for f in amiss}


def refuse_velocities(rig: MoveItRig, yes: bool) -> None:
    """As joint_trajectory_controller does by default, and vendors' files leave it."""
    name = "allow_nonzero_velocity_at_trajectory_end"
    client = AsyncParameterClient(rig.graph.node, "/panda_arm_controller")
    rig.wait(client.services_are_ready, "the controller's parameters")
    future = client.set_parameters([Parameter(name, value=not yes)])
    rig.wait(future.done, "the controller's answer")


FAULTS: dict[str, tuple[Callable[[MoveItRig], object], Callable[[MoveItRig], object]]] = {
    "allow_nonzero_velocity_at_trajectory_end": (
        lambda rig: refuse_velocities(rig, True),
        lambda rig: refuse_velocities(rig, False),
    ),
    "pose_latency": (
        lambda rig: rig.nodes.start("arbiter", pose_latency=0.05),
        lambda rig: rig.nodes.start("arbiter"),
    ),
    "workspace": (
        lambda rig: rig.nodes.start("arbiter", workspace_min=[0.5, -0.2, 0.05]),
        lambda rig: rig.nodes.start("arbiter"),
    ),
    "monitored_planning_scene_topic": (
        lambda rig: rig.restart_servo(
            {"moveit_servo.monitored_planning_scene_topic": "/planning_scene"}
        ),
        lambda rig: rig.restart_servo(),
    ),
}


def test_doctor_of_a_healthy_stack_finds_it_ready(rig: MoveItRig) -> None:
    rig.to_ready()
    rig.disarm()
    rig.wait(lambda: rig.state == ControlState.DISARMED, "DISARMED")
    assert not [check for check in doctor(rig) if "servo" in check or "moveit" in check]


@pytest.mark.parametrize("name", FAULTS)
def test_doctor_names_what_would_go_wrong(rig: MoveItRig, name: str) -> None:
    spoil, mend = FAULTS[name]
    spoil(rig)
    try:
        assert any(name in check + text for check, text in doctor(rig).items())
    finally:
        mend(rig)


def test_command_of_another_publisher_is_named(rig: MoveItRig) -> None:
    stray = rig.graph.node.create_publisher(TwistStamped, "/servo_node/delta_twist_cmds", RELIABLE)
    rig.wait(lambda: "publishes on" in rig.reason, "the warning", 10.0)
    rig.graph.node.destroy_publisher(stray)


# Last: they start Servo anew.


def test_servo_killed_holds_until_a_person_has_driven(rig: MoveItRig) -> None:
    rig.to_ready()
    show("servo killed", hold_after=rig.restart_servo())
    print(rig.hold.reason)
    rig.push(x=0.5)
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.NONE, "the hold to end after driving")
    rig.release()


def singular(lower: float, hard: float) -> dict[str, float]:
    """Servo's thresholds of the condition number: slows down from `lower` on, halts at `hard`."""
    names = "lower_singularity_threshold", "hard_stop_singularity_threshold"
    return {f"moveit_servo.{n}": v for n, v in zip(names, (lower, hard), strict=True)}


def test_arm_leaving_a_singularity_is_slowed_and_not_held(rig: MoveItRig) -> None:
    rig.restart_servo(singular(10.0, 60.0))
    try:
        rig.to_ready()
        since = time.time()
        rig.push(x=1.0)
        code = ServoStatus.DECELERATE_FOR_APPROACHING_SINGULARITY
        rig.wait(lambda: code in {c for t, c in rig.codes if t >= since}, "a slow-down", 30.0)
        rig.release()
        rig.graph.spin(0.5)
        before = rig.position()
        codes = rig.drive_until_held(2.0, x=-0.5)
        show("leaving", moved=float(rig.position()[0] - before[0]))
        assert ServoStatus.DECELERATE_FOR_LEAVING_SINGULARITY in codes
        assert rig.hold.reason_code == PolicyHold.NONE
    finally:
        rig.restart_servo()


def test_arm_halted_at_a_singularity_is_held_and_a_reset_frees_it(rig: MoveItRig) -> None:
    rig.restart_servo(singular(16.9, 17.0))
    try:
        rig.to_ready()
        codes = rig.drive_until_held(30.0, x=1.0)
        assert ServoStatus.HALT_FOR_SINGULARITY in codes
        assert rig.hold.reason_code == PolicyHold.SERVO_STATUS
        before = rig.position()
        codes = rig.drive_until_held(2.0, x=-0.5)
        show("driving away from the halt", moved=float(rig.position()[0] - before[0]))
        rig.to_ready()
        assert rig.hold.reason_code == PolicyHold.NONE
    finally:
        rig.restart_servo()


def test_servo_that_was_restarted_sees_what_is_put_into_the_scene_later(rig: MoveItRig) -> None:
    rig.restart_servo()
    rig.to_ready()
    obstacle = ((0.307, 0.30, 0.55), (0.3, 0.1, 0.5))
    rig.scene(box("obstacle", *obstacle))
    try:
        codes = rig.drive_until_held(3.0, y=0.5)
        assert ServoStatus.DECELERATE_FOR_COLLISION in codes
    finally:
        rig.scene(box("obstacle", *obstacle, add=False))
