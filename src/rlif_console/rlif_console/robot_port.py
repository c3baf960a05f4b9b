# SPDX-License-Identifier: Apache-2.0
"""One robot's graph as ROS sees it: its topics into a RobotStatus, a page's wishes out to it.

Callbacks of rclpy run in the executor's thread, the rest in the web server's event loop. What crosses
over goes through `call`, which runs a function in the event loop.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.task import Future
from rlif_node.pose_source import TF, PoseFromTf
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_100, SENSOR, SENSOR_100
from sensor_msgs.msg import CompressedImage, Image, Joy
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from rlif_msgs.msg import (
    ControlState,
    CriticValue,
    Decision,
    Episode,
    LearnerStatus,
    Observation,
    SuccessConfidence,
)
from rlif_policy.image_encodings import DEPTHS, RawImage
from rlif_policy.images import CameraSpec, PackedImage, to_rgb

from .commands import NEWEST
from .hub import Done
from .inputs import REST
from .pictures import Pictures
from .status import RobotStatus

ANSWER = 5.0  # s until a node must have answered
ERROR = 2  # of diagnostic_msgs/DiagnosticStatus
CHECK = 60.0  # s until the doctor must have ended
POSE_PERIOD = 0.05  # s between two poses that are taken
SERVICES = {
    "start": "start_episode",
    "success": "end_episode_success",
    "failure": "end_episode_failure",
    "discard": "discard_episode",
    "save": "save_checkpoint",
}
EPISODE_FIELDS = ("id", "phase", "outcome", "reason", "max_steps", "steps", "interventions",
                  "operator_steps", "evaluation")  # fmt: skip
LEARNER_FIELDS = ("steps", "updates", "critic_steps_per_s", "updates_per_step", "caught_up", "backlog",
                  "lost_steps", "policy_version", "message")  # fmt: skip
# What pages show of the nodes' parameters.
SETTINGS = {
    "arbiter": ("speed_scale", "workspace_min", "workspace_max", "axes", "linear_scale", "devices", "console"),
    "episode": ("evaluation", "auto_start", "max_steps"),
    "observer": ("cameras", "images", TF.name),
    "recorder": ("bag_directory",),
    "learner": ("run_directory", "label_scheme"),
}  # fmt: skip
Call = Callable[[Callable[[], None]], None]


class RobotPort:
    """Subscriptions, publishers and clients of one namespace.

    Args:
        namespace: as `/left`; empty: that of the root.
        call: runs a function in the event loop; later, and from any thread.
        later: runs a function in the event loop after so many seconds.
        doctor: options of `rlif doctor`, for the checks.
        operate: False: publishes no device; a stop only disarms.
    """

    def __init__(
        self,
        node: Node,
        namespace: str,
        status: RobotStatus,
        pictures: Pictures,
        call: Call,
        later: Callable[[float, Callable[[], None]], None],
        doctor: Sequence[str] = (),
        operate: bool = True,
    ) -> None:
        self._node, self._namespace, self._doctor = node, namespace, tuple(doctor)
        self._status, self._pictures, self._call, self._later = status, pictures, call, later
        self._pose_taken: dict[str, float] = {}
        self._tf: PoseFromTf | None = None
        self._wanted: frozenset[str] = frozenset()
        self._streams: dict[str, Subscription] = {}
        joy = self._name("console/joy")
        self._joy = node.create_publisher(Joy, joy, RELIABLE) if operate else None
        self._note = node.create_publisher(String, self._name("note"), RELIABLE)
        self._arm = node.create_client(SetBool, self._name("arm"))
        self._triggers = {
            name: node.create_client(Trigger, self._name(service))
            for name, service in SERVICES.items()
        }
        self._parameters = {
            name: AsyncParameterClient(node, self._name(name)) for name in (*SETTINGS, "policy")
        }
        self._subscribe()

    def _name(self, name: str) -> str:
        return f"{self._namespace}/{name}"

    def _subscribe(self) -> None:
        make = self._node.create_subscription
        make(ControlState, self._name("control_state"), self._on_control, LATCHED)
        make(Episode, self._name("episode"), self._on_episode, LATCHED_10)
        make(Decision, self._name("decision"), self._on_decision, RELIABLE_100)
        make(CriticValue, self._name("critic_value"), self._on_value, RELIABLE_100)
        make(SuccessConfidence, self._name("success_confidence"), self._on_confidence, RELIABLE)
        make(LearnerStatus, self._name("learner_status"), self._on_learner, LATCHED)
        make(String, self._name("guide"), self._on_guide, LATCHED)
        # Not unpacked before somebody looks: images make it large.
        make(Observation, self._name("observation"), self._on_observation, SENSOR, raw=True)
        for topic in ("ee_pose", "object_pose"):
            make(PoseStamped, self._name(topic), partial(self._on_pose, topic), SENSOR)
        make(DiagnosticArray, "/diagnostics", self._on_diagnostics, SENSOR_100)

    # ---- from the graph

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        now = time.monotonic()
        self._call(lambda: function(*arguments, now))

    def _on_control(self, m: ControlState) -> None:
        self._tell(self._status.on_control, m.state, m.reason, m.device)

    def _on_episode(self, m: Episode) -> None:
        self._tell(self._status.on_episode, {name: getattr(m, name) for name in EPISODE_FIELDS})

    def _on_decision(self, m: Decision) -> None:
        action = list(m.executed_action)
        limits = ", ".join(m.limits)
        self._tell(self._status.on_decision, m.source, m.step_index, action, limits)
        if m.onset:
            self._tell(self._status.on_take_over, m.intervention_id, m.step_index)

    def _on_value(self, m: CriticValue) -> None:
        self._tell(self._status.on_value, m.value)

    def _on_confidence(self, m: SuccessConfidence) -> None:
        self._tell(self._status.on_confidence, m.confidence, m.threshold, m.off)

    def _on_learner(self, m: LearnerStatus) -> None:
        fields = {name: getattr(m, name) for name in LEARNER_FIELDS}
        metrics = dict(zip(m.metric_names, m.metric_values, strict=False))
        self._tell(self._status.on_learner, fields, metrics)

    def _on_guide(self, m: String) -> None:
        def show() -> None:
            self._status.guide = m.data[:500]

        self._call(show)

    def _on_observation(self, serialized: bytes) -> None:
        self._tell(self._take_observation, serialized)

    def _take_observation(self, serialized: bytes, now: float) -> None:
        self._status.on_observation(now)
        unpacked: list[Observation] = []

        def pixels(index: int) -> NDArray[np.uint8]:
            if not unpacked:
                unpacked.append(deserialize_message(serialized, Observation))
            image = unpacked[0].images[index]
            return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)

        for index, camera in enumerate(self._status.cameras):
            self._pictures.put(f"observation/{camera}", partial(pixels, index), now)

    def _on_pose(self, topic: str, m: PoseStamped) -> None:
        now = time.monotonic()
        if now - self._pose_taken.get(topic, 0.0) < POSE_PERIOD:
            return
        self._pose_taken[topic] = now
        p = m.pose.position
        self._call(lambda: self._status.on_pose(topic, (p.x, p.y, p.z)))

    def _on_diagnostics(self, m: DiagnosticArray) -> None:
        prefix = f"{self._namespace.lstrip('/')}/" if self._namespace else ""
        for s in m.status:
            level = s.level[0] if isinstance(s.level, bytes) else int(s.level)
            if s.name.startswith(prefix):
                name = s.name.removeprefix(prefix)
                self._tell(self._status.on_diagnostic, name, level, s.message)

    # ---- pictures

    def look(self, names: frozenset[str]) -> None:
        """Which pictures are looked at; `update` subscribes to their topics."""
        self._wanted = names

    def update(self) -> None:
        """In the executor's thread, a few times a second."""
        cameras = [f"camera/{name}" for name in self._status.cameras]
        topics = {name: self._name(f"{name}/image") for name in cameras}
        topics = {name: topic for name, topic in topics.items() if self._publishers(topic)}
        self._call(partial(setattr, self._status, "streams", tuple(topics)))
        consoles = self._node.count_publishers(self._name("console/joy"))
        self._call(partial(setattr, self._status, "consoles", consoles))
        wanted = {name: topic for name, topic in topics.items() if name in self._wanted}
        for name in set(self._streams) - set(wanted):
            self._node.destroy_subscription(self._streams.pop(name))
        for name in set(wanted) - set(self._streams):
            topic, kind, take = wanted[name], Image, self._on_image
            if not self._node.count_publishers(topic):
                topic, kind, take = f"{topic}/compressed", CompressedImage, self._on_compressed
            self._streams[name] = self._node.create_subscription(
                kind, topic, partial(take, name), SENSOR
            )

    def _publishers(self, topic: str) -> int:
        count = self._node.count_publishers
        return count(topic) + count(f"{topic}/compressed")

    def _on_image(self, name: str, m: Image) -> None:
        data = np.frombuffer(m.data, np.uint8)
        raw = RawImage(m.width, m.height, m.encoding, m.step, data, bool(m.is_bigendian))
        self._tell(self._pictures.put, name, partial(self._decode, name, lambda: raw))

    def _on_compressed(self, name: str, m: CompressedImage) -> None:
        data = np.frombuffer(m.data, np.uint8)
        self._tell(
            self._pictures.put,
            name,
            partial(self._decode, name, lambda: PackedImage.of(m.format, data)),
        )

    def _decode(self, name: str, read: Callable[[], RawImage | PackedImage]) -> NDArray[np.uint8]:
        """Pixels as they come; of a depth camera the nearest 2 m. A ValueError is shown on the page too."""
        try:
            image = read()
            depth = (0.0, 2.0) if getattr(image, "encoding", "") in DEPTHS else ()
            size = (image.width, image.height)
            return to_rgb(image, CameraSpec(name, *size, *size, depth_range=depth))
        except ValueError as problem:
            self._tell(self._status.on_diagnostic, f"console: {name}", ERROR, str(problem))
            raise

    # ---- settings

    def ask_settings(self) -> None:
        """Ask the nodes for their parameters, one by one: rclpy's answer stops at one without a value."""
        for node, names in SETTINGS.items():
            client = self._parameters[node]
            if not client.services_are_ready():
                continue
            for name in names:
                future = client.get_parameters([name])
                future.add_done_callback(partial(self._on_setting, node, name))

    def _on_setting(self, node: str, name: str, future: Future) -> None:
        values = future.result().values if future.exception() is None else ()
        if values:
            value = parameter_value_to_python(values[0])
            plain = (
                value
                if value is None or isinstance(value, (bool, int, float, str))
                else list(value)
            )
            self._call(lambda: self._take_setting(node, name, plain))
            if name == TF.name and isinstance(plain, list) and plain and self._tf is None:
                self._listen_to_tf(plain)

    def _listen_to_tf(self, frames: Sequence[str]) -> None:
        """Take the pose from where the observer takes it."""
        receive = partial(self._on_pose, "ee_pose")
        try:
            self._tf = PoseFromTf(self._node, frames, receive, POSE_PERIOD)
        except ValueError as problem:  # the page works without; tried again with the next answer
            self._tell(self._status.on_diagnostic, "console: ee_pose", ERROR, str(problem))

    def _take_setting(self, node: str, name: str, value: Any) -> None:
        self._status.settings[name] = value
        if name == "cameras":
            self._status.cameras = tuple(value or ())
        elif name == "run_directory" and value:
            folders = Path(value).expanduser().glob("checkpoints/*/manifest.json")
            self._status.settings["checkpoints"] = sorted(f.parent.name for f in folders)
        elif name == "bag_directory" and value and Path(value).expanduser().exists():
            free = shutil.disk_usage(Path(value).expanduser()).free
            self._status.settings["free_gb"] = round(free / 1e9, 1)

    # ---- to the graph

    def drive(self, held: bool, axes: Sequence[float], gripper: int, stop: bool = False) -> None:
        """A message of the operator device. Buttons: deadman, stop, gripper open, gripper close."""
        if self._joy is None:
            return
        message = Joy(axes=[float(v) for v in axes])
        message.buttons = [int(held), int(stop), int(gripper > 0), int(gripper < 0)]
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._joy.publish(message)

    def command(self, name: str, value: Any, done: Done) -> None:
        """Carry out a command of a page; `done` gets the answer once."""
        if name == "stop":
            # A press is an edge: up, down, up. Disarming besides reaches an arbiter without our device.
            for pressed in (False, True, False):
                self.drive(False, REST, 0, stop=pressed)
            self._ask(self._arm, SetBool.Request(data=False), done)
        elif name in ("arm", "disarm"):
            self._ask(self._arm, SetBool.Request(data=name == "arm"), done)
        elif name in SERVICES:
            self._ask(self._triggers[name], Trigger.Request(), done)
        elif name == "speed":
            self._set("arbiter", {"speed_scale": value}, done)
        elif name == "evaluation":
            self._set("episode", {"evaluation": value}, done)
            self._set("policy", {"deterministic": value}, lambda ok, words: None)
        elif name == "check":
            threading.Thread(target=self._check, args=(done,), name="doctor", daemon=True).start()
        elif name == "checkpoint":
            self._act_from(value, done)
        elif name == "note":
            self._note.publish(String(data=value))
            done(True, "noted")
        else:
            done(False, f"the console cannot do {name}")

    def _act_from(self, name: str, done: Done) -> None:
        """The policy's weights: of a checkpoint of this run, or the learner's newest."""
        control, run = self._status.control, self._status.settings.get("run_directory")
        if control is None or control["state"] not in ("DISARMED", "FAULT"):
            # The arbiter takes weights that go back for a policy that was restarted, and faults.
            done(False, "disarm first: other weights mean another policy")
        elif name == NEWEST:
            self._set("policy", {"learn": True}, done)
        elif not run:
            done(False, "the learner keeps no checkpoints: set run_directory")
        else:
            path = str(Path(run) / "checkpoints" / name)
            self._set("policy", {"learn": False, "checkpoint": path}, done)

    def _check(self, done: Done) -> None:
        """Run the doctor, a process of its own: it listens for some seconds, and is in rlif_bringup."""
        graph = ("--namespace", self._namespace or "none", *self._doctor)
        command = ["rlif", "doctor", "--json", "--seconds", "3", *graph]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=CHECK, check=False
            )
            found = json.loads(ran.stdout)
        except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
            done(False, f"rlif doctor gave no answer: {error}")
            return
        self._call(partial(setattr, self._status, "checks", found))
        bad = sum(finding["verdict"] == "FAIL" for finding in found)
        done(not bad, f"{bad} to mend" if bad else "all is well")

    def _ask(self, client: Any, request: Any, done: Done) -> None:
        if not client.service_is_ready():
            done(False, f"the service {client.srv_name} is not there")
            return
        future = client.call_async(request)

        def give_up() -> None:
            if not future.done():
                client.remove_pending_request(future)
                done(False, f"no answer of {client.srv_name} within {ANSWER:.0f} s")

        def answered(f: Future) -> None:
            if f.exception() is None and f.result() is not None:
                done(bool(f.result().success), f.result().message or "done")

        future.add_done_callback(answered)
        self._later(ANSWER, give_up)

    def _set(self, node: str, values: Mapping[str, Any], done: Done) -> None:
        client = self._parameters[node]
        if not client.services_are_ready():
            done(False, f"the node {self._name(node)} is not there")
            return
        future = client.set_parameters_atomically(
            [Parameter(n, value=v) for n, v in values.items()]
        )

        def give_up() -> None:
            if not future.done():
                done(False, f"no answer of {self._name(node)} within {ANSWER:.0f} s")

        def answered(f: Future) -> None:
            if f.exception() is None and f.result() is not None:
                result = f.result().result
                shown = ", ".join(f"{name} is {value}" for name, value in values.items())
                done(result.successful, result.reason or shown)
                if result.successful:
                    self._call(lambda: self._status.settings.update(values))

        future.add_done_callback(answered)
        self._later(ANSWER, give_up)
