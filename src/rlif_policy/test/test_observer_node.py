# SPDX-License-Identifier: Apache-2.0
"""The observer over DDS: lock-step, real and simulated time, what it refuses, and faults of cameras."""

from __future__ import annotations

import array
import io
import math

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import (
    PoseStamped,
    PoseWithCovarianceStamped,
    Wrench,
    WrenchStamped,
)
from PIL import Image as PillowImage
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rlif_node.qos import LATCHED_10
from rlif_node.stamps import to_msg, to_ns
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image, JointState
from stand_in_tf import transform

from rlif_msgs.msg import Episode, Observation, ObservationTick
from rlif_policy import observer_node
from rlif_policy.observer_node import ObserverNode

pytestmark = pytest.mark.ros

FEATURES = ["ee_position_in_object", "wrench_force"]
MS = 1_000_000
PERIOD = 100 * MS
SECOND = 1000 * MS
LONG = 10.0  # s, the largest age there is: what a loaded machine delays is not stale
WIDTH, HEIGHT = 16, 8
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _quick_diagnostics(monkeypatch):
    monkeypatch.setattr(observer_node, "DIAGNOSTICS_PERIOD", 0.05)


def noise(height=HEIGHT, width=WIDTH):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def raw(pixels, stamp, encoding="rgb8"):
    height, width = pixels.shape[:2]
    image = Image(height=height, width=width, encoding=encoding)
    image.header.stamp, image.header.frame_id = to_msg(stamp), "optical_frame"
    image.data = array.array("B", pixels.tobytes())
    image.step = len(image.data) // height
    return image


def png(pixels, stamp, cut=0):
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "PNG")
    data = stream.getvalue()
    image = CompressedImage(format="rgb8; png compressed bgr8")
    image.header.stamp = to_msg(stamp)
    image.data = array.array("B", data[: len(data) - cut])
    return image


class Rig:
    """An observer with the robot that it observes, whose topics are made as they are used.

    sends, pictures: message of an image and a stamp, and the next image, for each camera
    """

    def __init__(self, graph, cameras=(), transport="raw", **parameters):
        self.graph = graph
        if cameras:
            parameters |= {"images": True, "cameras": list(cameras)}
            parameters = {"image_width": WIDTH, "image_height": HEIGHT} | parameters
            for name in cameras:
                size = {"width": WIDTH, "height": HEIGHT, "transport": transport}
                parameters = {f"camera.{name}.{k}": v for k, v in size.items()} | parameters
        parameters = {"features": ["ee_position"], "control_rate": 20.0} | parameters
        self.observer = graph.add(ObserverNode, **parameters)
        self.observed = graph.collect(Observation, "observation", of=self.observer)
        self.ticks = graph.collect(ObservationTick, "observation_tick", of=self.observer)
        self.reports = graph.collect(DiagnosticArray, "/diagnostics", of=self.observer)
        end = "/compressed" if transport == "compressed" else ""
        self.topics = {name: f"camera/{name}/image{end}" for name in cameras}
        self.sends = dict.fromkeys(cameras, png if end else raw)
        self.pictures = dict.fromkeys(cameras, noise)
        self._publishers = {}

    def now(self):
        return self.observer.get_clock().now().nanoseconds

    def publish(self, topic, message):
        if topic not in self._publishers:
            self._publishers[topic] = self.graph.publisher(type(message), topic)
        self._publishers[topic].publish(message)

    def send_tip(self, stamp, x=0.5, frame="base"):
        self.publish("ee_pose", pose(stamp, x, frame))

    def send_rest(self, stamp, force=1.0):
        self.publish("object_pose", pose(stamp, 0.4))
        wrench = WrenchStamped()
        wrench.header.stamp = to_msg(stamp)
        wrench.wrench.force.x = force
        self.publish("wrench", wrench)

    def send_images(self, stamp):
        for name, topic in self.topics.items():
            self.publish(topic, self.sends[name](self.pictures[name](), stamp))

    def send(self, stamp):
        """A pose and the image of each camera."""
        self.send_tip(stamp)
        self.send_images(stamp)

    def until(self, condition, what):
        """Sends all the while."""

        def step():
            self.send(self.now())
            return condition()

        return self.graph.until(step, what)

    def find_report(self, topic, good, text=""):
        """A diagnostic received since the last `reports.clear()`, or None."""
        for status in (s for report in self.reports for s in report.status):
            fits = status.hardware_id == topic and text in status.message
            if fits and (status.level == DiagnosticStatus.OK) == good:
                return status
        return None

    def report(self, topic, text=""):
        """The next diagnostic of a topic that is not OK, while nothing is sent."""
        self.reports.clear()
        find = lambda: self.find_report(topic, False, text)  # noqa: E731
        return self.graph.until(find, f"a diagnostic of {topic} ({text})")

    def camera_report(self, name, good, text=""):
        """The next diagnostic of a camera that is `good` or not, while all is sent."""
        self.reports.clear()
        topic = "/" + self.topics[name]
        what = f"a diagnostic of {name} ({text or 'ok'})"
        return self.until(lambda: self.find_report(topic, good, text), what)

    def observe(self):
        self.observed.clear()
        return self.until(lambda: self.observed and self.observed[-1], "an observation")

    def step(self, number):
        """A step of lock-step, and its observation."""
        self.send(number * PERIOD)
        stamp = lambda: self.observed and to_ns(self.observed[-1].header.stamp)  # noqa: E731
        self.graph.until(lambda: stamp() == number * PERIOD, f"observation {number}")
        return self.observed[-1]


def pose(stamp, x=0.5, frame="base"):
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = to_msg(stamp), frame
    message.pose.position.x, message.pose.orientation.w = x, 1.0
    return message


def values_of(status):
    return {v.key: v.value for v in status.values}


# ---- ticks


def test_observer_in_lock_step_ticks_once_per_complete_set(graph):
    rig = Rig(graph, features=FEATURES, lock_step=True)
    for step in range(1, 6):
        stamp = step * PERIOD
        rig.send_rest(stamp)
        rig.send_tip(stamp)
        graph.until(lambda n=step: len(rig.observed) == n, f"observation {step}")
        rig.send_tip(stamp)  # the simulated robot repeats when nobody answers
    rig.send_tip(6 * PERIOD)
    rig.send_rest(6 * PERIOD)
    graph.until(lambda: len(rig.observed) == 6, "observation 6")
    assert [to_ns(m.header.stamp) for m in rig.observed] == [k * PERIOD for k in range(1, 7)]
    assert [m.tick for m in rig.observed] == [1, 2, 3, 4, 5, 6]
    assert rig.observed[0].state.tolist() == pytest.approx([0.1, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert rig.observed[0].header.frame_id == "base"


def test_observer_in_lock_step_goes_on_after_a_restart_of_the_simulation(graph):
    rig = Rig(graph, lock_step=True)
    assert [rig.step(number).tick for number in (50, 1)] == [1, 2]


def test_observer_in_real_time_takes_the_newest_samples_and_the_oldest_stamp(graph):
    rig = Rig(graph, features=FEATURES, max_age=LONG)
    start = rig.now()
    rig.send_rest(start)
    rig.send_tip(start - PERIOD, x=0.6)
    rig.send_tip(start - PERIOD // 2, x=0.7)
    graph.until(lambda: rig.observed and rig.observed[-1].state[0] > 0.25, "the newest sample")
    newest = rig.observed[-1]
    assert to_ns(newest.header.stamp) == start - PERIOD // 2
    tick = ObservationTick(header=newest.header, tick=newest.tick, tick_time=newest.tick_time)
    graph.until(lambda: tick in rig.ticks, "its tick")
    assert newest.state[0] == pytest.approx(0.3)
    assert to_ns(newest.tick_time) >= start
    ticks = [m.tick for m in rig.observed]
    assert len(set(ticks)) == len(ticks)


def test_observer_in_simulated_time_ticks_on_its_clock(graph):
    rig = Rig(graph, features=FEATURES, use_sim_time=True, control_rate=10.0)
    clock = graph.publisher(ClockMessage, "/clock")
    now = SECOND
    while len(rig.observed) < 5:
        now += PERIOD // 5
        assert now < 60 * SECOND, "no observations"
        rig.send_rest(now)
        rig.send_tip(now)
        clock.publish(ClockMessage(clock=to_msg(now)))
        graph.until(lambda n=now: rig.now() == n, "the time")
    times = [to_ns(m.tick_time) for m in rig.observed]
    assert len(set(times)) == len(times)
    ticks = rig.observed[-1].tick - rig.observed[0].tick
    assert (times[-1] - times[0]) / ticks == pytest.approx(PERIOD, rel=0.3)


# ---- sources


def test_observer_with_a_stale_source_stops_and_reports_its_age(graph):
    rig = Rig(graph, features=FEATURES, max_age=0.3)

    def running():
        rig.send_rest(rig.now())
        rig.send_tip(rig.now())
        return len(rig.observed) > 2

    graph.until(running, "observations")
    status = rig.report("/ee_pose", "expected at most 0.300 s")  # nothing is sent any more
    assert float(values_of(status)["age_s"]) > 0.3
    assert status.level == DiagnosticStatus.WARN
    oldest = max(to_ns(m.tick_time) - to_ns(m.header.stamp) for m in rig.observed)
    assert oldest <= 0.3e9, "an observation was made of a stale sample"


def test_observer_with_a_missing_source_reports_it(graph):
    rig = Rig(graph, features=FEATURES)
    assert rig.report("/wrench").level == DiagnosticStatus.ERROR
    assert not rig.observed
    assert "wrench: nothing received yet" in rig.ticks[-1].problem, "for the arbiter"


def test_observer_without_a_clock_reports_simulated_time(graph):
    rig = Rig(graph, features=FEATURES, use_sim_time=True)
    assert "use_sim_time is true" in rig.report("/clock").message


@pytest.mark.parametrize(
    ("bad", "topic", "text"),
    [
        ({"frame": "world"}, "/ee_pose", "frame_id is 'world', expected 'base'"),
        ({"x": math.nan}, "/ee_pose", "position is not finite: nan"),
        ({"x": 1e39}, "state", "not finite: ee_position_in_object"),
    ],
)
def test_observer_with_an_unusable_sample_reports_it_until_a_good_one_comes(
    graph, bad, topic, text
):
    rig = Rig(graph, features=FEATURES, lock_step=True)
    rig.send_rest(PERIOD)
    rig.send_tip(PERIOD, **bad)
    rig.report(topic, text)
    assert not rig.observed
    rig.send_rest(2 * PERIOD)
    rig.send_tip(2 * PERIOD)
    graph.until(lambda: rig.observed, "an observation of good samples")


def test_observer_with_an_unusable_sample_before_good_ones_names_it(graph, monkeypatch):
    monkeypatch.setattr(observer_node, "DIAGNOSTICS_PERIOD", 60.0)
    rig = Rig(graph, features=FEATURES, lock_step=True)
    for number, x in enumerate((1e39, 0.5), 1):
        rig.send_rest(number * PERIOD)
        rig.send_tip(number * PERIOD, x=x)
        graph.until(lambda n=number: len(rig.ticks) == n, f"tick {number}")
    rig.observer._diagnose()
    find = lambda: rig.find_report("state", False, "a tick without an observation: not finite")  # noqa: E731
    graph.until(find, "a diagnostic of the state")


def test_observer_names_a_message_that_it_refused_although_a_good_one_followed(graph, monkeypatch):
    """Regression: another publisher's wrenches that were not finite lay between the good ones, unseen."""
    monkeypatch.setattr(observer_node, "DIAGNOSTICS_PERIOD", 60.0)
    rig = Rig(graph, features=FEATURES, lock_step=True)
    rig.send_rest(PERIOD, force=math.nan)
    rig.send_rest(PERIOD)
    rig.send_tip(PERIOD)
    graph.until(lambda: rig.observed, "an observation")
    rig.observer._diagnose()
    find = lambda: rig.find_report("/wrench", False, "a message was refused: force is not finite")  # noqa: E731
    graph.until(find, "a diagnostic of the wrench")
    rig.reports.clear()
    rig.observer._diagnose()
    graph.until(lambda: rig.find_report("/wrench", True), "a good one")


# ---- joints of several publishers, and publishers of another kind


def joint_states(stamp, **positions):
    message = JointState(name=list(positions), position=list(positions.values()))
    message.header.stamp = to_msg(stamp)
    return message


JOINTS = {"features": ["joint_positions"], "joints": ["a1", "a2", "finger"]}


def test_observer_with_arm_and_gripper_on_one_topic_merges_them(graph):
    """Regression: each message of the gripper stopped the observations, or all of them did."""
    rig = Rig(graph, **JOINTS, max_age=LONG)
    arm = graph.publisher(JointState, "joint_states")
    gripper = graph.publisher(JointState, "joint_states")
    gripper.publish(joint_states(rig.now(), finger=0.04, other=9.0))
    for number in range(10):
        now, before = rig.now(), len(rig.observed)
        arm.publish(joint_states(now, a2=2.0, a1=1.0))
        gripper.publish(joint_states(now, wheel=5.0))
        if number % 3 == 0:
            gripper.publish(joint_states(now, finger=0.04, other=9.0))
        graph.until(lambda n=before: len(rig.observed) > n, f"observation {number}")
    assert rig.observed[-1].state.tolist() == pytest.approx([1.0, 2.0, 0.04])
    ticks = [m.tick for m in rig.observed]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks))), "one is missing"


def test_observer_with_a_gripper_that_stops_names_its_joints(graph):
    rig = Rig(graph, **JOINTS, max_age=0.3)
    publisher = graph.publisher(JointState, "joint_states")
    publisher.publish(joint_states(rig.now(), finger=0.04))

    def stale():
        publisher.publish(joint_states(rig.now(), a1=1.0, a2=2.0))
        return rig.find_report("/joint_states", False, "joint finger: ")

    graph.until(stale, "a diagnostic of the gripper")


def test_observer_without_a_gripper_names_the_missing_joints(graph):
    rig = Rig(graph, **JOINTS)
    rig.publish("joint_states", joint_states(rig.now(), a1=1.0, a2=2.0))
    rig.report("/joint_states", "joints ['finger'] are missing, found ['a1', 'a2']")


def test_observer_in_lock_step_waits_for_all_joints_of_a_stamp(graph):
    rig = Rig(graph, **JOINTS, lock_step=True)
    for number in (1, 2):
        rig.publish("joint_states", joint_states(number * PERIOD, finger=0.04))
        rig.publish("joint_states", joint_states(number * PERIOD, a1=number, a2=2.0))
        graph.until(lambda n=number: len(rig.observed) == n, f"observation {number}")
        assert to_ns(rig.observed[-1].header.stamp) == number * PERIOD
        assert rig.observed[-1].state[0] == number


@pytest.mark.parametrize(
    ("topic", "kind", "parameters"),
    [
        ("ee_pose", PoseWithCovarianceStamped, {}),
        ("wrench", Wrench, {"features": ["wrench_force"]}),
        ("camera/wrist/image", CompressedImage, {"cameras": ["wrist"]}),
        ("joint_states", PoseStamped, JOINTS),
    ],
)
def test_observer_with_a_source_of_another_type_reports_both_types(
    graph, ros_node, topic, kind, parameters
):
    """Regression: the types do not match, so nothing is received, and nobody knew why."""
    rig = Rig(graph, **parameters)
    ros_node.create_publisher(kind, topic, 1)  # a participant has one type for each topic
    text = f"published as {kind.__module__.partition('.')[0]}/msg/{kind.__name__}, expected "
    assert rig.report(f"/{topic}", text).level == DiagnosticStatus.ERROR


BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize("durability", list(DurabilityPolicy)[1:3])
def test_observer_receives_best_effort_publishers(graph, durability):
    rig = Rig(graph, max_age=LONG)
    qos = QoSProfile(depth=1, reliability=BEST_EFFORT.reliability, durability=durability)
    tip = graph.publisher(PoseStamped, "ee_pose", qos)

    def send():
        tip.publish(pose(rig.now()))
        return rig.observed

    graph.until(send, "an observation")


def test_observer_in_lock_step_reports_a_best_effort_publisher(graph):
    rig = Rig(graph, lock_step=True)
    graph.node.create_publisher(PoseStamped, "ee_pose", BEST_EFFORT)
    rig.report("/ee_pose", "published as best effort, expected reliable")


# ---- cameras


def test_observer_with_images_resizes_and_converts_them(graph):
    rig = Rig(graph, ["wrist"], lock_step=True, image_width=8, image_height=8)
    rig.sends["wrist"] = lambda pixels, stamp: raw(pixels, stamp, "bgr8")
    rig.pictures["wrist"] = lambda: np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8)
    observation = rig.step(1)
    (image,) = observation.images
    assert observation.camera_names == ["wrist"] and image.header.frame_id == "optical_frame"
    assert (image.width, image.height, image.encoding, image.step) == (8, 8, "rgb8", 24)
    assert bytes(image.data) == bytes([3, 2, 1]) * 64


def test_observer_with_a_compressed_camera_gives_its_pixels(graph):
    rig = Rig(graph, ["wrist"], "compressed", lock_step=True)
    picture = noise()
    rig.pictures["wrist"] = picture.copy
    assert bytes(rig.step(1).images[0].data) == picture.tobytes()


def test_observer_with_a_region_and_big_endian_pixels_reads_both(graph):
    roi = {"camera.wrist.roi": [5, 0, 8, 8]}
    rig = Rig(graph, ["wrist"], lock_step=True, image_width=8, **roi)
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)

    def big_endian(pixels, stamp):
        wide = (pixels.astype(np.uint16) * 256 + 3).astype(">u2")
        padded = np.pad(wide.view(np.uint8).reshape(HEIGHT, -1), ((0, 0), (0, 5)))
        image = raw(padded[:, :, None], stamp, "mono16")
        image.width, image.is_bigendian = WIDTH, 1
        return image

    rig.sends["wrist"], rig.pictures["wrist"] = big_endian, grey.copy
    observation = rig.step(1)
    (image,) = observation.images
    assert observation.camera_names == ["wrist"] and image.header.frame_id == "optical_frame"
    pixels = np.frombuffer(image.data, np.uint8).reshape(8, 8, 3)
    assert (pixels == grey[:, 5:13, None]).all()


def old(pixels, stamp):
    return raw(pixels, stamp - 500 * MS)


# Message and image of the faulty camera, and what is reported. None: the stamp of the beginning.
FAULTS = {
    "frozen picture": (raw, lambda: np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "bit for bit"),
    "frozen stamp": (None, noise, "have the same stamp"),
    "black": (raw, lambda: noise() % 8, "black: no pixel of its last"),
    "another size": (raw, lambda: noise(6, 12), "sends 12x6, expected 16x8"),
    "another encoding": (lambda p, s: raw(p, s, "hsv8"), noise, "encoding is 'hsv8'"),
    "out of step": (old, noise, "out of step: its newest image is "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_observer_with_a_faulty_camera_reports_it_and_stops_until_it_is_over(graph, fault):
    rig = Rig(graph, ["wrist", "fixed"], max_age=LONG, camera_max_age=LONG)
    rig.observe()
    send, picture, text = FAULTS[fault]
    begin = rig.now()
    rig.sends["fixed"] = send or (lambda pixels, _: raw(pixels, begin))
    rig.pictures["fixed"] = picture
    rig.camera_report("fixed", False, text)
    for _ in range(3):
        graph.spin_once()  # what was under way
    rig.observed.clear()
    rig.camera_report("fixed", False, text)
    assert not rig.observed, "an observation was made with a faulty camera"
    assert rig.camera_report("wrist", True), "the other camera is not blamed"
    rig.sends["fixed"], rig.pictures["fixed"] = raw, noise
    rig.observe()
    rig.camera_report("fixed", True)


def test_observer_with_broken_files_reports_and_counts_them(graph):
    rig = Rig(graph, ["wrist"], "compressed", max_age=LONG, camera_max_age=LONG)
    rig.observe()
    rig.sends["wrist"] = lambda pixels, stamp: png(pixels, stamp, cut=60)
    status = rig.camera_report("wrist", False, "broken")
    assert int(values_of(status)["refused"]) >= 1
    rig.observed.clear()
    rig.camera_report("wrist", False, "broken")
    assert not rig.observed
    rig.sends["wrist"] = png
    rig.observe()


def test_observer_diagnostics_of_a_camera_have_rate_and_counts(graph):
    rig = Rig(graph, ["wrist"], max_age=LONG, camera_max_age=LONG)
    rig.observe()
    rig.pictures["wrist"] = lambda: noise(4, 4)
    rig.camera_report("wrist", False, "sends 4x4")
    rig.pictures["wrist"] = noise
    rig.observe()
    fresh = lambda: float(values_of(rig.camera_report("wrist", True))["rate_hz"]) > 0.0  # noqa: E731
    rig.until(fresh, "a rate")
    values = values_of(rig.camera_report("wrist", True))
    assert 0.0 <= float(values["age_s"]) < LONG
    assert 0 < int(values["refused"]) < int(values["received"]) and int(values["missed"]) >= 0


def test_observer_in_lock_step_takes_a_still_scene(graph):
    """Rendered pictures have no noise: equal ones are no fault there."""
    rig = Rig(graph, ["wrist"], lock_step=True)
    rig.pictures["wrist"] = noise().copy
    for number in range(1, 21):
        rig.step(number)
    assert len(rig.observed) == 20


def test_observer_in_simulated_time_takes_a_still_scene(graph):
    rig = Rig(graph, ["wrist"], use_sim_time=True, max_age=LONG, camera_max_age=LONG)
    clock = graph.publisher(ClockMessage, "/clock")
    rig.pictures["wrist"] = noise().copy
    now = [SECOND]

    def step():
        now[0] += 20 * MS
        rig.send(now[0])
        clock.publish(ClockMessage(clock=to_msg(now[0])))
        return len(rig.observed) >= 20

    graph.until(step, "twenty observations")


def test_observer_in_lock_step_reports_black_images(graph):
    """A renderer without a display gives black ones: nothing may be learned from them."""
    rig = Rig(graph, ["wrist"], lock_step=True, black_frames=3)
    rig.pictures["wrist"] = lambda: noise() % 8
    for number in (1, 2):
        rig.step(number)
    rig.send(3 * PERIOD)
    rig.report("/camera/wrist/image", "black")
    assert len(rig.observed) == 2
    rig.pictures["wrist"] = noise
    rig.step(4)


def test_observer_with_a_camera_of_another_size_reports_both(graph):
    rig = Rig(graph, ["wrist"], lock_step=True)
    rig.pictures["wrist"] = lambda: noise(48, 64)
    rig.send_images(PERIOD)
    assert "sends 64x48, expected 16x8" in rig.report("/camera/wrist/image", "sends").message


# ---- configuration


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"features": ["ee_positon"]}, "ee_positon"),
        ({"features": ["joint_positions"]}, "joints: found none"),
        ({"images": True}, "cameras: found none"),
        ({"camera.wrist.transport": "theora"}, "camera.wrist.transport: found 'theora'"),
        ({"camera.wrist.roi": [0, 0, 129, 8]}, "camera wrist: roi is"),
        ({"camera.wrist.depth_range": [2.0, 1.0]}, "camera wrist: depth_range is"),
        ({"frozen_frames": 1}, "frozen_frames: found 1"),
    ],
)
def test_observer_with_a_wrong_configuration_is_refused_at_start(graph, parameters, text):
    cameras = {"images": True, "cameras": ["wrist"]} if "images" not in parameters else {}
    with pytest.raises(ValueError, match=text):
        graph.add(ObserverNode, **cameras, **parameters)


def test_features_from_start_are_relative_to_the_first_observation_of_the_episode(graph):
    rig = Rig(graph, features=["ee_position_from_start"], lock_step=True)
    episodes = graph.publisher(Episode, "episode", LATCHED_10)

    def step(number, x):
        rig.send_tip(number * PERIOD, x)
        seen = lambda: rig.observed and to_ns(rig.observed[-1].header.stamp) == number * PERIOD  # noqa: E731
        graph.until(seen, f"observation {number}")
        return rig.observed[-1].state[0]

    assert [step(1, 0.1), step(2, 0.2)] == [0.0, 0.0]
    running = Episode(id=1, phase=Episode.RUNNING)
    running.header.stamp = to_msg(2 * PERIOD)
    episodes.publish(running)
    episodes.wait_for_all_acked()
    graph.until(lambda: rig.observer._start._began is not None, "the episode")
    assert step(3, 0.5) == pytest.approx(0.3), "from that of stamp 2, which came before the message"


# ---- pose from tf


def test_pose_from_tf_is_observed_and_grows_old_when_the_transforms_stop(graph, tf):
    rig = Rig(graph, max_age=0.5, **{"ee_pose.tf": ["base", "tool0"]})

    def moves():
        tf.transform = transform(rig.now())
        return rig.observed

    graph.until(moves, "an observation")
    assert rig.observed[-1].state[0] == 0.5
    rig.report("/ee_pose", "s old, expected at most 0.500 s")
