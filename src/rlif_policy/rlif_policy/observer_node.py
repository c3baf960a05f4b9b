# SPDX-License-Identifier: Apache-2.0
"""Node `observer`: makes one Observation per control tick out of the newest sample of each source.

Subscribes, as far as the configured features and cameras need them
    joint_states           sensor_msgs/JointState         of one publisher or several, merged by name
    ee_pose                geometry_msgs/PoseStamped      end effector, base frame; with `ee_pose.tf`
                                                          from tf instead
    object_pose            geometry_msgs/PoseStamped      what is worked on, base frame
    wrench                 geometry_msgs/WrenchStamped    of the force-torque sensor
    episode                rlif_msgs/Episode              for the features …_from_start (latched)
    camera/NAME/image      sensor_msgs/Image              for each of `cameras`, if `images`
    camera/NAME/image/compressed  sensor_msgs/CompressedImage  instead, with `transport: compressed`
Publishes
    observation            rlif_msgs/Observation          once per tick; none if a source is missing
    observation_tick       rlif_msgs/ObservationTick      the same without state and images, or why
                                                          there is none
    /diagnostics           diagnostic_msgs/DiagnosticArray  1 Hz: each source, its age, what is wrong;
                           of a camera also its rate, and counts of images received, refused, missed

It ticks at `control_rate` on ROS time; in lock-step, when all sources have a sample of one stamp.
docs/cameras.md describes what a camera may send and which of its faults stop the observations.
"""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.endpoints import why_unmatched
from rlif_node.joints import JointError, JointMerger
from rlif_node.parameters import Param, declare
from rlif_node.pose_source import TF, PoseFromTf, subscribe_pose
from rlif_node.qos import LATCHED_10, RELIABLE, RELIABLE_100, SENSOR, SENSOR_100
from rlif_node.running import run
from rlif_node.stamps import to_msg, to_ns
from rlif_node.states import Phase
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from rlif_msgs.msg import Episode, Observation, ObservationTick
from rlif_policy.camera_checks import CameraFeed, CameraLimits, out_of_step
from rlif_policy.episode_start import EpisodeStart
from rlif_policy.features import FeatureError, Pose, PoseTrack, StateLayout, finite, unit_quaternion
from rlif_policy.images import CameraSpec, ImageError
from rlif_policy.observer_messages import (
    camera_values,
    diagnostic,
    image_message,
    read_packed,
    read_raw,
    read_wrench,
)
from rlif_policy.sampling import MISSED_TICK, LatestSamples, Problem, Ticks, merged, text

PARAMETERS = (
    Param("control_rate", 10.0, "Hz of observations", 0.1, 200.0),
    Param("base_frame", "base", "frame of the poses; others are refused"),
    TF,
    Param(
        "features",
        ["ee_position"],
        "features of the state, in this order; see rlif_policy/features.py",
    ),
    Param("joints", [], "names of the joints of joint_*, in this order", items=str),
    Param("images", False, "observations have the cameras' images"),
    Param("cameras", [], "names of the cameras, in this order", items=str),
    Param("image_width", 128, "width of the images in observations, pixels", 8, 4096),
    Param("image_height", 128, "height of the images in observations, pixels", 8, 4096),
    Param("max_age", 0.2, "largest age of a sample, s", 0.001, 10.0),
    Param("camera_max_age", 0.3, "largest age of an image, s", 0.001, 10.0),
    Param("max_camera_skew", 0.2, "largest time between the cameras' images, s; 0: any", 0.0, 10.0),
    Param("frozen_frames", 5, "number of equal images in a row that is a fault; 0: never", 0, 1000),
    Param("black_level", 8, "of 255; an image with all pixels below is black", 1, 255),
    Param("black_frames", 5, "number of black images in a row that is a fault; 0: never", 0, 1000),
    Param("lock_step", False, "one tick per set of samples of one stamp (simulation)"),
)


def camera_parameters(name: str) -> tuple[Param, ...]:
    """What is declared for each of `cameras`."""
    prefix = f"camera.{name}."
    return (
        Param(prefix + "width", 128, "width of the images that it sends, pixels", 8, 8192),
        Param(prefix + "height", 128, "height of the images that it sends, pixels", 8, 8192),
        Param(
            prefix + "transport", "raw", "Image or CompressedImage", choices=("raw", "compressed")
        ),
        Param(
            prefix + "roi",
            [],
            "region that is used: x, y, width, height, pixels; empty: all",
            items=int,
        ),
        Param(prefix + "depth_range", [], "nearest and farthest distance of a depth camera, m"),
    )


COMPRESSED = "/compressed"  # end of a topic of CompressedImage
DIAGNOSTICS_PERIOD = 1.0  # s of wall time
REMIND = 5.0  # s of wall time between two logs of the same problems
PATIENCE = 3.0  # s of wall time after the start without logs of missing sources: others start too


class ObserverNode(Node):
    """Shell around `LatestSamples`, `StateLayout` and a `CameraFeed` for each camera."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("observer", parameter_overrides=list(overrides))
        value = declare(self, PARAMETERS)
        self._frame: str = value["base_frame"]
        self._lock_step: bool = value["lock_step"]
        sim_time = bool(self.get_parameter("use_sim_time").value)
        self._layout = StateLayout(tuple(value["features"]), tuple(value["joints"]))
        # A rendered picture has no noise: while nothing moves, the next one is the same.
        simulated = sim_time or self._lock_step
        frozen = 0 if simulated else value["frozen_frames"]
        limits = CameraLimits(frozen, value["black_frames"], value["black_level"])
        self._cameras = self._declare_cameras(value, limits)  # by topic
        ages = dict.fromkeys(self._layout.sources, round(value["max_age"] * 1e9))
        ages |= dict.fromkeys(self._cameras, round(value["camera_max_age"] * 1e9))
        self._max_skew = round(value["max_camera_skew"] * 1e9)
        self._samples = LatestSamples(ages, steady=not sim_time)
        self._ticks = Ticks()
        self._headers: dict[str, Header] = {}  # of the newest image of each camera, by topic
        self._track = PoseTrack(round(1e9 / value["control_rate"]))
        self._start = EpisodeStart()
        self._joints = JointMerger(value["joints"])
        self._tf_frames: list[str] = value["ee_pose.tf"]
        self._tf: PoseFromTf | None = None
        if self._tf_frames and self._lock_step:
            raise ValueError(
                "ee_pose.tf: found frames, expected none: in lock-step poses are messages"
            )
        self._problems: list[Problem] = []
        self._passed: dict[str, Problem] = {}  # since the last diagnostics
        self._logged: set[str] = set()  # sources of the problems that were logged
        self._logged_at = 0.0
        self._patient_until = time.monotonic() + PATIENCE
        self._publisher = self.create_publisher(Observation, "observation", RELIABLE_100)
        self._tick_publisher = self.create_publisher(ObservationTick, "observation_tick", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._subscribe()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=steady)
        if not self._lock_step:
            self.create_timer(1.0 / value["control_rate"], self._tick)
        self.get_logger().info(
            f"state of {self._layout.state_dim}: {', '.join(self._layout.features)}; cameras: "
            f"{', '.join(camera.spec.name for camera in self._cameras.values()) or 'none'}"
        )

    def _declare_cameras(
        self, value: dict[str, Any], limits: CameraLimits
    ) -> dict[str, CameraFeed]:
        if not value["images"]:
            return {}
        cameras = {}
        for name in value["cameras"]:
            width, height, transport, roi, depth = declare(self, camera_parameters(name)).values()
            size = (value["image_width"], value["image_height"])
            spec = CameraSpec(name, width, height, *size, tuple(roi), tuple(depth))
            cameras[camera_topic(name, transport)] = CameraFeed(spec, limits)
        if not cameras:
            raise ValueError("cameras: found none, expected names, because images is true")
        return cameras

    def _subscribe(self) -> None:
        # Best effort accepts any publisher. In lock-step a lost sample would stop the world.
        qos = RELIABLE if self._lock_step else SENSOR
        receivers: dict[str, tuple[type, Callable[[Any], None]]] = {
            "joint_states": (JointState, self._on_joints),
            "ee_pose": (PoseStamped, self._receiver("ee_pose", self._read_end_effector)),
            "object_pose": (PoseStamped, self._receiver("object_pose", self._read_pose)),
            "wrench": (WrenchStamped, self._receiver("wrench", read_wrench)),
        }
        self._types: dict[str, type] = {}
        for source in self._layout.sources:
            self._types[source], receive = receivers[source]
            if source == "ee_pose":
                self._tf = subscribe_pose(self, self._tf_frames, receive, qos)
                continue
            shared = source == "joint_states" and not self._lock_step
            self.create_subscription(
                self._types[source], source, receive, SENSOR_100 if shared else qos
            )
        if self._layout.from_start:
            self.create_subscription(Episode, "episode", self._on_episode, LATCHED_10)
        for topic, camera in self._cameras.items():
            packed = topic.endswith(COMPRESSED)
            self._types[topic] = CompressedImage if packed else Image
            receive = self._receiver(topic, (read_packed if packed else read_raw)(camera.spec))
            self.create_subscription(self._types[topic], topic, receive, qos)

    def _receiver(self, source: str, read: Callable[[Any], Any]) -> Callable[[Any], None]:
        camera = self._cameras.get(source)

        def receive(message: Any) -> None:
            stamp, received = to_ns(message.header.stamp), time.monotonic_ns()
            try:
                value = read(message)
            except (FeatureError, ImageError) as problem:
                self._refuse(source, problem)
                if camera is not None:
                    camera.watch.refuse(stamp)
                return
            self._samples.put(source, value, stamp, received)
            if camera is not None:
                self._headers[source] = message.header
                camera.watch.arrived(stamp, received, value.data)
            self._tick_in_lock_step()

        return receive

    def _on_joints(self, message: JointState) -> None:
        stamp, received = to_ns(message.header.stamp), time.monotonic_ns()
        joints = self._joints
        try:
            if not joints.put(message.name, message.position, message.velocity, stamp, received):
                return
            merged = joints.merged()
        except JointError as problem:
            self._refuse("joint_states", problem)
            return
        part = f"joint {merged.oldest}" if merged.several else ""
        self._samples.put("joint_states", merged, merged.stamp, merged.received, part)
        self._tick_in_lock_step()

    def _on_episode(self, message: Episode) -> None:
        self._start.episode(message.id, Phase(message.phase), to_ns(message.header.stamp))

    def _tick_in_lock_step(self) -> None:
        if self._lock_step and self._ticks.due(self._samples.common_stamp()):
            self._tick()

    def _refuse(self, source: str, problem: Exception) -> None:
        """Good ones may follow before the next tick: the diagnostics name it all the same."""
        self._samples.refuse(source, str(problem))
        self._passed.setdefault(source, Problem(source, f"a message was refused: {problem}", 0))

    # ---- reading messages

    def _read_pose(self, message: PoseStamped) -> Pose:
        frame = message.header.frame_id
        if frame != self._frame:
            raise FeatureError(
                f"frame_id is {frame!r}, expected {self._frame!r} (base_frame): poses are not "
                "transformed here"
            )
        p, q = message.pose.position, message.pose.orientation
        return Pose(finite("position", p.x, p.y, p.z), unit_quaternion(q.x, q.y, q.z, q.w))

    def _read_end_effector(self, message: PoseStamped) -> Pose:
        pose = self._read_pose(message)
        stamp = to_ns(message.header.stamp) or self.get_clock().now().nanoseconds
        velocity = self._track.velocity(stamp, pose.position)
        return Pose(pose.position, pose.orientation, velocity)

    # ---- ticks

    def _tick(self) -> None:
        now = self.get_clock().now().nanoseconds
        tick = self._ticks.advance()
        self._convert_images()
        self._problems = self._current_problems(now, time.monotonic_ns())
        if not self._problems:
            try:
                self._publish(self._observation(tick, now))
            except (FeatureError, ImageError) as problem:
                self._problems = [Problem("state", str(problem))]
        if self._problems:
            self._publish_problems(tick, now)
            self._passed |= {
                p.source: Problem(p.source, f"{MISSED_TICK}: {p.reason}", 0) for p in self._problems
            }
        self._log(self._problems)

    def _publish_problems(self, tick: int, now: int) -> None:
        """For who waits for an observation: the arbiter names it as its reason to hold."""
        message = ObservationTick(tick=tick, tick_time=to_msg(now), problem=text(self._problems))
        message.header.stamp, message.header.frame_id = to_msg(now), self._frame
        self._tick_publisher.publish(message)

    def _publish(self, message: Observation) -> None:
        tick = ObservationTick(
            header=message.header, tick=message.tick, tick_time=message.tick_time
        )
        self._tick_publisher.publish(tick)
        self._publisher.publish(message)

    def _convert_images(self) -> None:
        """Convert the newest image of each camera, even while another source is missing: its faults count."""
        values = self._samples.values
        for topic, camera in self._cameras.items():
            if topic in values:
                camera.convert(values[topic])

    def _current_problems(self, now: int, steady_now: int) -> list[Problem]:
        if self._lock_step:
            found = self._samples.absent()
        elif now == 0:
            return [Problem("/clock", "nothing received yet, and use_sim_time is true")]
        else:
            found = self._samples.problems(now, steady_now)
        explained = [self._explain(problem) for problem in found]
        return merged(explained + self._camera_problems(now, steady_now))

    def _explain(self, problem: Problem) -> Problem:
        """Of a source that was never received, why: its publisher may be of another type."""
        if problem.age is not None or problem.source not in self._samples.never_received:
            return problem
        if problem.source == "ee_pose" and self._tf is not None:
            return Problem(problem.source, f"nothing received yet: {self._tf.problem}")
        kind = self._types[problem.source]
        reason = why_unmatched(self, problem.source, kind, reliable=self._lock_step)
        return Problem(problem.source, f"nothing received yet: {reason}") if reason else problem

    def _camera_problems(self, now: int, steady_now: int) -> list[Problem]:
        found = [
            Problem(topic, camera.watch.fault)
            for topic, camera in self._cameras.items()
            if camera.watch.fault
        ]
        stamps = {topic: self._samples.stamp(topic) for topic in self._cameras}
        apart = out_of_step(stamps, self._max_skew)
        if apart is not None:
            topic, reason = apart
            found.append(Problem(topic, reason, self._samples.age(topic, now, steady_now)))
        return found

    def _observation(self, tick: int, now: int) -> Observation:
        values = self._samples.values
        message = Observation(tick=tick)
        stamp = self._samples.oldest_stamp() or now
        if self._layout.from_start:
            values["episode_start"] = self._start.at(stamp, values["ee_pose"])
        message.header.stamp = to_msg(stamp)
        message.header.frame_id = self._frame
        message.tick_time = to_msg(now)
        message.state = array.array("f", self._layout.compute(values).tobytes())
        if self._cameras:
            message.camera_names = [camera.spec.name for camera in self._cameras.values()]
            message.images = [
                image_message(camera.pixels, self._headers[topic])
                for topic, camera in self._cameras.items()
            ]
        return message

    def _log(self, problems: list[Problem]) -> None:
        """Log the problems when another source has one, and again every REMIND seconds."""
        sources = {problem.source for problem in problems}
        wall = time.monotonic()
        if not problems:
            if self._logged and wall - self._logged_at > DIAGNOSTICS_PERIOD:
                self._logged = set()
                self.get_logger().info("all sources are received")
            return
        if wall < self._patient_until and all(p.age is None for p in problems):
            return
        if sources - self._logged or wall - self._logged_at > REMIND:
            self._logged |= sources
            self._logged_at = wall
            self.get_logger().error(f"no observation: {text(problems)}")

    def _diagnose(self) -> None:
        now, steady = self.get_clock().now().nanoseconds, time.monotonic_ns()
        current = self._current_problems(now, steady)
        current += [p for p in self._problems if p.source == "state"]
        self._log(current)
        found = self._passed | {problem.source: problem for problem in current}
        self._passed = {}
        names = (*self._layout.sources, *self._cameras)
        report = DiagnosticArray()
        report.header.stamp = to_msg(now)
        node = self.get_fully_qualified_name().lstrip("/")
        report.status = [
            diagnostic(
                node, self.resolve_topic_name(n), found.get(n), self._samples.age(n, now, steady)
            )
            for n in names
        ]
        for status, name in zip(report.status, names, strict=True):
            if name in self._cameras:
                status.values += camera_values(self._cameras[name].watch, steady)
        report.status += [diagnostic(node, n, p, None) for n, p in found.items() if n not in names]
        self._diagnostics.publish(report)


def camera_topic(name: str, transport: str = "raw") -> str:
    """As image_transport names them."""
    return f"camera/{name}/image" + (COMPRESSED if transport == "compressed" else "")


def main() -> None:
    """Console script `observer`."""
    sys.exit(run("observer", ObserverNode))
