# SPDX-License-Identifier: Apache-2.0
"""Whole sessions on the real MoveIt: a fault in each episode, a learner at full load, a gripper.

Skipped where MoveIt is not sourced, as test_real_moveit.py. RLIF_REAL_MOVEIT_EPISODES and
RLIF_REAL_MOVEIT_SECONDS make them longer.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from action_msgs.msg import GoalStatus, GoalStatusArray
from bench_control import LEARNER_PREFIX, start_learner
from gamepad_rig import GAMEPAD, is_there, marks
from geometry_msgs.msg import TwistStamped
from moveit_rig import MOVEIT, PANDA, READY, SPEED, Changes, MoveItRig, box
from rlif_node.qos import LATCHED_10, RELIABLE
from rlif_node.stamps import to_ns
from rlif_node.states import ControlState as State
from std_srvs.srv import SetBool, Trigger

from rlif_bringup.graph_client import GraphError
from rlif_msgs.msg import ControlState, Decision, Step

pytestmark = marks(*MOVEIT)
FINGER, FINGER_OPEN, FINGER_CLOSED = "panda_finger_joint1", 0.035, 0.005  # m
OPEN_BUTTON, CLOSE_BUTTON = 4, 5
STALE = 0.1  # s, incoming_command_timeout of config/panda_demo/servo.yaml


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoveItRig]:
    gripper = {
        "axes": ["x", "y", "z", "gripper"],
        "gripper_action": "/panda_hand_controller/gripper_cmd",
        "gripper_open": FINGER_OPEN,
        "gripper_closed": FINGER_CLOSED,
        "joy": {
            **GAMEPAD["joy"],
            "gripper_open_button": OPEN_BUTTON,
            "gripper_close_button": CLOSE_BUTTON,
        },
    }
    with ExitStack() as stack:
        found = MoveItRig(
            tmp_path_factory.mktemp("sessions"),
            stack,
            Changes(robot=gripper, launch={"gripper": "true"}),
            replace(PANDA, joints=(*PANDA.joints, FINGER)),
        )
        found.nodes.start("gripper")
        found.arm()
        yield found


def test_buttons_of_the_operator_open_and_close_the_gripper(rig: MoveItRig) -> None:
    if not is_there("gripper_controllers"):
        pytest.skip("the Panda's hand has no controller: gripper_controllers is not sourced")
    rig.to_ready()

    def finger() -> float:
        return rig.joints[-1][1][-1]

    for button, position in (
        (CLOSE_BUTTON, FINGER_CLOSED),
        (OPEN_BUTTON, FINGER_OPEN),
        (CLOSE_BUTTON, FINGER_CLOSED),
    ):
        rig.push(x=0.1)
        rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
        rig.buttons[button] = 1
        began = time.monotonic()
        rig.wait(lambda at=position: abs(finger() - at) < 0.001, f"the fingers at {position} m")
        print(f"\nfingers at {position} m after {time.monotonic() - began:.2f} s")
    rig.release()
    rig.disarm()
    rig.wait(lambda: rig.state == ControlState.DISARMED, "DISARMED")
    rig.graph.spin(0.5)
    assert abs(finger() - FINGER_CLOSED) < 0.001  # what is held stays held


@pytest.mark.timeout(2400)
def test_servo_beside_a_learner_at_full_load_gets_hardly_a_stale_command(rig: MoveItRig) -> None:
    """To and fro for RLIF_REAL_MOVEIT_SECONDS; a stale command lets Servo halt the arm.

    RLIF_REAL_MOVEIT_LEARNER_PREFIX: in place of the launch file's learner_prefix
    """
    seconds = float(os.environ.get("RLIF_REAL_MOVEIT_SECONDS", "20"))
    stamps: list[float] = []
    commands = rig.graph.node.create_subscription(
        TwistStamped,
        "/servo_node/delta_twist_cmds",
        lambda m: stamps.append(to_ns(m.header.stamp) / 1e9),
        1000,
    )
    pushes: list[float] = []
    prefix = os.environ.get("RLIF_REAL_MOVEIT_LEARNER_PREFIX", " ".join(LEARNER_PREFIX))
    learner = start_learner(prefix.split())
    try:
        rig.graph.spin(10.0)  # it loads and compiles: that is not full load yet
        rig.to_ready()
        del rig.joints[:-1]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pushes.append(time.time())
            rig.push(y=0.8 if len(pushes) % 2 else -0.8)
            rig.graph.spin(2.0)
    finally:
        learner.stdin.close()
        learner.wait(60)
        rig.release()
        rig.graph.node.destroy_subscription(commands)
    periods = 1e3 * np.diff([s for s in stamps if pushes[0] <= s <= pushes[-1] + 2.0])
    t = np.array([t for t, _ in rig.joints])
    speed = np.linalg.norm(np.diff([q for _, q in rig.joints], axis=0), axis=1) / np.diff(t)
    halts = 0
    for began in pushes:  # from one push to the next the arm turns round in less than 0.8 s
        steady = speed[(t[1:] > began + 0.8) & (t[1:] < began + 1.9)]
        halts += int((steady < 0.5 * np.median(steady)).sum())
    stale = int((periods > 1e3 * STALE).sum())
    print(
        f"\n{len(pushes)} pushes, {len(periods)} commands: period median {np.median(periods):.1f}, "
        f"p99 {np.percentile(periods, 99):.1f}, max {periods.max():.1f} ms, {stale} stale; arm halted in "
        f"{halts} of {len(speed)} samples"
    )
    assert stale <= 1e-3 * len(periods) and halts <= 5e-3 * len(speed)


# ---- a fault in each episode


@contextmanager
def cause(rig: MoveItRig, stop: str) -> Iterator[None]:
    """One of STOPS."""
    rig.cause(stop)
    yield
    rig.recover(stop)


@contextmanager
def killed(rig: MoveItRig, name: str) -> Iterator[None]:
    rig.nodes.signal(name, signal.SIGKILL)
    yield
    rig.nodes.start(name)


@contextmanager
def servo_paused(rig: MoveItRig) -> Iterator[None]:
    client = rig.graph.node.create_client(SetBool, "/servo_node/pause_servo")
    rig.wait(client.service_is_ready, "pause_servo")
    client.call_async(SetBool.Request(data=True))
    yield
    future = client.call_async(SetBool.Request(data=False))
    rig.wait(future.done, "Servo")
    rig.graph.node.destroy_client(client)


@contextmanager
def servo_killed(rig: MoveItRig) -> Iterator[None]:
    rig.restart_servo()
    yield
    rig.push(x=0.5)  # a person has to drive before the policy may
    rig.graph.spin(1.5)
    rig.release()


@contextmanager
def obstacle(rig: MoveItRig) -> Iterator[None]:
    """Where the reset goes to."""
    rig.end_episode()
    rig.scene(box("in the way", READY, (0.05, 0.05, 0.05)))
    client = rig.graph.node.create_client(Trigger, "reset")
    rig.wait(client.service_is_ready, "the reset")
    with pytest.raises(GraphError, match="call reset_again"):
        rig.graph.trigger("reset")
    yield
    rig.scene(box("in the way", READY, (0.05, 0.05, 0.05), add=False))
    rig.graph.trigger("reset_again")


FAULTS: dict[str, Callable[[MoveItRig], object]] = {
    "stop topic": lambda rig: rig.stop_signal(),
    "disarm": lambda rig: cause(rig, "disarm"),
    "device unplugged": lambda rig: cause(rig, "device unplugged"),
    "arbiter frozen": lambda rig: cause(rig, "arbiter frozen"),
    "arbiter killed": lambda rig: cause(rig, "arbiter killed"),
    "servo killed": servo_killed,
    "servo paused": servo_paused,
    "obstacle": obstacle,
    **{
        f"{name} killed": lambda rig, name=name: killed(rig, name)
        for name in (
            *("observer", "policy", "episode", "recorder", "watchdog"),
            *("servo_adapter", "reset_by_planning"),
        )
    },
}


@pytest.mark.timeout(2400)
def test_episodes_with_a_fault_in_each_go_on_with_a_planned_reset(rig: MoveItRig) -> None:
    count = int(os.environ.get("RLIF_REAL_MOVEIT_EPISODES", str(len(FAULTS))))
    resets: dict[bytes, int] = {}  # status by goal
    decided: set[tuple[int, int]] = set()
    stepped: set[tuple[int, int]] = set()

    def on_status(message: GoalStatusArray) -> None:
        resets.update({bytes(s.goal_info.goal_id.uuid): s.status for s in message.status_list})

    def on_decision(m: Decision) -> None:
        if m.episode_id:
            decided.add((m.episode_id, m.step_index))

    node = rig.graph.node
    subscriptions = [
        node.create_subscription(
            GoalStatusArray, "/move_action/_action/status", on_status, LATCHED_10
        ),
        node.create_subscription(Decision, "decision", on_decision, RELIABLE),
        node.create_subscription(
            Step, "replay", lambda m: stepped.add((m.episode_id, m.step_index)), RELIABLE
        ),
    ]
    names, took, beyond, fastest = list(FAULTS), [], -1.0, 0.0
    low, high = (np.array(PANDA.changes[f"workspace_{end}"]) for end in ("min", "max"))
    for number in range(count):
        name = names[number % len(names)]
        began = time.monotonic()
        rig.to_ready()
        took.append(time.monotonic() - began)
        assert np.abs(rig.position() - READY).max() < 0.01, f"the reset before {number + 1}"
        since = time.time()
        rig.push(*((-1.0) ** (number // 3) * np.eye(3)[number % 3]))
        rig.graph.spin(1.0)
        with FAULTS[name](rig):
            rig.graph.spin(1.5)
            t, p = rig.track(since, every=5)
            p, t = p[t >= 0.0], t[t >= 0.0]  # before that the planned motion ends
            seen = f"{State(rig.state).name}, {rig.reason!r}, hold {rig.hold.reason!r}"
        beyond = max(beyond, float(np.maximum(low - p, p - high).max()))
        speed = np.linalg.norm(np.diff(p, axis=0), axis=1) / np.diff(t)
        fastest = max(fastest, float(speed.max()))
        rig.graph.spin(0.5)
        lost = len(decided - stepped)
        print(
            f"{number + 1:3} {name}: ready after {took[-1]:.1f} s, {speed.max():.3f} m/s, {lost} Steps "
            f"lost so far; {seen[:150]}"
        )
    rig.to_ready()
    rig.disarm()
    rig.graph.spin(2.0)
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    ends = Counter(resets.values())
    with suppress(KeyError):
        ends["succeeded"] = ends.pop(GoalStatus.STATUS_SUCCEEDED)
    print(
        f"\n{count} episodes, planned motions by status {dict(ends)}; until an episode runs again "
        f"{np.median(took):.1f} s ({max(took):.1f} at most); {len(decided - stepped)} of "
        f"{len(decided)} Steps lost; {beyond:.4f} m beyond the box, fastest {fastest:.3f} m/s"
    )
    assert beyond < 0.001 and fastest < 1.2 * SPEED
