"""The observer over DDS: lock-step, real time, and what it refuses."""

import array
import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rlif_node.stamps import to_msg, to_ns
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image

from rlif_msgs.msg import Observation
from rlif_policy.observer_node import ObserverNode

pytestmark = pytest.mark.ros

FEATURES = ["ee_position_in_object", "wrench_force"]
PERIOD = 100_000_000
SECOND = 1_000_000_000


class Robot:
    """Publishes what a robot does, sample by sample."""

    def __init__(self, graph, cameras=()):
        self.tip = graph.publisher(PoseStamped, "ee_pose")
        self.hole = graph.publisher(PoseStamped, "object_pose")
        self.force = graph.publisher(WrenchStamped, "wrench")
        self.cameras = {c: graph.publisher(Image, f"camera/{c}/image") for c in cameras}

    def send_tip(self, stamp, x=0.5, frame="base"):
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = to_msg(stamp), frame
        message.pose.position.x, message.pose.orientation.w = x, 1.0
        self.tip.publish(message)

    def send_rest(self, stamp, force=1.0):
        hole = PoseStamped()
        hole.header.stamp, hole.header.frame_id = to_msg(stamp), "base"
        hole.pose.position.x, hole.pose.orientation.w = 0.4, 1.0
        self.hole.publish(hole)
        wrench = WrenchStamped()
        wrench.header.stamp = to_msg(stamp)
        wrench.wrench.force.x = force
        self.force.publish(wrench)

    def send_image(self, camera, stamp, width=16, height=8):
        image = Image(width=width, height=height, encoding="bgr8", step=3 * width)
        image.header.stamp = to_msg(stamp)
        image.data = array.array("B", bytes([1, 2, 3]) * (width * height))
        self.cameras[camera].publish(image)


def errors_of(graph, topic):
    """The newest diagnostic of a topic, as soon as there is one that is not OK."""
    reports = graph.collect(DiagnosticArray, "/diagnostics")

    def find():
        for report in reports:
            for status in report.status:
                if status.hardware_id == topic and status.level != DiagnosticStatus.OK:
                    return status
        return None

    return graph.until(find, f"a diagnostic of {topic}")


def test_lock_step_ticks_once_per_complete_set(graph):
    graph.add(ObserverNode, features=FEATURES, lock_step=True)
    seen = graph.collect(Observation, "observation")
    robot = Robot(graph)
    for step in range(1, 6):
        stamp = step * PERIOD
        robot.send_rest(stamp)
        robot.send_tip(stamp)
        graph.until(lambda n=step: len(seen) == n, f"observation {step}")
        robot.send_tip(stamp)  # the simulated robot repeats when nobody answers
    robot.send_tip(6 * PERIOD)
    robot.send_rest(6 * PERIOD)
    graph.until(lambda: len(seen) == 6, "observation 6")
    assert [to_ns(m.header.stamp) for m in seen] == [k * PERIOD for k in range(1, 7)]
    assert [m.tick for m in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[0].state.tolist() == pytest.approx([0.1, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert seen[0].header.frame_id == "base"


def test_lock_step_goes_on_after_a_restart_of_the_simulation(graph):
    graph.add(ObserverNode, features=["ee_position"], lock_step=True)
    seen = graph.collect(Observation, "observation")
    tip = graph.publisher(PoseStamped, "ee_pose")
    for stamp in (50 * PERIOD, PERIOD):
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = to_msg(stamp), "base"
        message.pose.orientation.w = 1.0
        tip.publish(message)
        graph.until(lambda s=stamp: seen and to_ns(seen[-1].header.stamp) == s, f"stamp {stamp}")
    assert [m.tick for m in seen] == [1, 2]


def test_real_time_takes_the_newest_samples_and_the_oldest_stamp(graph):
    observer = graph.add(ObserverNode, features=FEATURES, control_rate=20.0, max_age=1.0)
    seen = graph.collect(Observation, "observation")
    robot = Robot(graph)
    start = observer.get_clock().now().nanoseconds
    robot.send_rest(start)
    robot.send_tip(start - PERIOD, x=0.6)
    robot.send_tip(start - PERIOD // 2, x=0.7)
    graph.until(lambda: seen and seen[-1].state[0] > 0.25, "the newest sample")
    newest = seen[-1]
    assert to_ns(newest.header.stamp) == start - PERIOD // 2
    assert newest.state[0] == pytest.approx(0.3)
    assert to_ns(newest.tick_time) >= start
    ticks = [m.tick for m in seen]
    assert len(set(ticks)) == len(ticks)


def test_a_stale_source_stops_observations_and_is_named_with_its_age(graph):
    observer = graph.add(ObserverNode, features=FEATURES, control_rate=20.0, max_age=0.3)
    seen = graph.collect(Observation, "observation")
    robot = Robot(graph)
    robot.send_tip(observer.get_clock().now().nanoseconds)

    def running():
        now = observer.get_clock().now().nanoseconds
        robot.send_rest(now)
        if not seen:
            robot.send_tip(now)
        return len(seen) > 2

    graph.until(running, "observations")
    status = errors_of(graph, "/ee_pose")  # nothing is sent any more
    age = float({v.key: v.value for v in status.values}["age_s"])
    assert age > 0.3 and "expected at most 0.300 s" in status.message
    assert status.level == DiagnosticStatus.WARN
    last = max(to_ns(m.tick_time) - to_ns(m.header.stamp) for m in seen)
    assert last <= 0.3e9, "an observation was made of a stale sample"


def test_a_missing_source_is_named(graph):
    graph.add(ObserverNode, features=FEATURES, control_rate=20.0)
    seen = graph.collect(Observation, "observation")
    assert errors_of(graph, "/wrench").level == DiagnosticStatus.ERROR
    assert not seen


def test_without_a_clock_simulated_time_is_what_is_missing(graph):
    graph.add(ObserverNode, features=FEATURES, use_sim_time=True)
    assert "use_sim_time is true" in errors_of(graph, "/clock").message


def test_it_ticks_on_simulated_time(graph):
    graph.add(ObserverNode, features=FEATURES, use_sim_time=True, control_rate=10.0)
    seen = graph.collect(Observation, "observation")
    clock = graph.publisher(ClockMessage, "/clock")
    robot = Robot(graph)
    now = [SECOND]

    def step():
        now[0] += PERIOD // 5
        robot.send_rest(now[0])
        robot.send_tip(now[0])
        clock.publish(ClockMessage(clock=to_msg(now[0])))
        return len(seen) >= 5

    graph.until(step, "five observations")
    times = [to_ns(m.tick_time) for m in seen]
    assert len(set(times)) == len(times)
    assert (times[-1] - times[0]) / (seen[-1].tick - seen[0].tick) == pytest.approx(PERIOD, rel=0.3)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"frame": "world"}, "frame_id is 'world', expected 'base'"),
        ({"x": math.nan}, "not finite: ee_position_in_object"),
    ],
)
def test_what_cannot_be_used_gives_no_observation_and_a_diagnostic(graph, bad, words):
    graph.add(ObserverNode, features=FEATURES, lock_step=True)
    seen = graph.collect(Observation, "observation")
    robot = Robot(graph)
    robot.send_rest(PERIOD)
    robot.send_tip(PERIOD, **bad)
    status = errors_of(graph, "/ee_pose" if "frame" in bad else "state")
    assert words in status.message
    assert not seen
    robot.send_rest(2 * PERIOD)
    robot.send_tip(2 * PERIOD)
    graph.until(lambda: seen, "an observation of good samples")


CAMERA = {"camera.wrist.width": 16, "camera.wrist.height": 8}


def test_images_are_part_of_the_observation(graph):
    graph.add(
        ObserverNode, features=["ee_position"], lock_step=True, images=True, cameras=["wrist"],
        image_width=8, image_height=8, **CAMERA,
    )  # fmt: skip
    seen = graph.collect(Observation, "observation")
    images = graph.publisher(Image, "camera/wrist/image")
    tip = graph.publisher(PoseStamped, "ee_pose")
    robot = Robot.__new__(Robot)
    robot.tip, robot.cameras = tip, {"wrist": images}
    robot.send_tip(PERIOD)
    robot.send_image("wrist", PERIOD)
    graph.until(lambda: seen, "an observation")
    (image,) = seen[0].images
    assert (image.width, image.height, image.encoding, image.step) == (8, 8, "rgb8", 24)
    assert bytes(image.data) == bytes([3, 2, 1]) * 64


def test_a_camera_of_another_size_is_an_error_that_names_both(graph):
    graph.add(
        ObserverNode, features=["ee_position"], lock_step=True, images=True, cameras=["wrist"],
        **CAMERA,
    )  # fmt: skip
    robot = Robot.__new__(Robot)
    robot.cameras = {"wrist": graph.publisher(Image, "camera/wrist/image")}
    robot.send_image("wrist", PERIOD, 64, 48)
    status = errors_of(graph, "/camera/wrist/image")
    while "nothing received" in status.message:
        status = errors_of(graph, "/camera/wrist/image")
    assert "sends 64x48, expected 16x8" in status.message


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"features": ["ee_positon"]}, "ee_positon"),
        ({"features": ["joint_positions"]}, "joints: found none"),
        ({"images": True}, "cameras: found none"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_moves(graph, parameters, words):
    with pytest.raises(ValueError, match=words):
        graph.add(ObserverNode, **parameters)
