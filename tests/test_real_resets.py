# SPDX-License-Identifier: Apache-2.0
"""Resets on the real MoveIt: cancelled in mid-motion, refused, around walls, through move_group and moveit_py.

Skipped where MoveIt is not sourced, as test_real_moveit.py. Episodes with resets between are in
test_real_arms.py.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from gamepad_rig import is_there, marks
from moveit_rig import AT_REST, MOVEIT, PANDA, READY, WALL, Changes, MoveItRig, box
from rclpy.task import Future
from std_srvs.srv import Trigger

from rlif_bringup.graph_client import GraphError
from rlif_msgs.msg import ControlState, PolicyHold

pytestmark = marks(*MOVEIT)
if all(map(is_there, MOVEIT)):
    from moveit_msgs.msg import ServoStatus

NOT_YET = (
    "Servo is not paused",
    "no action",
    "no heartbeat",
    "no state that counts",
    "going on already",
    "still starting",
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoveItRig]:
    with ExitStack() as stack:
        found = MoveItRig(tmp_path_factory.mktemp("resets"), stack, Changes())
        found.arm()
        yield found


@pytest.fixture
def reset_with(rig: MoveItRig) -> Iterator[Callable[..., None]]:
    """Starts `reset_by_planning` with other parameters, until the end of the test."""

    def start(**parameters: object) -> None:
        rig.nodes.start("reset_by_planning", **parameters)

    yield start
    rig.nodes.start("reset_by_planning")
    # A call may have gone to the node that was there before, and is repeated by the episode node.
    rig.wait(lambda: begins(rig), "an episode", 150.0)


def begins(rig: MoveItRig) -> bool:
    with suppress(GraphError):
        rig.to_ready()
    return rig.state == ControlState.POLICY


def away_from_ready(rig: MoveItRig) -> None:
    """To one side of `ready`, with the episode ended."""
    rig.to_ready()
    rig.push(y=1.0)
    rig.graph.spin(1.5)
    rig.end_episode()
    rig.graph.spin(0.5)


def begin_reset(rig: MoveItRig) -> Future:
    """From beside `ready`; returns the answer to come when the arm has begun to move."""
    away_from_ready(rig)
    client = rig.graph.node.create_client(Trigger, "reset")
    rig.wait(client.service_is_ready, "the reset")
    rig.graph.spin(0.5)
    first = rig.joints[-1][1]
    asked: list[Future] = []

    def moves() -> bool:
        # Refused while the worker of moveit_py starts.
        if not asked or (asked[-1].done() and not asked[-1].result().success):
            asked.append(client.call_async(Trigger.Request()))
        return math.dist(rig.joints[-1][1], first) > 0.02

    rig.wait(moves, "the planned motion to begin", 60.0)
    return asked[-1]


def rest_since(rig: MoveItRig, began: float) -> tuple[float, float]:
    """s and m until the arm stood."""
    t, p = rig.track(began)
    moving = t[1:][np.linalg.norm(np.diff(p, axis=0), axis=1) / np.diff(t) > AT_REST]
    return float(moving.max()), float(np.linalg.norm(p[-1] - p[np.searchsorted(t, 0.0)]))


def end_node_in_mid_motion(rig: MoveItRig, number: signal.Signals) -> None:
    """The arm stands soon, and not where the reset goes to."""
    begin_reset(rig)
    began = time.time()
    rig.nodes.signal("reset_by_planning", number)
    rig.graph.spin(2.0)
    seconds, metres = rest_since(rig, began)
    print(f"\nreset_by_planning, {number.name}: {seconds:.3f} s, {metres:.4f} m")
    assert np.abs(rig.position() - READY).max() > 0.02, "the arm went on to its goal"
    assert seconds < 0.8


def refused_reset(rig: MoveItRig) -> None:
    """Ask for a reset that is not possible."""
    reasons: list[str] = []

    def answered() -> bool:
        try:
            rig.graph.trigger("reset")
        except GraphError as error:
            reasons.append(str(error))
        else:
            pytest.fail("the reset was done")
        # What a node that was just started has not found yet, and a call that went on before.
        return not any(word in reasons[-1] for word in NOT_YET)

    rig.wait(answered, "an answer to the reset", 60.0)
    print(f"\n{reasons[-1]}")
    assert "call reset_again" in reasons[-1]


@pytest.mark.parametrize("cause", ["disarm", "stop", "arbiter frozen", "arbiter killed"])
def test_reset_that_is_cancelled_in_mid_motion_leaves_the_arm_at_rest(
    rig: MoveItRig, cause: str
) -> None:
    future = begin_reset(rig)
    began = time.time()
    if cause == "stop":
        with rig.stop_signal():
            rig.wait(lambda: rig.state == ControlState.FAULT, "FAULT")
    else:
        rig.cause(cause)
    rig.wait(future.done, "an answer of the reset")
    rig.graph.spin(1.0)
    seconds, metres = rest_since(rig, began)
    rig.recover(cause)
    print(f"\nreset, {cause}: {seconds:.3f} s, {metres:.4f} m; {future.result().message}")
    assert not future.result().success and seconds < 0.8
    rig.to_ready()
    assert np.abs(rig.position() - READY).max() < 0.01


def test_servo_after_a_reset_does_not_jump(rig: MoveItRig) -> None:
    rig.to_ready()
    start = rig.position()
    rig.push(z=-0.3)
    rig.graph.spin(0.3)
    rig.release()
    rig.graph.spin(1.0)
    moved = float(np.linalg.norm(rig.position() - start))
    print(f"\nafter a reset: {moved:.4f} m")
    assert moved < 0.02


def test_reset_into_an_obstacle_is_refused_with_the_reason(rig: MoveItRig) -> None:
    away_from_ready(rig)
    obstacle = ((READY[0], -0.05, READY[2]), (0.1, 0.1, 0.1))
    rig.scene(box("in the way", *obstacle))
    refused_reset(rig)
    rig.scene(box("in the way", *obstacle, add=False))
    rig.graph.trigger("reset_again")
    rig.to_ready()


def test_goal_out_of_reach_is_refused_and_the_arm_stays(
    rig: MoveItRig, reset_with: Callable[..., None]
) -> None:
    away_from_ready(rig)
    before = rig.position()
    far = {"goal_link": PANDA.tip, "goal_frame": PANDA.base, "goal_position": [2.0, 0.0, 0.5]}
    reset_with(goal="pose", planning_time=1.0, **far)
    refused_reset(rig)
    assert np.abs(rig.position() - before).max() < 0.001


def test_reset_that_the_controller_refuses_is_left_to_a_person(rig: MoveItRig) -> None:
    from controller_manager_msgs.srv import SwitchController

    switch = rig.graph.node.create_client(SwitchController, "/controller_manager/switch_controller")

    def active(yes: bool) -> None:
        names = [PANDA.trajectory.split("/")[1]]
        request = SwitchController.Request(strictness=SwitchController.Request.STRICT)
        (request.activate_controllers if yes else request.deactivate_controllers).extend(names)
        future = switch.call_async(request)
        rig.wait(future.done, "the controller manager")
        assert future.result().ok

    away_from_ready(rig)
    active(False)
    try:
        refused_reset(rig)
    finally:
        active(True)
    rig.graph.trigger("reset_again")
    rig.to_ready()


def test_walls_of_the_box_stop_servo_and_planned_motions(
    rig: MoveItRig, reset_with: Callable[..., None]
) -> None:
    """The arbiter's own box ends further out here, so that the walls alone can stop the arm."""
    wide = {"workspace_min": [0.05, -0.6, 0.05], "workspace_max": [0.95, 0.6, 0.95]}
    rig.nodes.start("arbiter", **wide)
    rig.wait(lambda: rig.state == ControlState.DISARMED, "the new arbiter")
    rig.graph.spin(2.0)
    wall_gone = box("rlif_workspace_left", (0.0, 0.0, 0.0), (0.1, 0.1, 0.1), add=False)
    rig.nodes.start("show_workspace", walls=["left"], wall_margin=0.1)
    try:
        rig.to_ready()
        rig.graph.spin(2.0)
        codes = rig.drive_until_held(15.0, y=1.0)
        reached = float(rig.position()[1])
        print(f"wall {WALL + 0.1:.3f}, flange at {reached:.4f} m, hand 0.1 m further")
        assert ServoStatus.DECELERATE_FOR_COLLISION in codes
        assert rig.hold.reason_code in (PolicyHold.NOT_MOVING, PolicyHold.SERVO_STATUS)
        assert reached + 0.1 < WALL + 0.11
        rig.end_episode()
        refused_reset(rig)  # it would start in contact
        rig.scene(wall_gone)
        rig.graph.trigger("reset_again")
        rig.to_ready()
        rig.end_episode()
        rig.nodes.start("show_workspace", walls=["left"], wall_margin=0.1)
        rig.graph.spin(4.0)
        behind = {"goal_link": PANDA.tip, "goal_frame": PANDA.base}
        behind["goal_position"] = [READY[0], WALL + 0.15, READY[2]]
        behind["goal_orientation"] = [0.924, -0.383, 0.0, 0.0]  # as `ready`
        reset_with(goal="pose", planning_time=1.0, **behind)
        refused_reset(rig)
    finally:
        rig.scene(wall_gone)
        rig.nodes.start("arbiter")
        rig.wait(lambda: rig.state == ControlState.DISARMED, "the arbiter as it was")
        rig.graph.spin(2.0)


@pytest.fixture
def moveit_py_file(tmp_path: Path) -> str:
    """MoveIt's parameters of the Panda for moveit_py, as docs/moveit.md makes them."""
    from moveit_configs_utils import MoveItConfigsBuilder

    found = MoveItConfigsBuilder("moveit_resources_panda").to_moveit_configs().to_dict()
    found["planning_pipelines"] = {"pipeline_names": found["planning_pipelines"]}
    found["plan_request_params"] = {"planning_pipeline": "ompl", "planning_attempts": 1}
    path = tmp_path / "moveit_py.yaml"
    path.write_text(json.dumps({"/**": {"ros__parameters": found}}), encoding="utf-8")
    return str(path)


@pytest.mark.skipif(not is_there("moveit_py"), reason="moveit_py is not sourced")
def test_resets_through_moveit_py(
    rig: MoveItRig, reset_with: Callable[..., None], moveit_py_file: str
) -> None:
    away_from_ready(rig)
    reset_with(planner="moveit_py", moveit_py_parameters=[moveit_py_file])
    took = []
    for _ in range(3):
        began = time.monotonic()
        rig.to_ready()
        took.append(time.monotonic() - began)
        assert np.abs(rig.position() - READY).max() < 0.01
        rig.push(y=1.0)
        rig.graph.spin(1.5)
        rig.release()
    print(f"\nmoveit_py: resets took {np.round(took, 2)} s, the first with its start")


@pytest.mark.skipif(not is_there("moveit_py"), reason="moveit_py is not sourced")
def test_moveit_py_leaves_servo_the_objects_of_move_group(
    rig: MoveItRig, reset_with: Callable[..., None], moveit_py_file: str
) -> None:
    """It publishes a scene of its own, which Servo must not take for move_group's."""
    away_from_ready(rig)
    obstacle = ((READY[0], -0.30, 0.55), (0.3, 0.1, 0.5))
    rig.scene(box("beside", *obstacle))
    try:
        reset_with(planner="moveit_py", moveit_py_parameters=[moveit_py_file])
        rig.to_ready()
        codes = rig.drive_until_held(6.0, y=-1.0)
    finally:
        rig.scene(box("beside", *obstacle, add=False))
    assert ServoStatus.DECELERATE_FOR_COLLISION in codes


@pytest.mark.skipif(not is_there("moveit_py"), reason="moveit_py is not sourced")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_moveit_py_stops_the_arm_when_its_node_ends(
    rig: MoveItRig,
    reset_with: Callable[..., None],
    moveit_py_file: str,
    number: signal.Signals,
) -> None:
    rig.to_ready()
    reset_with(planner="moveit_py", moveit_py_parameters=[moveit_py_file])
    end_node_in_mid_motion(rig, number)


def test_planned_motion_is_cancelled_when_its_node_is_interrupted(
    rig: MoveItRig, reset_with: Callable[..., None]
) -> None:
    rig.to_ready()
    end_node_in_mid_motion(rig, signal.SIGINT)
