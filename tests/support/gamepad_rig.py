# SPDX-License-Identifier: Apache-2.0
"""Nodes of the suite beside others, each in a process, and a person at a gamepad."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from one_by_one import OneByOne
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.stamps import to_ns
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool
from waiting import scaled

from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.launch_file import Process, read
from rlif_bringup.simulation import graph_environment, reserve_domain
from rlif_msgs.msg import ControlState, Episode

STOPS = ("release", "disarm", "device unplugged", "arbiter frozen", "arbiter killed")
ROOT = Path(__file__).parents[2]
GAMEPAD = {
    "devices": ["joy"],
    "joy": {"preset": "generic", "topic": "/joy", "timeout": 0.25, "arm_button": 3},
    "speed_scale": 1.0,
    "max_steps": 0,
}


def marks(*packages: str) -> list[pytest.MarkDecorator]:
    """Of a module against real nodes: skipped where a package is not sourced, unless that is asked for."""
    missing = next((package for package in packages if not is_there(package)), "")
    return [
        pytest.mark.ros,
        pytest.mark.slow,
        pytest.mark.timeout(600),
        pytest.mark.skipif(
            bool(missing) and not os.environ.get("RLIF_REAL_MOVEIT_REQUIRED"),
            reason=f"the real MoveIt: {missing} is not sourced",
        ),
    ]


def is_there(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Pad:
    """Where a device has x, y, z and roll, the buttons to hold, and what rests elsewhere than at 0."""

    topic: str = "/joy"
    axes: tuple[int, ...] = (0, 1, 2, 3)
    held: tuple[int, ...] = (0,)
    rest: tuple[float, ...] = (0.0,) * 8


class Rig:
    """`others` and the nodes of `launch_files`, of which `start` starts some, and a hand at a gamepad.

    robot: its configuration in the folder `config`
    others: names and commands of what the suite runs beside
    joints: that are listened to
    launch: more arguments of robot.launch.yaml

    Attributes:
        joints: (stamp s, positions rad) of each /joint_states
    """

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        robot: str,
        config: Path,
        others: dict[str, Sequence[str]],
        launch_files: Sequence[str],
        joints: Sequence[str],
        pad: Pad = Pad(),  # noqa: B008 - frozen
        launch: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        domain = stack.enter_context(reserve_domain())
        environment = graph_environment(directory, domain.id)
        self.graph = stack.enter_context(GraphClient("rlif", domain.id))
        values = {"robot": robot, "config_directory": str(config)}
        run = {"run_directory": str(directory / "run"), "bag_directory": "none", "images": "false"}
        run |= launch
        processes = [
            *(Process(n, tuple(c), environment, node=f"/{n}") for n, c in others.items()),
            *(
                process
                for file in launch_files
                for process in read(
                    ROOT / f"launch/{file}.launch.yaml",
                    values | (run if file == "robot" else {}),
                    environment,
                ).processes
            ),
        ]
        self.nodes = OneByOne({p.name: p for p in processes}, directory)
        stack.callback(self.nodes.stop)
        print(f"\nlogs: {directory}")
        self.pad = pad
        self.axes, self.buttons = list(pad.rest), [0] * 12
        self.joints: list[tuple[float, list[float]]] = []
        self._names, self._tremor = list(joints), 1.0
        node = self.graph.node
        self._joy = node.create_publisher(Joy, pad.topic, RELIABLE)
        self._arm = node.create_client(SetBool, "arm")
        self.joy_timer = node.create_timer(0.02, self._publish_joy)
        node.create_subscription(JointState, "/joint_states", self._on_joints, 50)

    def _publish_joy(self) -> None:
        # A hand is never still: a wireless pad that repeats itself has lost its hand.
        self._tremor = 1.9999 - self._tremor
        message = Joy(axes=[self._tremor * a for a in self.axes], buttons=self.buttons)
        message.header.stamp = self.graph.node.get_clock().now().to_msg()
        self._joy.publish(message)

    def _on_joints(self, message: JointState) -> None:
        at = dict(zip(message.name, message.position, strict=False))
        if self._names[0] in at:
            self.joints.append(
                (to_ns(message.header.stamp) / 1e9, [at[name] for name in self._names])
            )

    # ---- what a person does

    def push(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, roll: float = 0.0) -> None:
        """Hold the deadman and the stick."""
        self.release()
        for index, value in zip(self.pad.axes, (x, y, z, roll), strict=False):
            self.axes[index] = value
        for index in self.pad.held:
            self.buttons[index] = 1

    def release(self) -> None:
        self.axes, self.buttons = list(self.pad.rest), [0] * 12

    def disarm(self) -> None:
        self._arm.call_async(SetBool.Request(data=False))

    def arm(self) -> None:
        """Arm until the arbiter would let an operator drive: it may have stood still while others started."""
        asked = 0.0

        def ready() -> bool:
            nonlocal asked
            if self.state == ControlState.HOLD:
                return True
            if time.monotonic() - asked > 2.0:
                with suppress(GraphError):
                    self.graph.call(SetBool, "arm", SetBool.Request(data=True))
                asked = time.monotonic()
            return False

        self.wait(ready, "HOLD", 60.0)

    # ---- what stops the arm: STOPS

    def cause(self, stop: str) -> None:
        """Make it happen."""
        if stop == "release":
            self.release()
        elif stop == "disarm":
            self.disarm()
        elif stop == "device unplugged":
            self.joy_timer.cancel()
        else:
            self.nodes.signal(
                "arbiter", signal.SIGSTOP if stop == "arbiter frozen" else signal.SIGKILL
            )

    def recover(self, stop: str) -> None:
        """Undo it, and disarm."""
        if stop == "device unplugged":
            self.joy_timer.reset()
        elif stop == "arbiter frozen":
            self.nodes.signal("arbiter", signal.SIGCONT)
        elif stop == "arbiter killed":
            self.nodes.start("arbiter")
            self.wait(lambda: self.state == ControlState.DISARMED, "the new arbiter")
        self.graph.spin(2.0)  # a new arbiter takes no axis that it has not seen at rest
        self.disarm()
        self.wait(lambda: self.state in (ControlState.DISARMED, ControlState.FAULT), "the end")

    @contextmanager
    def stop_signal(self) -> Iterator[None]:
        """`stop` is true meanwhile."""
        publisher = self.graph.node.create_publisher(Bool, "stop", LATCHED)
        self.wait(publisher.get_subscription_count, "the arbiter on `stop`")
        publisher.publish(Bool(data=True))
        yield
        publisher.publish(Bool(data=False))
        self.graph.spin(0.5)
        self.graph.node.destroy_publisher(publisher)

    # ---- what is seen

    @property
    def state(self) -> int:
        return self.graph.control.state if self.graph.control else -1

    @property
    def asks_for_a_person(self) -> bool:
        return self.state == ControlState.HOLD and "disarm and arm" in self.reason

    @property
    def reason(self) -> str:
        return self.graph.control.reason if self.graph.control else ""

    def wait(self, condition: Callable[[], object], what: str, deadline: float = 20.0) -> None:
        self.graph.wait(condition, what, scaled(deadline))

    def to_ready(self) -> None:
        """End the episode that runs, and begin another one, after a reset where there is one. Again, as a
        person would, where the arbiter has stood still meanwhile: so do processes on a busy machine."""
        for _ in range(3):
            self._begin_episode()
            if self.state == ControlState.POLICY:
                return
        raise GraphError(f"no episode after three attempts: {self.reason}")

    def _begin_episode(self) -> None:
        self.release()
        if self.asks_for_a_person:
            self.disarm()
            self.wait(lambda: self.state == ControlState.DISARMED, "DISARMED")
        if self.state in (ControlState.DISARMED, ControlState.FAULT):
            self.arm()
        # A fault that no person caused ends no episode, and an episode node that was started anew
        # knows of none.
        if self.graph.episode.phase == Episode.RUNNING:
            with suppress(GraphError):
                self.graph.trigger("end_episode_failure")
        before = self.graph.episode.id
        with suppress(GraphError):  # one is wanted already after an interrupted reset
            self.graph.trigger("start_episode")

        def settled() -> bool:
            running = self.graph.episode.phase == Episode.RUNNING
            acts = running and self.graph.episode.id >= before and self.state == ControlState.POLICY
            return acts or self.state == ControlState.FAULT or self.asks_for_a_person

        self.wait(settled, "an episode with the policy in control", 60.0)
