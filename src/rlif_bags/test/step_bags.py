# SPDX-License-Identifier: Apache-2.0
"""Bags of made-up Steps, their exports, and commands run as from a shell: shared by the tests."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rlif_bags.reading.open import STEP_TYPE
from rlif_bags.reading.step_reader import EPISODE_TYPE, StepReader
from rlif_bags.step_writer import StepWriter, step_bytes, step_typestore
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic, qos_profile
from rlif_intervention.message_definitions import definition, type_hash
from rlif_learner.data.steps import Outcome, Source, StepRecord

PERIOD = 100_000_000  # ns


def make_step(
    sequence: int, index: int, length: int, episode: int = 1, **fields: Any
) -> StepRecord:
    """Step `index` of an episode of `length` actions; the operator is in control from step 3 on."""
    last = index == length
    operator = 3 <= index < length
    values: dict[str, Any] = {
        "sequence": sequence,
        "episode_id": episode,
        "step_index": index,
        "is_first": index == 0,
        "is_last": last,
        "outcome": Outcome.SUCCESS if last else Outcome.RUNNING,
        "source": Source.NONE if last else Source.OPERATOR if operator else Source.POLICY,
        "onset": index == 3 and not last,
        "intervention_id": episode if operator else 0,
        "evaluation": False,
        "state": np.array([sequence, index, 0.5], np.float32),
        "action": np.zeros(0, np.float32) if last else np.full(2, index / 10, np.float32),
        "refused_action": np.full(2 * operator, -index / 10, np.float32),
    }
    return StepRecord(**{**values, **fields})


def make_episodes(episodes: int = 3, length: int = 5, images: bool = False) -> list[StepRecord]:
    steps: list[StepRecord] = []
    for episode in range(1, episodes + 1):
        for index in range(length + 1):
            pixels = np.full((4, 6, 3), len(steps) % 256, np.uint8)
            fields = {"images": (pixels, pixels + 1)} if images else {}
            steps.append(make_step(len(steps), index, length, episode, **fields))
    return steps


def write_bag(
    path: Path, steps: Sequence[StepRecord], rate: float = 10.0, cameras: Sequence[str] = ()
) -> Path:
    """A bag of these Steps, stamped by their sequence numbers."""
    with StepWriter(path) as writer:
        for step in steps:
            stamp = 1_000_000_000 + round(step.sequence * 1e9 / rate)
            named = replace(step, cameras=tuple(cameras)) if step.images and cameras else step
            writer.write(named, stamp)
    return path


def assert_equal_steps(found: list[StepRecord], expected: list[StepRecord]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            got = getattr(one, name)
            if name == "stamp":
                continue  # of the bag
            if name == "images":
                assert all(np.array_equal(a, b) for a, b in zip(got, value, strict=True))
            elif name == "cameras":
                assert not value or got == value  # on the way nameless ones may get a name
            elif isinstance(value, np.ndarray):
                assert got.dtype == np.float32 and np.array_equal(got, value), name
            else:
                assert got == value, name


def rlif(name: str, *args: object) -> int:
    """The exit code of `rlif NAME WORD...`, run in this process."""
    module = "import_" if name == "import" else name
    command = importlib.import_module(f"rlif_bags.commands.{module}")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args([str(w) for w in args])))


def imported(source: Path, *options: object) -> list[StepRecord]:
    """The Steps that `rlif import` makes of a file or dataset, in a new bag beside it."""
    number = len(list(source.parent.glob("imported*")))
    bag = source.parent / f"imported{number}"
    assert rlif("import", source, "-o", bag, *options) == 0
    return list(StepReader(bag))


class Cli:
    """`rlif NAME WORD...`, run in this process, and what it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def succeeds(self, *args: object) -> str:
        """Returns stdout."""
        return self._run(0, args).out

    def fails(self, *args: object) -> str:
        """Returns stderr."""
        return self._run(1, args).err

    def _run(self, expected: int, args: tuple[Any, ...]) -> Any:
        self._capsys.readouterr()
        assert rlif(*args) == expected
        return self._capsys.readouterr()


def write_unfinished_bag(path: Path, steps: list[StepRecord], topic: str = "/replay") -> list[int]:
    """A bag as a killed recorder leaves it: flushed now and then, no end. Sizes after flushes."""
    store = step_typestore()
    path.mkdir()
    sizes = []
    with (path / f"{path.name}_0.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="ros2", library="test")
        text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
        schema = writer.register_schema("rlif_msgs/msg/Step", "ros2msg", text.encode())
        channel = writer.register_channel(topic, "cdr", schema, {"offered_qos_profiles": ""})
        for step in steps:
            stamp = step.sequence * PERIOD
            writer.add_message(channel, stamp, step_bytes(store, step, stamp), stamp)
            if step.sequence % 4 == 3:
                writer.flush()
                sizes.append(stream.tell())
    return sizes


def export_arrays(
    tmp_path: Path, steps: list[StepRecord], *options: object
) -> dict[str, np.ndarray]:
    """The arrays of an export of these Steps."""
    write_bag(tmp_path / "bag", steps)
    assert rlif("export", tmp_path / "bag", "-o", tmp_path / "out.npz", *options) == 0
    return dict(np.load(tmp_path / "out.npz"))


def demonstrations() -> dict[str, np.ndarray]:
    """The paper's kind: observations and actions, with true rewards."""
    ends = np.array([False, False, True, False, True])
    return {
        "observations": np.arange(10, dtype=np.float64).reshape(5, 2),
        "next_observations": np.arange(10, dtype=np.float64).reshape(5, 2) + 2,
        "actions": np.linspace(-1, 1, 5).reshape(5, 1),
        "rewards": np.full(5, 100.0),
        "terminals": ends & np.array([True, True, True, True, False]),
        "timeouts": ends & np.array([False, False, False, False, True]),
    }


ENDED, RUNNING = 3, 2
Event = tuple[int, int, int, int]  # before which step, episode, phase, outcome


def record_bag(
    path: Path, steps: list[StepRecord], events: list[Event], episode: str = "/episode"
) -> Path:
    """A bag as the recorder writes it, with messages on their episodes."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for kind in (STEP_TYPE, EPISODE_TYPE):
        store.register(get_types_from_msg(definition(kind), kind))
    writer = BagWriter(BagConfig(path))
    for name, kind in (("/replay", STEP_TYPE), (episode, EPISODE_TYPE)):
        writer.add_topic(Topic(name, kind, definition(kind), type_hash(kind), (qos_profile(),)))

    def write_event(at: int, number: int, phase: int, outcome: int) -> None:
        time = store.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        message = store.types[EPISODE_TYPE](
            header=store.types["std_msgs/msg/Header"](time, frame_id=""), id=number,
            phase=phase, outcome=outcome, reason="", max_steps=0, steps=0, interventions=0,
            operator_steps=0, last_intervention_id=0, unrecorded="", evaluation=False,
        )  # fmt: skip
        data = bytes(store.serialize_cdr(message, EPISODE_TYPE))
        writer.write(episode, PERIOD + at * PERIOD - 1, data)

    waiting = list(events)
    for step in steps:
        while waiting and waiting[0][0] <= step.sequence:
            write_event(*waiting.pop(0))
        stamp = PERIOD + step.sequence * PERIOD
        writer.write("/replay", stamp, step_bytes(store, step, stamp))
    for event in waiting:
        write_event(*event)
    writer.close()
    return path


def discarded(length: int = 6) -> list[StepRecord]:
    """Three episodes; the end of the second is missing."""
    steps = make_episodes(3)
    del steps[2 * length - 1]
    return steps


EPISODE_EVENTS: list[Event] = [(0, 1, RUNNING, 0), (6, 1, ENDED, 1), (6, 2, RUNNING, 0),
                     (11, 2, ENDED, 4), (12, 3, RUNNING, 0)]  # fmt: skip


def constant_labels(steps: Sequence[StepRecord]) -> tuple[np.ndarray, np.ndarray]:
    """A scheme: -0.25 everywhere."""
    return np.full(len(steps), -0.25, np.float32), np.zeros(len(steps), np.bool_)


def positive_labels(steps: Sequence[StepRecord]) -> tuple[np.ndarray, np.ndarray]:
    """A scheme: 1 everywhere."""
    return np.ones(len(steps), np.float32), np.zeros(len(steps), np.bool_)


def ends_at_onsets(steps: Sequence[StepRecord]) -> tuple[np.ndarray, np.ndarray]:
    """A scheme with terminals in the middle of an episode."""
    ends = np.array([b.onset for b in steps[1:]] + [False])
    return -ends.astype(np.float32), ends


# rlif_msgs before Step had `camera_names` and Decision a list of limits. Bags of it must be read for good.
OLD_STEP = """
std_msgs/Header header
uint64 sequence
uint64 tick
uint32 episode_id
uint32 step_index
bool is_first
bool is_last
uint8 outcome
bool evaluation
float32[] state
sensor_msgs/Image[] images
uint8 source
float32[] policy_action
float32[] operator_action
float32[] executed_action
bool onset
uint32 intervention_id
uint64 policy_version
"""
OLD_DECISION = """
std_msgs/Header header
uint64 tick
string limits
"""


def write_old_bag(path: Path, steps: Sequence[StepRecord], cameras: Sequence[str]) -> Path:
    """As `write_bag`, with the definitions of before: each image's frame_id is its camera's name."""
    store = get_typestore(Stores.ROS2_JAZZY)
    decision = "rlif_msgs/msg/Decision"
    store.register(get_types_from_msg(OLD_STEP, STEP_TYPE))
    store.register(get_types_from_msg(OLD_DECISION, decision))
    new, kind, header = step_typestore(), store.types[STEP_TYPE], store.types["std_msgs/msg/Header"]
    with Writer(path, version=9) as writer:
        replay = writer.add_connection("/replay", STEP_TYPE, typestore=store)
        decisions = writer.add_connection("/decision", decision, typestore=store)
        for step in steps:
            stamp = 1_000_000_000 + round(step.sequence * 1e8)
            message: Any = new.deserialize_cdr(step_bytes(new, step, stamp), STEP_TYPE)
            for image, camera in zip(message.images, cameras, strict=True):
                image.header = header(message.header.stamp, frame_id=camera)
            names = [name for name, _ in store.fielddefs[STEP_TYPE][1]]
            old = kind(**{name: getattr(message, name) for name in names})
            writer.write(replay, stamp, bytes(store.serialize_cdr(old, STEP_TYPE)))
            limits = store.types[decision](message.header, step.sequence, "clamp,acceleration")
            writer.write(decisions, stamp, bytes(store.serialize_cdr(limits, decision)))
    return path
