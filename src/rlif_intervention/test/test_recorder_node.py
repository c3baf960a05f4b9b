# SPDX-License-Identifier: Apache-2.0
"""The recorder over DDS: Steps on `replay`, the bag beside it, an orderly end."""

from __future__ import annotations

import array
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bag_rig import messages_of_unfinished
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rlif_node.qos import LATCHED_10, RELIABLE, RELIABLE_100, REPLAY
from rlif_node.stamps import to_msg
from ros_graph import params
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, Joy
from waiting import scaled

from rlif_intervention.bag_recorder import BagRecorder
from rlif_intervention.recorder_node import RecorderNode, paired_topics, step_message
from rlif_msgs.msg import Decision, Episode, Observation, Step

pytestmark = pytest.mark.ros

PERIOD = 100_000_000  # ns


class Driver(Node):
    """Stands for observer, arbiter and episode node; collects what is replayed."""

    def __init__(self) -> None:
        super().__init__("driver")
        self.observation = self.create_publisher(Observation, "observation", RELIABLE)
        self.decision = self.create_publisher(Decision, "decision", RELIABLE_100)
        self.episode = self.create_publisher(Episode, "episode", LATCHED_10)
        self.joy = self.create_publisher(Joy, "joy", RELIABLE)
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.pose = self.create_publisher(Joy, "loose", best_effort)
        self.steps: list[Step] = []
        self.create_subscription(Step, "replay", self.steps.append, REPLAY)  # as the learner

    def linked(self, joy: bool = False) -> bool:
        """Whether the recorder is there, both ways."""
        publishers = [self.observation, self.decision, self.episode] + [self.joy] * joy
        return (
            all(p.get_subscription_count() for p in publishers)
            and self.count_publishers("replay") > 0
        )

    def play_episode(self, number: int, first: int, actions: int, images: int = 0) -> None:
        """An episode of `actions` steps from tick `first` on; its outcome is success."""
        self.stage(number, Episode.RUNNING, first)
        for index in range(actions + 1):
            self.observe(first + index, images)
            if index < actions:
                self.decide(number, first + index, index)
        self.stage(number, Episode.ENDED, first + actions, Episode.OUTCOME_SUCCESS)

    def stage(self, number: int, phase: int, tick: int, outcome: int = 0) -> None:
        message = Episode(id=number, phase=phase, outcome=outcome)
        message.header.stamp = to_msg(tick * PERIOD)
        self.episode.publish(message)

    def observe(self, tick: int, images: int) -> None:
        message = Observation(tick=tick, state=[float(tick), 0.5])
        message.header.stamp = to_msg(tick * PERIOD)
        message.images = [
            Image(height=4, width=4, encoding="rgb8", step=12, data=array.array("B", [tick] * 48))
            for _ in range(images)
        ]
        self.observation.publish(message)

    def decide(self, number: int, tick: int, index: int) -> None:
        message = Decision(
            tick=tick,
            episode_id=number,
            step_index=index,
            source=Decision.POLICY,
            policy_action=[0.25, -0.25],
            executed_action=[0.2, -0.2],
            policy_version=9,
            speed_scale=0.25,
        )
        message.header.stamp = to_msg(tick * PERIOD)
        self.decision.publish(message)


Start = Callable[..., RecorderNode]


@pytest.fixture
def graph(make_graph: Callable[..., Any]) -> Any:
    graph = make_graph()
    graph.driver = graph.add(Driver())
    return graph


@pytest.fixture
def recorder(graph: Any) -> Iterator[Start]:
    """`recorder(bag_directory=...)`: the node, finished at the end of the test."""
    started: list[RecorderNode] = []

    def start(**parameters: Any) -> RecorderNode:
        started.append(graph.add(RecorderNode(params(**parameters))))
        graph.until(graph.driver.linked, "the recorder's topics")
        return started[-1]

    yield start
    for node in started:
        node.finish()


def read_bag(directory: Path) -> dict[str, list[Any]]:
    """Messages by topic, by the definitions in the bag."""
    found: dict[str, list[Any]] = {}
    with AnyReader([directory]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def test_steps_of_episodes_arrive_once_and_in_order(graph: Any, recorder: Start) -> None:
    recorder()
    for number in range(1, 4):
        graph.driver.play_episode(number, number * 20, 5, images=2)
    steps = graph.driver.steps
    graph.until(lambda: len(steps) >= 18, "18 steps")
    assert [s.sequence for s in steps] == list(range(18))
    assert [s.step_index for s in steps] == list(range(6)) * 3
    assert [s.is_last for s in steps] == ([False] * 5 + [True]) * 3
    assert [s.outcome for s in steps if s.is_last] == [Episode.OUTCOME_SUCCESS] * 3
    assert all(s.state[0] == s.tick and s.images[1].data[0] == s.tick for s in steps)
    assert list(steps[0].executed_action) == pytest.approx([0.2, -0.2])
    assert steps[0].policy_version == 9 and not len(steps[5].executed_action)


def test_steps_arrive_while_the_episode_runs(graph: Any, recorder: Start) -> None:
    recorder()
    driver = graph.driver
    driver.stage(1, Episode.RUNNING, 1)
    for tick in (1, 2):
        driver.observe(tick, 0)
        driver.decide(1, tick, tick - 1)
    graph.until(lambda: driver.steps, "the first step, before the episode ends")
    assert not driver.steps[0].is_last


def test_bag_holds_the_steps_and_the_topics(graph: Any, recorder: Start, tmp_path: Path) -> None:
    node = recorder(
        bag_directory=str(tmp_path / "bag"),
        topics=["decision", "episode", "joy"],
        types=["rlif_msgs/msg/Decision", "rlif_msgs/msg/Episode", "sensor_msgs/msg/Joy"],
    )
    graph.until(lambda: graph.driver.linked(joy=True), "joy")
    sent = Joy(axes=[0.5], buttons=[1, 0])
    graph.driver.joy.publish(sent)
    graph.driver.play_episode(1, 20, 5, images=1)
    graph.until(lambda: len(graph.driver.steps) == 6, "6 steps")
    graph.until(lambda: node._bag and node._bag.status().written >= 14, "14 messages")
    node.finish()
    found = read_bag(tmp_path / "bag")
    assert {k: len(v) for k, v in found.items()} == {
        "/replay": 6, "/decision": 5, "/episode": 2, "/joy": 1,
    }  # fmt: skip
    assert list(found["/joy"][0].buttons) == [1, 0]
    assert [s.sequence for s in found["/replay"]] == list(range(6))
    assert {d.speed_scale for d in found["/decision"]} == {0.25}
    with AnyReader([tmp_path / "bag"]) as reader:
        raw = [bytes(d) for c, _, d in reader.messages() if c.topic == "/replay"]
    assert [deserialize_message(d, Step) for d in raw] == graph.driver.steps


def test_bag_metadata_has_what_publishers_offer_and_guesses_nothing(
    graph: Any, recorder: Start, tmp_path: Path
) -> None:
    """`ros2 bag` complains about a history of keep_last whose depth is not known."""
    recorder(bag_directory=str(tmp_path / "bag"), topics=["joy"], types=["sensor_msgs/msg/Joy"])
    graph.until(lambda: graph.driver.linked(joy=True), "discovery")
    graph.driver.joy.publish(Joy())
    path = tmp_path / "bag/metadata.yaml"

    def offered() -> list[Any]:
        topics = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
        return [
            profile
            for topic in topics["topics_with_message_count"]
            for profile in topic["topic_metadata"]["offered_qos_profiles"]
            if topic["topic_metadata"]["name"] == "/joy"
        ]

    graph.until(offered, "joy in the metadata")
    (profile,) = offered()
    assert (profile["reliability"], profile["durability"]) == ("reliable", "volatile")
    assert profile["history"] == "unknown" or profile["depth"] > 0


def test_best_effort_topic_is_recorded(graph: Any, recorder: Start, tmp_path: Path) -> None:
    node = recorder(
        bag_directory=str(tmp_path / "bag"), topics=["loose"], types=["sensor_msgs/msg/Joy"]
    )

    def sent_and_written() -> bool:
        graph.driver.pose.publish(Joy())
        return bool(node._bag and node._bag.status().written)

    graph.until(sent_and_written, "a best-effort topic in the bag")


@pytest.mark.parametrize(
    "offered", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT], ids=lambda p: p.name
)
def test_camera_is_subscribed_to_as_reliably_as_it_is_offered(
    graph: Any, recorder: Start, tmp_path: Path, offered: ReliabilityPolicy
) -> None:
    """Best effort in any case lost images that a reliable camera would have sent again."""
    camera = graph.driver.create_publisher(Image, "image", QoSProfile(depth=5, reliability=offered))
    node = recorder(
        bag_directory=str(tmp_path / "bag"), topics=["image"], types=["sensor_msgs/msg/Image"]
    )

    def sent_and_written() -> bool:
        camera.publish(Image())
        return bool(node._bag and node._bag.status().written)

    graph.until(sent_and_written, "an image in the bag")
    assert node._raw["/image"].qos_profile.reliability == offered


def test_steps_with_a_full_disk_still_reach_the_learner(
    graph: Any, recorder: Start, tmp_path: Path
) -> None:
    node = recorder(bag_directory=str(tmp_path / "bag"), required_free_mib=1_000_000)
    assert isinstance(node._bag, BagRecorder)
    graph.until(lambda: node._bag.status().error, "the recording to stop")  # type: ignore[union-attr]
    graph.driver.play_episode(1, 20, 5)
    graph.until(lambda: len(graph.driver.steps) == 6, "6 steps")


def test_recording_resumes_in_another_bag_when_there_is_room(
    graph: Any, recorder: Start, tmp_path: Path
) -> None:
    node = recorder(
        bag_directory=str(tmp_path / "bag"), required_free_mib=1_000_000,
        topics=["episode"], types=["rlif_msgs/msg/Episode"],
    )  # fmt: skip
    graph.until(lambda: node._bag.status().error, "the recording to stop")  # type: ignore[union-attr]
    graph.driver.play_episode(1, 20, 5)
    graph.until(lambda: len(graph.driver.steps) == 6, "6 steps")
    node._stopped.wait = 0.0
    graph.until(lambda: node._stopped.since, "a try, with the disk still full")
    assert not (tmp_path / "bag_2").exists()
    node._settings["required_free_mib"] = 0
    graph.until(lambda: not node._bag.status().error, "the recording to resume")  # type: ignore[union-attr]
    assert node._stopped.lost > 0, "what is in no bag is still counted"
    # The newest Episode was published before, and is needed to read what follows.
    graph.until(lambda: node._bag.status().written, "the latched Episode in bag_2")  # type: ignore[union-attr]
    assert (tmp_path / "bag_2").is_dir()


def test_step_message_shares_images_with_the_observation() -> None:
    from rlif_intervention.join import JoinedStep

    seen = Observation(tick=3, images=[Image()])
    step = step_message(JoinedStep(0, 3, 1, 0, True, 1, False, seen, None))
    assert step.images[0] is seen.images[0] and step.is_last and not len(step.executed_action)


@pytest.mark.parametrize(
    ("kind", "received", "lost"),
    [
        ("rlif_msgs/msg/ControlState", 0, 0),
        ("rlif_msgs/msg/ControlState", 1, 0),
        ("rlif_msgs/msg/ControlState", 2, 1),
        ("sensor_msgs/msg/Joy", 0, 1),
    ],
)
def test_message_lost_of_a_latched_topic_before_the_first_does_not_count(
    kind: str, received: int, lost: int
) -> None:
    """Regression: a demo began with an error, that a ControlState of before was lost."""
    node = SimpleNamespace(
        _kinds={"/topic": kind}, _received={"/topic": received}, _lost_by_middleware=Counter()
    )
    RecorderNode._on_message_lost(node, "/topic", SimpleNamespace(total_count_change=1))  # type: ignore[arg-type]
    assert node._lost_by_middleware["/topic"] == lost


def test_paired_topics_without_one_type_each_are_refused() -> None:
    with pytest.raises(ValueError, match="one type for each topic"):
        paired_topics(["joy"], [])
    with pytest.raises(ValueError, match="once"):
        paired_topics(["joy", "joy"], ["a", "b"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"topics": ["joy"], "types": ["no_msgs/msg/Nothing"]}, "no_msgs"),
        ({"topics": ["joy"], "types": ["Joy"]}, "package/msg/Name"),
        ({"bag_directory": "/proc/nowhere/bag"}, "bag_directory"),
        ({"compression": "zip", "bag_directory": "unused"}, "compression"),
    ],
)
def test_recorder_with_wrong_parameters_is_refused_before_it_records(
    graph: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RecorderNode(params(**parameters))
    assert not graph.world.count_publishers("replay")


def played(graph: Any, start_node: Callable[..., Any], directory: Path) -> tuple[Any, list[Step]]:
    """A recorder's process, and the six Steps of an episode that have come back from it.

    DDS matches the topics of two processes one by one and in each direction for itself: episodes
    are played until one has gone all the way.
    """
    process = start_node("rlif_intervention", "recorder", bag_directory=directory)
    graph.until(graph.driver.linked, "the recorder")
    driver, numbers = graph.driver, itertools.count(1)

    def complete() -> list[Step]:
        number = next(numbers)
        driver.play_episode(number, 20 * number, 5)
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            graph.executor.spin_once(0.05)
            steps = [s for s in driver.steps if s.episode_id == number]
            if len(steps) == 6:
                return steps
        return []

    return process, graph.until(complete, "the Steps of an episode", 60.0)


def test_recorder_process_on_ctrl_c_finishes_the_bag(
    graph: Any, tmp_path: Path, start_node: Callable[..., Any]
) -> None:
    process, steps = played(graph, start_node, tmp_path / "bag")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=scaled(20))[0]
    assert process.returncode == 0, output
    found = read_bag(tmp_path / "bag")["/replay"]
    assert f"bag closed: {len(found)} messages, 0 lost" in output
    assert [s.sequence for s in found][-6:] == [s.sequence for s in steps]


def test_recorder_process_killed_leaves_what_it_had_flushed(
    graph: Any, tmp_path: Path, start_node: Callable[..., Any]
) -> None:
    process, steps = played(graph, start_node, tmp_path / "bag")

    def flushed() -> list[Step]:
        data = messages_of_unfinished(tmp_path / "bag/bag_0.mcap")
        return [deserialize_message(d, Step) for d in data][-6:]

    graph.until(lambda: flushed() == steps, "the flush after a second")
    process.kill()
    process.wait(10)
    assert flushed() == steps


def test_recorder_process_with_wrong_parameters_ends_with_status_2(
    start_node: Callable[..., Any],
) -> None:
    process = start_node("rlif_intervention", "recorder", compression="zip", bag_directory="unused")
    output = process.communicate(timeout=scaled(20))[0]
    assert process.returncode == 2 and "compression" in output
