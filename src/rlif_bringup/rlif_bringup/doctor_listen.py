# SPDX-License-Identifier: Apache-2.0
"""Listens to a live graph for some seconds; sets nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rlif_node.pose_source import subscribe_pose
from rlif_node.qos import LATCHED, SENSOR_100
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
from rlif_bringup.graph_client import GraphClient, GraphError
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

NODES = (*NEEDED, "recorder", "learner", "watchdog", "servo_adapter")
DISCOVERY = 5.0  # s of wall time that finding the graph may take
ANSWER = 4.0  # s of wall time until a node has answered, asked twice
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
    """What a client of the graph receives, and the parameters that its nodes answer."""

    def __init__(self, client: GraphClient) -> None:
        self._client, self._node = client, client.node
        self._last: dict[str, Any] = {}
        self._times: dict[str, list[float]] = {}
        self._ages: dict[str, list[float]] = {"observation": [], "ee_pose": []}
        self._frames: set[str] = set()
        self._moves = False
        self._updates: list[int] = []
        self._diagnostics: dict[str, Diagnostic] = {}
        self._subscribe()

    def _subscribe(self) -> None:
        kinds: Sequence[tuple[type, str, QoSProfile]] = (
            (Observation, "observation", SENSOR_100),
            (PolicyAction, "policy_action", SENSOR_100),
            (TwistStamped, "command", SENSOR_100),
            (PoseStamped, "ee_pose", SENSOR_100),
            (ControlState, "control_state", LATCHED),
            (PolicyWeights, "weights", LATCHED),
            (LearnerStatus, "learner_status", LATCHED),
            (Bool, "stop", LATCHED),
            (PolicyHold, "policy_hold", LATCHED),
            (Heartbeat, "arbiter_heartbeat", SENSOR_100),
            (Float64MultiArray, "joint_command", SENSOR_100),
            (JointTrajectory, "joint_trajectory", SENSOR_100),
        )
        for kind, topic, qos in kinds:
            self._node.create_subscription(kind, topic, self._hears(topic), qos)
        self._node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, SENSOR_100
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
            values = {pair.key: pair.value for pair in s.values}
            self._diagnostics[s.name] = Diagnostic(s.name, s.level[0], s.message, values)

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
            self._client.spin(CLOCK, lambda: self._node.get_clock().now().nanoseconds > 0)
        self._pose_from_tf(parameters.get("arbiter", {}).get("ee_pose.tf") or ())
        self._forget()
        self._client.spin(seconds)
        watching = {self._node.get_name(), "watchdog"}
        if not parameters.get("servo_adapter", {}).get("relay"):
            watching.add("servo_adapter")
        received = {topic: self._traffic(topic, watching) for topic in self._times}
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
            command=received[output],
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
            subscribe_pose(self._node, frames, lambda m: receive(m, NOW), SENSOR_100)

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

    def _traffic(self, topic: str, watching: set[str]) -> Traffic:
        """watching: nodes that subscribe to commands and move nothing."""
        times = self._times[topic]
        name = self._node.resolve_topic_name(topic)
        infos = self._node.get_subscriptions_info_by_topic(name)
        return Traffic(
            name=name,
            count=len(times),
            span=times[-1] - times[0] if times else 0.0,
            publishers=self._node.count_publishers(name),
            subscribers=sum(info.node_name not in watching for info in infos),
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

    def _servo_parameters(self, servo: str) -> dict[str, dict[str, Any]]:
        """Of Servo, and of the controller that it sends to; those that do not answer are left out."""
        found = {SERVO: self._parameters(servo)}
        topic = str(found[SERVO].get("moveit_servo.command_out_topic") or "")
        controller = topic.rpartition("/")[0]
        if controller:
            found[CONTROLLER] = self._parameters(controller)
        return {name: values for name, values in found.items() if values}

    def _all_parameters(self) -> dict[str, dict[str, Any]]:
        """By node; those that do not answer are left out."""
        client = self._client
        client.spin(DISCOVERY, lambda: all(client.is_there(node) for node in NEEDED))
        return {
            node: found
            for node in NODES
            if client.is_there(node) and (found := self._parameters(node))
        }

    def _parameters(self, node: str) -> dict[str, Any]:
        """Empty: the node does not answer."""
        try:
            return self._client.parameters(node)
        except GraphError:
            return {}


def _pose(m: PoseStamped) -> tuple[tuple[float, ...], str]:
    p = m.pose.position
    return (p.x, p.y, p.z), m.header.frame_id


def _image_problems(m: Observation) -> tuple[str, ...]:
    found = (image_problem(i.width, i.height, i.encoding, i.data) for i in m.images)
    return tuple(f"image {n}: {problem}" for n, problem in enumerate(found) if problem)
