"""Stand-ins for the rest of the graph, in one process with the nodes under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
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
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from waiting import wait_until

from rlif_msgs.msg import (
    ControlState,
    Decision,
    Episode,
    InterventionEvent,
    LearnerStatus,
    Observation,
    PolicyAction,
)

PERIOD = 100_000_000  # ns, of a control tick


class World(Node):
    """Robot, observer, policy, operator and learner in one: answers as lock-step asks.

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
        self.seen: dict[str, list[Any]] = {}
        self.resets = 0
        self.reset_works = True
        self.reset_answers = True
        self.on_reset: Callable[[], Any] = self.move
        self.on_samples: Callable[[], Any] = lambda: None
        self._clock_out = self.create_publisher(Clock, "/clock", RELIABLE)
        self._observation = self.create_publisher(Observation, "observation", RELIABLE)
        self._policy = self.create_publisher(PolicyAction, "policy_action", RELIABLE)
        self.joy = self.create_publisher(Joy, "joy", RELIABLE)
        self.success = self.create_publisher(Header, "task_success", RELIABLE)
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
        observation = Observation(tick=self.tick, state=[0.0])
        observation.header.stamp = to_msg(self.stamp)
        self._observation.publish(observation)
        action = self.policy(self.tick)
        if action is not None:
            answer = PolicyAction(tick=self.tick, action=action, policy_version=1)
            answer.header.stamp = to_msg(self.stamp)
            self._policy.publish(answer)
        hand = self.operator(self.tick)
        if hand is not None:
            self.press(deadman=hand[0], axes=hand[1])

    def press(
        self, axes: list[float] | None = None, stamp: int | None = None, **buttons: bool
    ) -> None:
        names = ("deadman", "success", "failure", "arm")
        joy = Joy(axes=axes or [0.0] * 3, buttons=[int(buttons.get(n, False)) for n in names])
        joy.header.stamp = to_msg(self.stamp if stamp is None else stamp)
        self.joy.publish(joy)

    def run_episode(self, number: int, max_steps: int = 0, start: int | None = None) -> None:
        message = Episode(id=number, phase=Episode.RUNNING, max_steps=max_steps)
        message.header.stamp = to_msg(self.stamp + 1 if start is None else start)
        self.episodes.publish(message)


class Graph:
    """The nodes under test and the world in one executor."""

    def __init__(self, lock_step: bool = True) -> None:
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.world = World(lock_step)
        self.nodes: list[Node] = [self.world]
        self.executor.add_node(self.world)

    def add(self, node: Node) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def until(self, condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
        """Spin until the condition holds; fails at the deadline."""
        return wait_until(
            condition, what or str(condition), seconds, lambda: self.executor.spin_once(0.05)
        )

    def arm(self, on: bool = True) -> SetBool.Response:
        self.until(self.world.arm_client.service_is_ready, what="arm service")
        future = self.world.arm_client.call_async(SetBool.Request(data=on))
        self.until(future.done, what="answer of arm")
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def overrides(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def make_graph() -> Iterator[Callable[..., Graph]]:
    """A function that makes a Graph; closed after the test."""
    made: list[Graph] = []

    def make(lock_step: bool = True) -> Graph:
        made.append(Graph(lock_step))
        return made[-1]

    yield make
    for graph in made:
        graph.close()
