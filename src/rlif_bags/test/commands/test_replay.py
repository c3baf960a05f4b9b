# SPDX-License-Identifier: Apache-2.0
"""`rlif replay`, over DDS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import learner_doubles
import numpy as np
import pytest
import safetensors.numpy
from learner_graph import LearnerGraph
from step_bags import Cli, make_episodes, rlif, write_bag
from waiting import scaled

from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.step_messages import record_from_message

ROOT = ("--namespace", "none")  # where the learners of these tests are


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
    node.steps, node.dropped, node.drops = 0, 0, False
    status = node.create_publisher(LearnerStatus, "learner_status", LATCHED)

    def take(message: Step) -> None:
        if node.drops:
            node.dropped += 1
            why = "state of step 0: found (3,), expected (4,)"
            status.publish(LearnerStatus(lost_steps=node.dropped, message=why))
            return
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


@pytest.mark.ros
def test_replay_more_steps_than_a_queue_holds_fills_the_same_buffer(
    learner: Any, tmp_path: Path
) -> None:
    """Byte for byte, over the topic, more Steps than any queue holds."""
    steps = make_episodes(220)
    bag = write_bag(tmp_path / "bag", steps)
    live = ReplayBuffer(4000, 3, 2)
    for step in steps:
        live.add_step(step)
    assert rlif("replay", bag, "--as-fast-as-possible", *ROOT) == 0
    assert learner.steps == len(steps) == 1320
    for name, column in live.columns.items():
        assert np.array_equal(learner.buffer.columns[name], column), name


@pytest.mark.ros
def test_replay_to_a_learner_that_drops_the_steps_reports_why(
    learner: Any, cli: Cli, bag: Path
) -> None:
    """Regression: "has taken none", and not a word of their size."""
    learner.drops = True
    args = (bag, "--as-fast-as-possible", "--patience", scaled(5.0), *ROOT)
    error = cli.fails("replay", *args)
    assert "it lost or dropped 6 Steps; it reports: state of step 0: found (3,)" in error


@pytest.mark.ros
def test_replay_without_subscriber_names_the_remedy(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, bag: Path
) -> None:
    assert "start a learner" in cli.fails("replay", bag, "--patience", 0.3, "--namespace", "nobody")


def test_replay_missing_bag_is_named(tmp_path: Path, cli: Cli) -> None:
    assert "none" in cli.fails("replay", tmp_path / "none")


def stored_rows(run: Path) -> dict[str, np.ndarray]:
    """The rows of all buffers in the checkpoints of a run, by buffer and column, in order."""
    found: dict[str, list[np.ndarray]] = {}
    files = sorted((run / "segments").glob("*.safetensors"))
    assert files, f"no buffer under {run}"
    for file in files:
        buffer = file.name.split("-")[0]
        for name, values in safetensors.numpy.load(file.read_bytes()).items():
            found.setdefault(f"{buffer} {name}", []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


@pytest.mark.ros
@pytest.mark.timeout(300)
def test_replay_to_a_real_learner_gives_the_buffers_of_live(tmp_path: Path) -> None:
    """Byte for byte: rewards, terminals, states, actions, in both buffers."""
    episode = learner_doubles.episode
    steps = [
        *episode(1, 9, 0), *episode(2, 12, 10, takeover=4), *episode(3, 9, 23, evaluation=True),
        *episode(4, 9, 33)[2:], *episode(5, 9, 43, takeover=0), *episode(6, 9, 53, takeover=7),
    ]  # fmt: skip
    counted = sum(not step.evaluation for step in steps)
    bag = write_bag(tmp_path / "bag", steps)
    rows = {}
    for name in ("live", "replayed"):
        graph = LearnerGraph()  # each its own: what was published live is latched
        try:
            graph.start_learner(run_directory=str(tmp_path / name), prior_episodes=1)
            if name == "live":
                graph.send(steps)
            else:
                with ThreadPoolExecutor(1) as pool:
                    replay = pool.submit(rlif, "replay", bag, "--as-fast-as-possible", *ROOT)
                    graph.until(replay.done, "the replay", 60.0)
                    assert replay.result() == 0
            graph.wait_for(counted)
        finally:
            graph.close()
        rows[name] = stored_rows(tmp_path / name)
    live, replayed = rows["live"], rows["replayed"]
    assert set(live) == set(replayed) and any("reward" in name for name in live)
    assert {name.split()[0] for name in live} == {"online", "prior"}
    for name, values in live.items():
        assert values.dtype == replayed[name].dtype
        assert values.tobytes() == replayed[name].tobytes(), name
    assert (live["online reward"] < 0).sum() >= 2
