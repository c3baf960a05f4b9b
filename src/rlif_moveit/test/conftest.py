# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for MoveIt, by the rules of the real one; with the real types where they are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_1
from rlif_node.stamps import to_ns
from sensor_msgs.msg import JointState
from servo_rules import follows, reported
from std_msgs.msg import Float64MultiArray, Int8
from std_srvs.srv import SetBool, Trigger
from waiting import wait_until

from rlif_moveit.interfaces import COMMAND_TYPES, ServoInterfaces, servo_interfaces
from rlif_moveit.planning import PlanningInterfaces, planning_interfaces
from rlif_moveit.servo_status import Dialect
from rlif_moveit.workspace_node import SceneInterfaces, scene_interfaces
from rlif_msgs.msg import ControlState, Heartbeat, PolicyHold

HAVE_MOVEIT = importlib.util.find_spec("moveit_msgs") is not None
HAVE_CONTROL = importlib.util.find_spec("control_msgs") is not None


def shaped_like(base: type, **fields: str) -> type:
    """A message type that travels as `base`, with `fields` of other names: name=name of base.

    rclpy takes what bears the name of a generated type; who hears it gets the `base`.
    """

    def alias(of: str) -> property:
        return property(lambda m: getattr(m, of), lambda m, value: setattr(m, of, value))

    body = {name: alias(of) for name, of in fields.items()}
    return type(base)(base.__name__, (base,), body | {"__module__": base.__module__})


def make_joint_jog_type() -> type:
    """control_msgs/JointJog where it is installed, else a JointState with its fields."""
    if HAVE_CONTROL:
        return importlib.import_module("control_msgs.msg").JointJog
    return shaped_like(JointState, joint_names="name", velocities="velocity")


class Loose:
    """A message of any type: fields appear when they are used; those named *s are lists."""

    SPHERE, BOX, ADD = 2, 1, b"\0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        lists = ("constraints", "primitives", "poses", "objects", "names")
        value = [] if name.endswith(lists) else Loose()
        self.__dict__[name] = value
        return value


def make_planning_types() -> PlanningInterfaces:
    """The real ones where they are installed."""
    if HAVE_MOVEIT:
        return planning_interfaces()
    return PlanningInterfaces(SimpleNamespace(Goal=Loose), *[Loose] * 6)


def make_scene_types() -> SceneInterfaces:
    """The real ones where they are installed; else a service that carries nothing, and says yes."""
    if HAVE_MOVEIT:
        return scene_interfaces()
    request = shaped_like(SetBool.Request)
    apply = type(SetBool)("ApplyPlanningScene", (SetBool,), {"Request": request})
    return SceneInterfaces(apply, Loose, Loose, Loose)


class StandInMoveGroup:
    """move_group's action, as a client sees it. `code` None: no result until `cancel_goal_async`."""

    def __init__(self, code: int | None = 1, accepted: bool = True) -> None:
        self.code, self.accepted = code, accepted
        self.ready, self.cancels = True, 0
        self.goals: list[Any] = []
        self.result = Future()

    def server_is_ready(self) -> bool:
        return self.ready

    def send_goal_async(self, goal: Any) -> Future:
        self.goals.append(goal)
        sent = Future()
        sent.set_result(self)
        return sent

    def get_result_async(self) -> Future:
        if self.code is not None:
            self.finish(self.code)
        return self.result

    def finish(self, code: int) -> None:
        error = SimpleNamespace(error_code=SimpleNamespace(val=code))
        self.result.set_result(SimpleNamespace(result=error))

    def cancel_goal_async(self) -> None:
        self.cancels += 1
        if not self.result.done():
            self.finish(-7)


def make_servo_interfaces(dialect: Dialect, joint_jog: bool = False) -> ServoInterfaces:
    """The real ones where they are installed; else standard types of the same shape."""
    if (HAVE_MOVEIT or dialect is Dialect.HUMBLE) and (HAVE_CONTROL or not joint_jog):
        return servo_interfaces(dialect, joint_jog)
    jazzy = dialect is Dialect.JAZZY
    return ServoInterfaces(
        joint_jog_type=make_joint_jog_type() if joint_jog else None,
        status_type=Int8,
        read_code=lambda m: m.data,
        select_service=SetBool if jazzy else None,
        select_request=(lambda kind: SetBool.Request(data=bool(kind))) if jazzy else None,
    )


class StandInServo(Node):
    """Servo's rules: no default command type, fresh stamps only, silent while paused.

    `moving` is the twist that it last followed. `code` is where the arm is; servo_rules.py says when it is
    reported.
    """

    def __init__(self, dialect: Dialect = Dialect.JAZZY) -> None:
        super().__init__("servo_node")
        self.dialect, self.code = dialect, 0
        self.paused = False  # as Servo starts
        self.kind: int | None = None if dialect is Dialect.JAZZY else COMMAND_TYPES["twist"]
        self.moving: list[float] | None = None
        self.refuses = False
        self.asked: list[str] = []
        self.jogged: list[Any] = []
        interfaces = make_servo_interfaces(dialect)
        self._status = self.create_publisher(interfaces.status_type, "~/status", LATCHED)
        if dialect is Dialect.JAZZY:
            self.create_service(interfaces.select_service, "~/switch_command_type", self._on_select)
            self.create_service(SetBool, "~/pause_servo", self._on_pause)
        else:
            self.create_service(Trigger, "~/start_servo", self._trigger(False))
            self.create_service(Trigger, "~/stop_servo", self._trigger(True))
        self.create_subscription(TwistStamped, "command", self._on_twist, RELIABLE_1)
        self.create_timer(0.02, self._cycle)

    def _on_select(self, request: Any, response: Any) -> Any:
        kind = int(getattr(request, "command_type", getattr(request, "data", -1)))
        self.asked.append(f"select {kind}")
        self.kind = self.kind if self.refuses else kind
        response.success = not self.refuses
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.paused, response.success = request.data, True
        self.asked.append("pause" if request.data else "unpause")
        return response

    def _trigger(self, paused: bool) -> Callable[..., Trigger.Response]:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            self.paused, response.success = paused, True
            self.asked.append("pause" if paused else "unpause")
            return response

        return answer

    def _on_twist(self, m: TwistStamped) -> None:
        age = self.get_clock().now().nanoseconds - to_ns(m.header.stamp)
        linear, angular = m.twist.linear, m.twist.angular
        twist = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        usable = self.kind == COMMAND_TYPES["twist"] and follows(
            m.header.frame_id, age, self.paused
        )
        self.moving = twist if usable else None

    def _cycle(self) -> None:
        if self.paused:
            return
        message = self._status.msg_type()
        code = reported(self.dialect, self.code, any(self.moving or ()))
        if hasattr(message, "code"):
            message.code = code
        else:
            message.data = code
        self._status.publish(message)


class Bench:
    """The nodes under test, an arbiter's voice and an ear for everything, in one executor."""

    def __init__(self) -> None:
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Node] = []
        self.node = self.add(Node("bench"))
        self.seen: dict[str, list[Any]] = {}
        self.control = self.node.create_publisher(ControlState, "control_state", LATCHED)
        self.command = self.node.create_publisher(TwistStamped, "command", RELIABLE_1)
        self.joints = self.node.create_publisher(Float64MultiArray, "joint_command", RELIABLE_1)
        self.pose = self.node.create_publisher(PoseStamped, "ee_pose", RELIABLE)
        self.lives = True  # the arbiter whose voice this is
        self.life = self.node.create_publisher(Heartbeat, "arbiter_heartbeat", RELIABLE_1)
        self.instance = bytes(16)  # ... and its process
        self.node.create_timer(0.05, self._beat)
        self.listen(PolicyHold, "policy_hold", LATCHED)
        self.listen(DiagnosticArray, "/diagnostics", RELIABLE)
        self.listen(TwistStamped, "servo_command", RELIABLE_1)

    def _beat(self) -> None:
        if self.lives:
            self.life.publish(Heartbeat(instance_id=list(self.instance)))

    def listen(self, kind: type, topic: str, qos: Any) -> list[Any]:
        received = self.seen.setdefault(topic, [])
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def remove(self, node: Node) -> None:
        self.executor.remove_node(node)
        self.nodes.remove(node)
        node.destroy_node()

    def say(self, state: int) -> None:
        self.control.publish(ControlState(state=state))

    @property
    def hold(self) -> str | None:
        return self.seen["policy_hold"][-1].reason if self.seen["policy_hold"] else None

    def diagnostics(self, name: str) -> Any:
        """The newest status whose name ends so."""
        arrays = reversed(self.seen["/diagnostics"])
        return next((s for a in arrays for s in a.status if s.name.endswith(name)), None)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
        """Spin until the condition holds; fails at the deadline."""
        return wait_until(
            condition,
            lambda: f"{what}; hold: {self.hold!r}",
            seconds,
            lambda: self.executor.spin_once(0.05),
        )

    def call(self, kind: type, service: str, request: Any = None, seconds: float = 15.0) -> Any:
        client = self.node.create_client(kind, service)
        try:
            self.until(client.service_is_ready, f"service {service}")
            call = client.call_async(kind.Request() if request is None else request)
            self.until(call.done, f"answer of {service}", seconds)
            return call.result()
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def patient() -> dict[str, float]:
    """Time-outs of the nodes under test that a loaded machine does not reach; s."""
    return {"arbiter_timeout": 10.0, "status_timeout": 5.0}


@pytest.fixture
def stand_in_servo() -> type[StandInServo]:
    return StandInServo


@pytest.fixture
def interfaces_of() -> Callable[..., ServoInterfaces]:
    return make_servo_interfaces


@pytest.fixture
def planning_types() -> PlanningInterfaces:
    return make_planning_types()


@pytest.fixture
def scene_types() -> SceneInterfaces:
    return make_scene_types()


@pytest.fixture
def stand_in_move_group() -> type[StandInMoveGroup]:
    return StandInMoveGroup
