"""Replaying: the recorded bytes, in order, at a pace that the learner can follow."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest

from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.replay import Pace, Window, recorded_steps
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.step_messages import record_from_message


def test_the_pace_is_the_recorded_one_times_the_rate() -> None:
    pace = Pace(2.0)
    assert pace.due(10.0, 100.0) == 100.0
    pace.published(10.0, 100.0)
    assert pace.due(11.0, 100.1) == pytest.approx(100.5)
    pace.published(11.0, 130.0)  # the learner made a pause
    assert pace.due(12.0, 130.0) == pytest.approx(130.5), "it is not caught up"
    assert pace.due(9.0, 130.0) == 130.0, "time that jumps back costs no time"


def test_as_fast_as_possible_is_now() -> None:
    pace = Pace(math.inf)
    pace.published(0.0, 5.0)
    assert pace.due(1000.0, 5.0) == 5.0


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_is_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Pace(rate)


def test_the_window_closes_when_the_learner_is_behind() -> None:
    window = Window(size=10)
    assert window.open and not window.known
    window.status(500)  # had learnt from something else before
    window.sent = 10
    assert not window.open and window.behind == 10
    window.status(506)
    assert window.open and window.behind == 4


def test_bytes_are_those_of_the_bag(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))
    assert [(t, d) for t, d, _ in recorded_steps(bag)] == list(StepReader(bag).raw())


def test_another_definition_of_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    from rlif_bags.step_writer import step_typestore

    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))

    def newer() -> Any:
        store = step_typestore()
        text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
        text = text.replace("uint64 sequence", "uint64 sequence\nuint8 something_new", 1)
        other = get_typestore(Stores.ROS2_JAZZY)
        other.register(get_types_from_msg(text, "rlif_msgs/msg/Step"))
        return other

    monkeypatch.setattr("rlif_bags.replay.step_typestore", newer)
    with pytest.raises(BagError, match="another version"):
        list(recorded_steps(bag))


@pytest.fixture
def learner() -> Iterator[Any]:
    """Stands for a learner: a buffer, and the status that it publishes."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile

    from rlif_bags.commands.replay import LATCHED
    from rlif_msgs.msg import LearnerStatus, Step

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("learner", context=context)
    node.buffer = ReplayBuffer(4000, 3, 2)
    node.steps = 0
    status = node.create_publisher(LearnerStatus, "learner_status", LATCHED)

    def take(message: Step) -> None:
        record = record_from_message(message)
        node.buffer.add_step(record)
        node.steps += not record.evaluation
        status.publish(LearnerStatus(steps=node.steps))

    node.create_subscription(Step, "replay", take, QoSProfile(depth=1000))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    status.publish(LearnerStatus())
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    ended.set()
    thread.join(10.0)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def replay(*words: object) -> int:
    from rlif_bags.commands import replay as command

    return helpers.run(command, *words)


@pytest.mark.ros
def test_the_learner_has_the_same_buffer_as_live(learner: Any, tmp_path: Path) -> None:
    """Byte for byte, over the topic, more Steps than any queue holds."""
    steps = helpers.make_episodes(400)
    bag = helpers.write_bag(tmp_path / "bag", steps)
    live = ReplayBuffer(4000, 3, 2)
    for step in steps:
        live.add_step(step)
    assert replay(bag, "--as-fast-as-possible") == 0
    assert learner.steps == len(steps) == 2400
    for name, column in live.columns.items():
        assert np.array_equal(learner.buffer.columns[name], column), name


@pytest.mark.ros
def test_nobody_listening_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert replay(bag, "--patience", 0.3, "--namespace", "nobody") == 1
    assert "start a learner" in capsys.readouterr().err


def test_a_missing_bag_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(tmp_path / "none") == 1
    assert "none" in capsys.readouterr().err
