"""Cameras over DDS: what the observer takes, and each fault of a camera with what follows it."""

import array
import io

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from PIL import Image as PillowImage
from rlif_node.stamps import to_msg
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image

from rlif_msgs.msg import Observation
from rlif_policy.observer_node import ObserverNode

pytestmark = pytest.mark.ros

MS = 1_000_000
PERIOD = 100 * MS
WIDTH, HEIGHT = 16, 8
RNG = np.random.default_rng(0)
BASE = {
    "features": ["ee_position"],
    "images": True,
    "image_width": WIDTH,
    "image_height": HEIGHT,
    "camera_max_age": 2.0,
    "max_age": 2.0,
    "control_rate": 20.0,
}


def sizes(*names):
    pairs = (("width", WIDTH), ("height", HEIGHT))
    return {f"camera.{n}.{key}": value for n in names for key, value in pairs}


def noise(height=HEIGHT, width=WIDTH):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def raw(pixels, stamp, encoding="rgb8"):
    height, width = pixels.shape[:2]
    image = Image(height=height, width=width, encoding=encoding)
    image.header.stamp = to_msg(stamp)
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


class Robot:
    """A pose and cameras; what each of these sends is a function of the time, set by the test."""

    def __init__(self, graph, observer, cameras, kind=Image):
        self.graph, self.observer = graph, observer
        self.seen = graph.collect(Observation, "observation")
        self.reports = graph.collect(DiagnosticArray, "/diagnostics")
        self.tip = graph.publisher(PoseStamped, "ee_pose")
        end = "/compressed" if kind is CompressedImage else ""
        self.topics = {name: f"camera/{name}/image{end}" for name in cameras}
        self.cameras = {name: graph.publisher(kind, topic) for name, topic in self.topics.items()}
        self.sends = dict.fromkeys(cameras, png if kind is CompressedImage else raw)
        self.pictures = dict.fromkeys(cameras, noise)

    def send(self, stamp):
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = to_msg(stamp), "base"
        pose.pose.orientation.w = 1.0
        self.tip.publish(pose)
        for name, publisher in self.cameras.items():
            publisher.publish(self.sends[name](self.pictures[name](), stamp))

    def until(self, condition, what):
        """Sends all the while."""

        def step():
            self.send(self.observer.get_clock().now().nanoseconds)
            return condition()

        return self.graph.until(step, what)

    def report(self, name, good, words=""):
        """The next diagnostic of a camera that is `good` or not, with its values."""
        self.reports.clear()

        def find():
            for status in (s for report in self.reports for s in report.status):
                fits = status.hardware_id == "/" + self.topics[name] and words in status.message
                if fits and (status.level == DiagnosticStatus.OK) == good:
                    return status
            return None

        return self.until(find, f"a diagnostic of {name} ({words or 'ok'})")

    def observe(self):
        self.seen.clear()
        return self.until(lambda: self.seen and self.seen[-1], "an observation")


def old(pixels, stamp):
    return raw(pixels, stamp - 500 * MS)


FAULTS = {
    "frozen picture": (raw, lambda: np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "bit for bit"),
    "frozen stamp": (None, noise, "have the same stamp"),
    "black": (raw, lambda: noise() % 8, "black: no pixel of its last"),
    "another size": (raw, lambda: noise(6, 12), "sends 12x6, expected 16x8"),
    "another encoding": (lambda p, s: raw(p, s, "hsv8"), noise, "encoding is 'hsv8'"),
    "out of step": (old, noise, "out of step: its newest image is 0.5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_stops_observations_until_it_is_over(graph, fault):
    observer = graph.add(
        ObserverNode, cameras=["wrist", "fixed"], **BASE, **sizes("wrist", "fixed")
    )
    robot = Robot(graph, observer, ["wrist", "fixed"])
    robot.observe()
    send, picture, words = FAULTS[fault]
    begin = observer.get_clock().now().nanoseconds
    robot.sends["fixed"] = send or (lambda pixels, _: raw(pixels, begin))
    robot.pictures["fixed"] = picture
    assert words in robot.report("fixed", False, words).message
    for _ in range(3):
        graph.executor.spin_once(timeout_sec=0.02)  # what was under way
    robot.seen.clear()
    robot.report("fixed", False, words)
    assert not robot.seen, "an observation was made with a faulty camera"
    assert robot.report("wrist", True), "the other camera is not blamed"
    robot.sends["fixed"], robot.pictures["fixed"] = raw, noise
    robot.observe()
    robot.report("fixed", True)


def test_a_compressed_camera_that_sends_broken_files(graph):
    observer = graph.add(
        ObserverNode, cameras=["wrist"], **BASE, **sizes("wrist"),
        **{"camera.wrist.transport": "compressed"},
    )  # fmt: skip
    robot = Robot(graph, observer, ["wrist"], CompressedImage)
    robot.observe()
    robot.sends["wrist"] = lambda pixels, stamp: png(pixels, stamp, cut=60)
    status = robot.report("wrist", False, "broken")
    assert int({v.key: v.value for v in status.values}["refused"]) >= 1
    robot.seen.clear()
    robot.report("wrist", False, "broken")
    assert not robot.seen
    robot.sends["wrist"] = png
    robot.observe()


def test_compressed_pixels_arrive(graph):
    graph.add(
        ObserverNode, cameras=["wrist"], lock_step=True, **BASE, **sizes("wrist"),
        **{"camera.wrist.transport": "compressed"},
    )  # fmt: skip
    robot = Robot(graph, None, ["wrist"], CompressedImage)
    picture = noise()
    robot.pictures["wrist"] = picture.copy
    robot.send(PERIOD)
    graph.until(lambda: robot.seen, "an observation")
    assert bytes(robot.seen[0].images[0].data) == picture.tobytes()


def test_a_region_and_the_order_of_bytes_are_heeded(graph):
    graph.add(
        ObserverNode, cameras=["wrist"], lock_step=True, **(BASE | {"image_width": 8}),
        **sizes("wrist"), **{"camera.wrist.roi": [5, 0, 8, 8]},
    )  # fmt: skip
    robot = Robot(graph, None, ["wrist"])
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)

    def big_endian(pixels, stamp):
        wide = (pixels.astype(np.uint16) * 256 + 3).astype(">u2")
        padded = np.pad(wide.view(np.uint8).reshape(HEIGHT, -1), ((0, 0), (0, 5)))
        image = raw(padded[:, :, None], stamp, "mono16")
        image.width, image.is_bigendian = WIDTH, 1
        return image

    robot.sends["wrist"], robot.pictures["wrist"] = big_endian, grey.copy
    robot.send(PERIOD)
    graph.until(lambda: robot.seen, "an observation")
    (image,) = robot.seen[0].images
    seen = np.frombuffer(image.data, np.uint8).reshape(8, 8, 3)
    assert (seen == grey[:, 5:13, None]).all()


def test_rate_and_counts_are_in_the_diagnostics(graph):
    observer = graph.add(ObserverNode, cameras=["wrist"], **BASE, **sizes("wrist"))
    robot = Robot(graph, observer, ["wrist"])
    robot.observe()
    robot.pictures["wrist"] = lambda: noise(4, 4)
    robot.report("wrist", False, "sends 4x4")
    robot.pictures["wrist"] = noise
    robot.observe()
    values = {v.key: v.value for v in robot.report("wrist", True).values}
    assert float(values["rate_hz"]) > 5.0 and float(values["age_s"]) < 2.0
    assert 0 < int(values["refused"]) < int(values["received"]) and int(values["missed"]) >= 0


def test_a_still_scene_of_a_simulation_goes_on(graph):
    """Rendered pictures have no noise: equal ones are no fault there."""
    graph.add(ObserverNode, cameras=["wrist"], lock_step=True, **BASE, **sizes("wrist"))
    robot = Robot(graph, None, ["wrist"])
    still = noise()
    robot.pictures["wrist"] = still.copy
    for step in range(1, 21):
        robot.send(step * PERIOD)
        graph.until(lambda n=step: len(robot.seen) == n, f"observation {step}")


def test_a_still_scene_in_simulated_time_goes_on(graph):
    graph.add(ObserverNode, cameras=["wrist"], use_sim_time=True, **BASE, **sizes("wrist"))
    robot = Robot(graph, None, ["wrist"])
    clock = graph.publisher(ClockMessage, "/clock")
    still, now = noise(), [1000 * MS]
    robot.pictures["wrist"] = still.copy

    def step():
        now[0] += 20 * MS
        robot.send(now[0])
        clock.publish(ClockMessage(clock=to_msg(now[0])))
        return len(robot.seen) >= 20

    graph.until(step, "twenty observations")


def test_a_black_picture_of_a_simulation_is_a_fault(graph):
    """A renderer without a display gives black ones: nothing may be learned from them."""
    graph.add(
        ObserverNode, cameras=["wrist"], lock_step=True, black_frames=3, **BASE, **sizes("wrist")
    )
    robot = Robot(graph, None, ["wrist"])
    robot.pictures["wrist"] = lambda: noise() % 8
    for step in (1, 2):
        robot.send(step * PERIOD)
        graph.until(lambda n=step: len(robot.seen) == n, f"observation {step}")
    robot.send(3 * PERIOD)
    find = lambda: [s for r in robot.reports for s in r.status if "black" in s.message]  # noqa: E731
    graph.until(find, "a diagnostic that says black")
    assert len(robot.seen) == 2
    robot.pictures["wrist"] = noise
    robot.send(4 * PERIOD)
    graph.until(lambda: len(robot.seen) == 3, "an observation of a good image")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"camera.wrist.transport": "theora"}, "camera.wrist.transport: found 'theora'"),
        ({"camera.wrist.roi": [0, 0, 17, 8]}, "camera wrist: roi is"),
        ({"camera.wrist.depth_range": [2.0, 1.0]}, "camera wrist: depth_range is"),
        ({"frozen_frames": 1}, "frozen_frames: found 1"),
    ],
)
def test_a_wrong_camera_is_refused_before_anything_moves(graph, parameters, words):
    with pytest.raises(ValueError, match=words):
        graph.add(ObserverNode, cameras=["wrist"], **BASE, **sizes("wrist"), **parameters)
