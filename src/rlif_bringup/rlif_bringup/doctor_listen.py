# SPDX-License-Identifier: Apache-2.0
"""Listens to a live graph for some seconds: a node that only reads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rlif_node.pose_source import subscribe_pose
from rlif_node.stamps import to_ns
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from rlif_bringup.doctor_checks import NEEDED
from rlif_bringup.doctor_snapshot import (
    CONTROLLER,
    SERVO,
    Diagnostic,
    Snapshot,
    Traffic,
    image_problem,
)
from rlif_bringup.image_transport import ImageSender, raw_cameras, segment_of
from rlif_msgs.msg import (
    ControlState,
    Heartbeat,
    LearnerStatus,
    Observation,
    PolicyAction,
    PolicyHold,
    PolicyWeights,
)

EITHER = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NODES = (*NEEDED, "recorder", "learner", "watchdog", "servo_adapter")
SERVO_PARAMETERS = (
    "update_period", "planning_group_name", "moveit_servo.publish_joint_velocities",
    "moveit_servo.command_out_topic", "moveit_servo.max_expected_latency",
    "moveit_servo.monitored_planning_scene_topic", "moveit_servo.is_primary_planning_scene_monitor",
)  # fmt: skip
CONTROLLER_PARAMETERS = ("allow_nonzero_velocity_at_trajectory_end",)
DISCOVERY = 5.0  # s of wall time that finding the graph may take
ANSWER = 2.0  # s of wall time until a node has answered
# The topic of each of the arbiter's outputs.
OUTPUTS = {
    "twist": "command",
    "joint_velocity": "joint_command",
    "joint_trajectory": "joint_trajectory",
}
NOW = {"received_timestamp": 0}  # of what no subscription handed over
CLOCK = 2.0  # s of wall time until /clock must have been received


def remaps(directory: Path, robot: str) -> dict[str, str]:
    """The `set_remap` entries of a robot configuration's topics.launch.yaml: our name to the robot's.

    Raises FileNotFoundError, naming the robot configurations that are there.
    """
    path = directory / robot / "topics.launch.yaml"
    if not path.is_file():
        known = sorted(p.parent.name for p in directory.glob("*/topics.launch.yaml"))
        raise FileNotFoundError(
            f"no robot configuration {robot!r} in {directory}; there are: {', '.join(known) or 'none'}"
        )
    entries = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("launch", [])
    found = (e["set_remap"] for e in entries if "set_remap" in e)
    return {e["from"]: e["to"] for e in found}


class Listener:
    """A context manager around a node and what it has received."""

    def __init__(self, namespace: str, domain_id: int | None, names: Mapping[str, str]) -> None:
        self._namespace = "/" + namespace.strip("/")
        self._context = Context()
        rclpy.init(
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        arguments = ["--ros-args"]
        for ours, theirs in names.items():
            arguments += ["-r", f"{ours}:={theirs}"]
        self._node = rclpy.create_node(
            "rlif_doctor", namespace=self._namespace, context=self._context, cli_args=arguments
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._last: dict[str, Any] = {}
        self._times: dict[str, list[float]] = {}
        self._ages: dict[str, list[float]] = {"observation": [], "ee_pose": []}
        self._frames: set[str] = set()
        self._moves = False
        self._updates: list[int] = []
        self._diagnostics: dict[str, Diagnostic] = {}
        self._subscribe()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _subscribe(self) -> None:
        kinds: Sequence[tuple[type, str, QoSProfile]] = (
            (Observation, "observation", EITHER),
            (PolicyAction, "policy_action", EITHER),
            (TwistStamped, "command", EITHER),
            (PoseStamped, "ee_pose", EITHER),
            (ControlState, "control_state", LATCHED),
            (PolicyWeights, "weights", LATCHED),
            (LearnerStatus, "learner_status", LATCHED),
            (Bool, "stop", LATCHED),
            (PolicyHold, "policy_hold", LATCHED),
            (Heartbeat, "arbiter_heartbeat", EITHER),
            (Float64MultiArray, "joint_command", EITHER),
            (JointTrajectory, "joint_trajectory", EITHER),
        )
        for kind, topic, qos in kinds:
            self._node.create_subscription(kind, topic, self._hears(topic), qos)
        self._node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, EITHER
        )

    def _hears(self, topic: str) -> Callable[..., None]:
        times = self._times.setdefault(topic, [])

        def receive(message: Any, info: Mapping[str, Any]) -> None:
            if topic == "policy_hold" and not message.source.endswith("/servo_adapter"):
                return  # the watchdog reports a pause in its diagnostics too
            times.append(time.monotonic())
            self._last[topic] = message
            if topic in self._ages:
                # Not the time of this call: it is late on a loaded machine, and no fault of a clock.
                received = info["received_timestamp"] or self._node.get_clock().now().nanoseconds
                self._ages[topic].append((received - to_ns(message.header.stamp)) * 1e-9)
            elif topic == "learner_status":
                self._updates.append(message.updates)
            elif topic == "command":
                self._frames.add(message.header.frame_id)
                parts = (message.twist.linear, message.twist.angular)
                self._moves |= any(v for p in parts for v in (p.x, p.y, p.z))
            elif topic == "joint_command":
                self._moves |= any(message.data)

        return receive

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for s in message.status:
            level = s.level[0] if isinstance(s.level, bytes) else int(s.level)
            values = {pair.key: pair.value for pair in s.values}
            self._diagnostics[s.name] = Diagnostic(s.name, level, s.message, values)

    def _spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
            if until():
                return True
        return until()

    # ---- what was seen

    def listen(self, seconds: float, moveit: bool = False, servo: str = "") -> Snapshot:
        """Ask the nodes for their parameters, then listen for `seconds`.

        moveit: the robot configuration is one with MoveIt; servo: full name of its servo_node
        """
        # In this order: asking takes as long as DDS discovery needs, and says whose clock
        # the graph goes by.
        parameters = self._all_parameters()
        if servo:
            parameters |= self._servo_parameters(servo)
        simulated = any(p.get("use_sim_time") for p in parameters.values())
        if simulated:
            self._node.set_parameters([Parameter("use_sim_time", value=True)])
            self._spin(CLOCK, lambda: self._node.get_clock().now().nanoseconds > 0)
        self._pose_from_tf(parameters.get("arbiter", {}).get("ee_pose.tf") or ())
        self._forget()
        self._spin(seconds)
        received = {topic: self._traffic(topic) for topic in self._times}
        weights, pose = self._last.get("weights"), self._last.get("ee_pose")
        control, observation = self._last.get("control_state"), self._last.get("observation")
        action, hold, stop = (self._last.get(n) for n in ("policy_action", "policy_hold", "stop"))
        output = OUTPUTS.get(parameters.get("arbiter", {}).get("output", "twist"), "command")
        return Snapshot(
            seconds=seconds,
            moveit=moveit,
            parameters=parameters,
            observation=received["observation"],
            observation_age=self._age("observation"),
            state_size=len(observation.state) if observation else 0,
            images=tuple((i.width, i.height) for i in observation.images) if observation else (),
            image_problems=_image_problems(observation) if observation else (),
            policy_action=received["policy_action"],
            action_size=len(action.action) if action else 0,
            policy_version=action.policy_version if action else 0,
            weights=(weights.version, json.loads(weights.spec)) if weights else None,
            weights_age=self._since(weights) if weights else None,
            learned=max(self._updates) - min(self._updates) if self._updates else 0,
            command=self._without_adapter(received[output], parameters),
            command_publishers=self._publishers(received[output].name),
            command_frames=frozenset(self._frames),
            command_moves=self._moves,
            control=(control.state, control.reason) if control else None,
            stop=bool(stop and stop.data),
            hold=hold.reason if hold else None,
            holds=received["policy_hold"],
            alive=received["arbiter_heartbeat"],
            ee_pose=_pose(pose) if pose else None,
            pose=received["ee_pose"],
            pose_age=self._age("ee_pose"),
            diagnostics=tuple(self._diagnostics.values()),
            image_senders=tuple(self._image_senders(parameters.get("observer", {}))),
        )

    def _pose_from_tf(self, frames: Sequence[str]) -> None:
        if frames:
            receive = self._hears("ee_pose")
            subscribe_pose(self._node, frames, lambda m: receive(m, NOW), EITHER)

    def _image_senders(self, observer: Mapping[str, Any]) -> Iterator[ImageSender]:
        if not rclpy.get_rmw_implementation_identifier().startswith("rmw_fastrtps"):
            return
        everywhere = self._node.get_publishers_info_by_topic("/parameter_events")
        own = [i.endpoint_gid for i in everywhere if i.node_name == self._node.get_name()]
        for ours, size in raw_cameras(observer):
            topic = self._node.resolve_topic_name(ours)
            for info in self._node.get_publishers_info_by_topic(topic):
                segment = segment_of(info.endpoint_gid, own[0]) if own else None
                yield ImageSender(info.node_name, topic, size, segment)

    def _forget(self) -> None:
        """What came before: rates are measured after discovery."""
        for times in self._times.values():
            times.clear()
        for ages in self._ages.values():
            ages.clear()
        self._frames.clear()
        self._updates.clear()
        self._moves = False

    def _traffic(self, topic: str) -> Traffic:
        times = self._times[topic]
        name = self._node.resolve_topic_name(topic)
        return Traffic(
            name=name,
            count=len(times),
            span=times[-1] - times[0] if times else 0.0,
            publishers=self._node.count_publishers(name),
            subscribers=self._others(name),
        )

    def _age(self, topic: str) -> tuple[float, float] | None:
        ages = self._ages[topic]
        return (min(ages), max(ages)) if ages else None

    def _since(self, message: Any) -> float:
        """s since the stamp of a message."""
        now = self._node.get_clock().now().nanoseconds
        return (now - to_ns(message.header.stamp)) * 1e-9

    def _publishers(self, name: str) -> frozenset[str]:
        return frozenset(i.node_name for i in self._node.get_publishers_info_by_topic(name))

    def _others(self, name: str) -> int:
        """Subscribers that would move something: without this node and the watchdog."""
        ignored = (self._node.get_name(), "watchdog")
        infos = self._node.get_subscriptions_info_by_topic(name)
        return sum(info.node_name not in ignored for info in infos)

    def _without_adapter(self, traffic: Traffic, parameters: dict[str, dict[str, Any]]) -> Traffic:
        """servo_adapter listens to commands too; unless it relays them, it moves nothing."""
        if parameters.get("servo_adapter", {}).get("relay"):
            return traffic
        infos = self._node.get_subscriptions_info_by_topic(traffic.name)
        watching = sum(info.node_name == "servo_adapter" for info in infos)
        return replace(traffic, subscribers=traffic.subscribers - watching)

    def _servo_parameters(self, servo: str) -> dict[str, dict[str, Any]]:
        """Of Servo, and of the controller that it sends to; those that do not answer are left out."""
        found = {SERVO: self._chosen_parameters(servo, SERVO_PARAMETERS)}
        topic = str(found[SERVO].get("moveit_servo.command_out_topic") or "")
        controller = topic.rpartition("/")[0]
        if controller:
            found[CONTROLLER] = self._chosen_parameters(controller, CONTROLLER_PARAMETERS)
        return {name: values for name, values in found.items() if values}

    def _chosen_parameters(self, node: str, names: Sequence[str]) -> dict[str, Any]:
        """Of any node, by its full name: those of `names` that it has."""
        client = AsyncParameterClient(self._node, node)
        found: dict[str, Any] = {}
        if not self._spin(ANSWER, client.services_are_ready):
            return found
        for name in names:
            call = client.get_parameters([name])
            if not self._spin(ANSWER, call.done):
                break
            for value in call.result().values:
                found[name] = _plain(parameter_value_to_python(value))
        return found

    def _all_parameters(self) -> dict[str, dict[str, Any]]:
        """By node; those that do not answer are left out."""
        prefix = self._namespace.rstrip("/")
        clients = {n: AsyncParameterClient(self._node, f"{prefix}/{n}") for n in NODES}
        self._spin(DISCOVERY, lambda: all(clients[n].services_are_ready() for n in NEEDED))
        # Twice: a service can be seen before its answers find the way back.
        found = {
            n: self._parameters(c) or self._parameters(c)
            for n, c in clients.items()
            if c.services_are_ready()
        }
        return {n: values for n, values in found.items() if values is not None}

    def _parameters(self, client: AsyncParameterClient) -> dict[str, Any] | None:
        """By name; None: it does not answer."""
        listing = client.list_parameters([], 0)
        if not self._spin(ANSWER, listing.done):
            return None
        found: dict[str, Any] = {}
        for name in listing.result().result.names:
            # One by one: rclpy's answer stops at a parameter that is declared without a value.
            call = client.get_parameters([name])
            if not self._spin(ANSWER, call.done):
                return None
            for value in call.result().values:
                found[name] = _plain(parameter_value_to_python(value))
        return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else list(value)


def _pose(m: PoseStamped) -> tuple[tuple[float, ...], str]:
    p = m.pose.position
    return (p.x, p.y, p.z), m.header.frame_id


def _image_problems(m: Observation) -> tuple[str, ...]:
    found = (image_problem(i.width, i.height, i.encoding, i.data) for i in m.images)
    return tuple(f"image {n}: {problem}" for n, problem in enumerate(found) if problem)
