# SPDX-License-Identifier: Apache-2.0
"""Node `reset_by_planning`: brings the arm to its start between episodes, with MoveIt.

Subscribes
    control_state  rlif_msgs/ControlState  the arm is moved in HOLD only, and stopped when that ends
    arbiter_heartbeat  rlif_msgs/Heartbeat ... or when the arbiter dies
    stop           std_msgs/Bool           true: the arm is stopped, with or without an arbiter
                                           (latched); more of them by parameter
Services
    reset          std_srvs/Trigger        plans and moves; answers when the arm is there, or why not
    reset_by_hand  std_srvs/Trigger        a human has put the arm to its start
    reset_again    std_srvs/Trigger        a human has cleared the way: plan again
Calls
    pause_servo    std_srvs/SetBool        of servo_adapter: Servo is paused while the arm is planned
    move_action    moveit_msgs/action/MoveGroup  planner move_group
Publishes
    /diagnostics   diagnostic_msgs/DiagnosticArray  once a second: whether a human has to act
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_1, SENSOR
from rlif_node.running import run
from rlif_node.states import ControlState as State
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from rlif_intervention.arbitration import ARMED
from rlif_intervention.diagnostic_messages import diagnostic_array
from rlif_intervention.diagnostics import Level, Status
from rlif_msgs.msg import ControlState
from rlif_msgs.msg import Heartbeat as HeartbeatMessage

from .heartbeat import Heartbeat
from .move_group_planner import MoveGroupPlanner
from .moveit_py_planner import MoveItPyPlanner, worker_command
from .planning import PlanConfig, planning_interfaces
from .reset_goals import KINDS, goal_from
from .reset_procedure import Planner, ResetProcedure
from .waiting import within

PLANNERS = ("move_group", "moveit_py")
INSIST = 0.5  # s between two cancels of the same motion
BREATH = 1.0  # s between two attempts: what MoveIt missed of a controller is there by then
WATCH = 0.05  # s between two looks at whether the arm may still be moved
PARAMETERS = (
    Param("planner", "move_group", "move_group's action, or a process of moveit_py", choices=PLANNERS),
    Param("planning_group", "", "group of the SRDF that is moved"),
    Param("move_group_name", "/move_group", "node whose robot_description_semantic has the states"),
    # A parameter, because actions cannot be remapped.
    Param("action_name", "/move_action", "of move_group"),
    Param("moveit_py_parameters", [], "with moveit_py: parameter files of MoveIt", items=str),
    Param("goal", "named", "what the reset goes to", choices=KINDS),
    Param("goal_state", "", "goal named: a group state of the SRDF"),
    Param("goal_joints", [], "goal joints: names", items=str),
    Param("goal_positions", [], "goal joints: rad, one each"),
    Param("goal_joint_spread", [], "goal joints: rad, uniform up to that far; empty: none"),
    Param("goal_joint_tolerance", 0.001, "goal joints: rad", 1e-5, 0.1),
    Param("goal_link", "", "goal pose: link that is brought to the pose"),
    Param("goal_frame", "base", "goal pose: frame of the pose"),
    Param("goal_position", [0.0, 0.0, 0.0], "goal pose: m"),
    Param("goal_orientation", [0.0, 0.0, 0.0, 1.0], "goal pose: quaternion x, y, z, w"),
    Param("goal_position_spread", [0.0, 0.0, 0.0], "goal pose: m, uniform up to that far per axis"),
    Param("goal_angle_spread", 0.0, "goal pose: rad, a turn about a random axis", 0.0, 3.2),
    Param("goal_position_tolerance", 0.002, "goal pose: m", 1e-5, 0.1),
    Param("goal_angle_tolerance", 0.01, "goal pose: rad", 1e-4, 1.0),
    Param("attempts", 3, "plans until a human is asked", 1, 100),
    Param("planning_time", 5.0, "s that one plan may take", 0.1, 120.0),
    Param("velocity_scale", 0.1, "of the joints' velocity limits", 0.001, 1.0),
    Param("acceleration_scale", 0.1, "of the joints' acceleration limits", 0.001, 1.0),
    Param("pipeline", "", "planning pipeline, e.g. ompl; empty: MoveIt's default"),
    Param("planner_id", "", "planner of the pipeline; empty: its default"),
    Param("motion_timeout", 60.0, "s until a motion is given up and a human asked", 1.0, 600.0),
    Param("pause_timeout", 3.0, "s that pausing Servo may take", 0.1, 30.0),
    Param("use_servo", True, "pause Servo by `pause_servo` of servo_adapter; false: no Servo here"),
    Param("arbiter_timeout", 0.3, "s without a heartbeat of the arbiter until the arm stops", 0.1, 10.0),
    Param("stop_topics", ["stop"], "std_msgs/Bool; as the arbiter's", items=str),
    Param("require_hold", True, "move only while the arbiter is in HOLD; false: no arbiter here"),
    Param("seed", 0, "of the spread; 0: another one each time", 0, 2**31 - 1),
)  # fmt: skip


def plan_config(p: dict[str, Any]) -> PlanConfig:
    return PlanConfig(
        group=p["planning_group"],
        planning_time=p["planning_time"],
        velocity_scale=p["velocity_scale"],
        acceleration_scale=p["acceleration_scale"],
        pipeline=p["pipeline"],
        planner=p["planner_id"],
        motion_timeout=p["motion_timeout"],
    )


def make_planner(node: Node, p: dict[str, Any]) -> Any:
    """The planner that the parameters name. Raises ValueError, MissingInterfacesError."""
    config = plan_config(p)
    if p["planner"] == "move_group":
        names = (p["move_group_name"], p["action_name"])
        return MoveGroupPlanner(node, config, planning_interfaces(), *names)
    return MoveItPyPlanner(node, config, worker_command(config, p["moveit_py_parameters"]))


class ResetNode(Node):
    """Shell around `ResetProcedure`.

    planner: in place of MoveIt, for tests
    """

    def __init__(
        self,
        overrides: Sequence[Parameter] = (),
        planner: Callable[[Node, dict[str, Any]], Planner] = make_planner,
    ) -> None:
        super().__init__("reset_by_planning", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        goal = goal_from(p)
        self._planner = planner(self, p)
        self._state: State | None = None
        self._lost = (
            False  # the arbiter's heartbeat was: no armed state counts until one that is not
        )
        self._heartbeat = Heartbeat(p["arbiter_timeout"])
        self._stops: set[str] = set()  # topics on which a stop stands
        self._control_reason = self._published_reason = ""
        self._require_hold: bool = p["require_hold"]
        self._pause_timeout: float = p["pause_timeout"]
        self._pause = self.create_client(SetBool, "pause_servo") if p["use_servo"] else None
        self._core = ResetProcedure(
            planner=self._planner,
            pause=self._pause_servo,
            may_move=self._may_move,
            goal=goal,
            attempts=p["attempts"],
            breathe=lambda: within(self, Future(executor=self.executor), BREATH),
            rng=random.Random(p["seed"] or None),
            log=lambda message: self.get_logger().info(message),
        )
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED_10)
        self.create_subscription(
            HeartbeatMessage, "arbiter_heartbeat", self._on_heartbeat, RELIABLE_1
        )
        # Twice, as the arbiter does: what was latched, and publishers of any other quality of service.
        for topic, qos in product(p["stop_topics"], (LATCHED, SENSOR)):
            self.create_subscription(Bool, topic, partial(self._on_stop, topic), qos)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        group = ReentrantCallbackGroup()  # a reset waits; everything else goes on
        self.create_service(Trigger, "reset", self._on_reset, callback_group=group)
        self.create_service(Trigger, "reset_by_hand", self._on_by_hand)
        self.create_service(Trigger, "reset_again", self._on_again)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH, self._watch, clock=steady)
        self.create_timer(INSIST, self._core.insist, clock=steady)
        self.create_timer(1.0, self._report, clock=steady)

    # ---- the arbiter

    def _on_control(self, m: ControlState) -> None:
        """An armed state after a lost heartbeat may be the one of before: it needs a human."""
        state = State(m.state)
        self._lost = self._lost and state in ARMED
        self._state, self._control_reason = None if self._lost else state, m.reason
        self._watch()

    def _on_heartbeat(self, m: HeartbeatMessage) -> None:
        self._watch()  # first: this heartbeat may be another arbiter's
        if self._heartbeat.received(time.monotonic(), bytes(m.instance_id)):
            self._lost = False  # and its next message says its state

    def _on_stop(self, topic: str, m: Bool) -> None:
        """With several publishers a false releases nothing, as in the arbiter."""
        if m.data:
            self._stops.add(topic)
        elif self.count_publishers(self.resolve_topic_name(topic)) <= 1:
            self._stops.discard(topic)
        self._watch()

    def _watch(self) -> None:
        """Nothing but this stops a planned motion: not Servo's pause, not the arbiter's zeros."""
        silent = self._heartbeat.ever and self._heartbeat.problem(time.monotonic())
        # Only of an armed one: a new arbiter says DISARMED before its first heartbeat, and that counts.
        if silent and self._state in ARMED:
            self._state, self._lost = None, True  # its last state no longer holds
        problem = self._may_move()
        if problem:
            self._core.stop(problem)

    def _may_move(self) -> str:
        if self._stops:
            names = ", ".join(sorted(self._stops))
            return f"the stop signal on {names} is on: its only publisher must publish false when it is safe"
        if not self._require_hold:
            return ""
        dead = self._heartbeat.problem(time.monotonic())
        if dead:
            return dead
        if self._state is State.HOLD:
            return ""
        if self._state is None:
            lost = "its heartbeat was lost" if self._lost else "this node was started"
            return f"the arbiter has published no state that counts since {lost}: disarm and arm it"
        if self._state in (State.POLICY, State.OPERATOR):
            return f"{self._state.name} controls the arm: end the episode first"
        return f"the arbiter is in {self._state.name} ({self._control_reason}): arm first"

    # ---- Servo

    async def _pause_servo(self, on: bool) -> str:
        if self._pause is None:
            return ""
        if not self._pause.service_is_ready():
            return (
                "the service pause_servo is not there: start servo_adapter, or set use_servo false"
            )
        call = self._pause.call_async(SetBool.Request(data=on))
        if not await within(self, call, self._pause_timeout):
            return f"no answer from pause_servo within {self._pause_timeout} s"
        answer = call.result()
        return "" if answer.success else answer.message

    # ---- services

    async def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = await self._core.reset()
        if response.message != self._published_reason:  # the episode node asks again every second
            self._published_reason = response.message
            if response.success:
                self.get_logger().info(f"reset: {response.message}")
            else:
                self.get_logger().error(f"no reset: {response.message}")
        return response

    def _on_by_hand(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._core.by_hand()
        return response

    def _on_again(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._core.again()
        return response

    def _report(self) -> None:
        handed, problem = self._core.handed_over, self._planner.problem()
        if handed:
            status = Status("reset", Level.ERROR, f"a human has to act: {handed}")
        elif problem:
            status = Status("reset", Level.WARN, problem)
        else:
            message = "the arm is being reset" if self._core.moving else "ready"
            status = Status("reset", Level.OK, message)
        self._diagnostics.publish(diagnostic_array(self, [status]))

    def shut_down(self) -> None:
        """Stop a motion that is going on."""
        self._core.stop("the node reset_by_planning ends")
        close = getattr(self._planner, "close", None)
        if close is not None:
            close()


def main() -> int:
    """Console script `reset_by_planning`."""
    at_end = ResetNode.shut_down
    return run("reset_by_planning", ResetNode, at_end=at_end, events=False, shared_memory=False)
