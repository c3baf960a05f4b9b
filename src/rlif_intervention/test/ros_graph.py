# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the rest of the graph, in one process with the nodes under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_100
from rlif_node.stamps import to_msg, to_ns
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Joy
from std_srvs.srv import SetBool, Trigger
from waiting import wait_until

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_msgs.msg import (
    ControlState,
    Decision,
    Episode,
    InterventionEvent,
    LearnerStatus,
    ObservationTick,
    PolicyAction,
    TaskSuccess,
)

# Time-outs that a loaded machine does not reach by accident; s of the clock that the ticks move.
PATIENT = {
    "release_dwell": 0.2,
    "arm_dwell": 0.0,
    "device_timeout": 2.0,
    "policy_timeout": 2.0,
    "observation_timeout": 2.0,
    "pose_timeout": 2.0,
    "stall_timeout": 10.0,
}
JOINTS = ["shoulder", "elbow"]
JOINT_LIMITS = {
    "axes": JOINTS,
    "joint_scale": 0.5,
    "max_joint_velocity": [0.5, 0.5],
    "max_joint_acceleration": [2.0, 2.0],
    "max_joint_deceleration": [4.0, 4.0],
    "joint_position_min": [-1.0, -1.0],
    "joint_position_max": [1.0, 1.0],
}


def params(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


class SteadyClock:
    """In place of the module `time` in the nodes: goes on only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0  # s

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


PERIOD = 100_000_000  # ns, of a control tick


class World(Node):
    """Robot, observer, policy, operator and learner in one: in lock-step it answers commands.

    `policy`, `operator` : functions of the step count; the operator returns (engaged, axes)
    """

    def __init__(self, lock_step: bool = True) -> None:
        super().__init__("world")
        self.lock_step = lock_step
        self.stamp = 1_000_000_000
        self.tick = 0
        self.policy: Callable[[int], list[float] | None] = lambda tick: [0.5, 0.0, 0.0]
        self.operator: Callable[[int], tuple[bool, list[float]] | None] = lambda tick: (
            False,
            [0.0, 0.0, 0.0],
        )
        self.problem = ""  # of the observer, which then makes no observation
        self.seen: dict[str, list[Any]] = {}
        self.statuses: dict[str, DiagnosticStatus] = {}  # newest of each name, without the node's
        self.resets = 0
        self.reset_works = True
        self.reset_answers = True
        self.on_reset: Callable[[], Any] = self.move
        self.on_samples: Callable[[], Any] = lambda: None
        self._clock_out = self.create_publisher(Clock, "/clock", RELIABLE)
        self._observation = self.create_publisher(ObservationTick, "observation_tick", RELIABLE)
        self._policy = self.create_publisher(PolicyAction, "policy_action", RELIABLE)
        self.joy = self.create_publisher(Joy, "joy", RELIABLE)
        self.success = self.create_publisher(TaskSuccess, "task_success", RELIABLE)
        self.learner = self.create_publisher(LearnerStatus, "learner_status", LATCHED)
        self.episodes = self.create_publisher(Episode, "episode", LATCHED_10)
        self.arm_client = self.create_client(SetBool, "arm")
        for kind, name, qos in (
            (TwistStamped, "command", RELIABLE),
            (Decision, "decision", RELIABLE_100),
            (InterventionEvent, "intervention", RELIABLE_100),
            (ControlState, "control_state", LATCHED),
            (Episode, "episode", LATCHED_10),
        ):
            self.seen[name] = []
            self.create_subscription(kind, name, self._collector(name), qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        # Reentrant: a call that is never answered must not block the next one.
        self.create_service(
            Trigger, "reset", self._on_reset, callback_group=ReentrantCallbackGroup()
        )

    def _collector(self, name: str) -> Callable[[Any], None]:
        def collect(message: Any) -> None:
            self.seen[name].append(message)
            if name == "command" and self.lock_step and to_ns(message.header.stamp) >= self.stamp:
                self.move()

        return collect

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses |= {s.name.partition(": ")[2]: s for s in message.status}

    def run_in_real_time(self, clock: SteadyClock | None = None) -> None:
        """Control ticks on a timer, at 10 Hz; with the nodes' clock as fast as the machine allows.

        A tick begins only when the Observation before has been received, so that a machine under
        load delays everything alike.
        """
        received = [self.tick]
        self.create_subscription(
            ObservationTick, "observation_tick", lambda m: received.append(m.tick), RELIABLE
        )

        def tick() -> None:
            if received[-1] == self.tick:
                self.stamp = self.now()
                if clock:
                    clock.now += PERIOD * 1e-9
                self.publish_set()

        self.create_timer(0.02 if clock else 0.1, tick)

    def now(self) -> int:
        """ROS time in ns."""
        return int(self.get_clock().now().nanoseconds)

    async def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.resets += 1
        if not self.reset_answers:
            await Future()  # as a node that dies during the call
        response.success = self.reset_works
        response.message = "done" if self.reset_works else "the robot is stuck"
        if self.reset_works and self.lock_step:
            self.on_reset()
        return response

    def move(self) -> None:
        """One control period further: samples, answers."""
        self.stamp += PERIOD
        self.publish_set()

    def publish_set(self) -> None:
        self.tick += 1
        self._clock_out.publish(Clock(clock=to_msg(self.stamp)))
        self.on_samples()
        observation = ObservationTick(tick=self.tick, problem=self.problem)
        observation.header.stamp = to_msg(self.stamp)
        self._observation.publish(observation)
        action = self.policy(self.tick)
        if action is not None:
            answer = PolicyAction(tick=self.tick, action=action, policy_version=1)
            answer.header.stamp = to_msg(self.stamp)
            self._policy.publish(answer)
        operator = self.operator(self.tick)
        if operator is not None:
            self.press(deadman=operator[0], axes=operator[1])

    def press(
        self, axes: list[float] | None = None, stamp: int | None = None, **buttons: bool
    ) -> None:
        names = ("deadman", "success", "failure", "arm")
        joy = Joy(axes=axes or [0.0] * 3, buttons=[int(buttons.get(n, False)) for n in names])
        joy.header.stamp = to_msg(self.stamp if stamp is None else stamp)
        self.joy.publish(joy)

    def run_episode(self, number: int, max_steps: int = 0, start: int | None = None) -> None:
        message = Episode(id=number, phase=Episode.RUNNING, max_steps=max_steps)
        now = self.stamp + 1 if self.lock_step else self.now()
        message.header.stamp = to_msg(now if start is None else start)
        self.episodes.publish(message)


class Graph:
    """The nodes under test and the world in one executor."""

    def __init__(self, lock_step: bool = True) -> None:
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.world = World(lock_step)
        self.seen = self.world.seen
        self.nodes: list[Node] = [self.world]
        self.executor.add_node(self.world)

    def add(self, node: Node) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def remove(self, node: Node) -> None:
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def until(
        self, condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 30.0
    ) -> Any:
        """Spin until the condition holds; fails at the deadline."""
        return wait_until(condition, what, seconds, lambda: self.executor.spin_once(0.05))

    # ---- with an arbiter

    @property
    def control(self) -> ControlState:
        """As published last; before that one of DISARMED without a reason."""
        return (self.seen["control_state"] or [ControlState()])[-1]

    def add_arbiter(self, **values: Any) -> ArbiterNode:
        """Disarmed, and its zeros are on the way."""
        defaults: dict[str, Any] = PATIENT
        if self.world.lock_step:
            defaults = {"use_sim_time": True, "lock_step": True, "release_dwell": 0.0}
        node = self.add(ArbiterNode(params(**(defaults | values))))
        if self.world.lock_step:
            self.world.publish_set()
            self.until(lambda: self.seen["command"], "idle zeros")
        self.until(lambda: self.seen["control_state"], "the first state")
        assert self.control.state == ControlState.DISARMED
        return node

    def arm(self, on: bool = True) -> SetBool.Response:
        self.until(self.world.arm_client.service_is_ready, "the service arm")
        future = self.world.arm_client.call_async(SetBool.Request(data=on))
        self.until(future.done, "the answer of arm")
        return future.result()

    def drive(self, until: Callable[[], Any] | None = None, **episode: Any) -> None:
        """Arm, begin episode 1 and wait for control by the policy, or for another condition."""
        assert self.arm().success
        self.world.run_episode(1, **episode)
        self.until(until or (lambda: self.control.state == ControlState.POLICY), "POLICY")

    def until_state(self, state: int, device: str = "") -> ControlState:
        self.until(
            lambda: (self.control.state, self.control.device) == (state, device),
            lambda: f"state {state} with device {device!r}; it is {self.control}",
        )
        return self.control

    def decisions(self, count: int) -> list[Decision]:
        self.until(lambda: len(self.seen["decision"]) >= count, f"{count} decisions")
        return self.seen["decision"]

    def more(self, topic: str, count: int) -> list[Any]:
        """The next `count` messages on a topic that the world collects."""
        begin = len(self.seen[topic])
        self.until(lambda: len(self.seen[topic]) >= begin + count, f"{count} more on {topic}")
        return self.seen[topic][begin:]

    def status(self, name: str, message: str) -> DiagnosticStatus:
        """The diagnostic status of that name, as soon as its message has `message` in it."""
        found = self.world.statuses
        self.until(lambda: name in found and message in found[name].message, f"{name}: {message}")
        return found[name]

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown()
