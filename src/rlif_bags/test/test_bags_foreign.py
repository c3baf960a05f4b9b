"""Bags that this suite did not record: the Steps that a mapping makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bag_episodes as own
import numpy as np
import pytest
import yaml
from bag_sessions import (
    BY_HAND,
    MAPPING,
    SECOND,
    TYPES,
    convert,
    drivers,
    header,
    joy,
    mapping,
    pose,
    session,
    twist,
    write,
)
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from rlif_bags.commands import relabel as relabel_command
from rlif_bags.external.guess import starter
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ForeignReport
from rlif_bags.external.steps import foreign_steps
from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import StepReader
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome


def test_a_session_becomes_one_episode(tmp_path: Path) -> None:
    steps, report = convert(write(tmp_path / "bag", session()))
    assert drivers(steps) == BY_HAND
    assert [s.step_index for s in steps] == list(range(11)) == [s.sequence for s in steps]
    assert [s.onset for s in steps].index(True) == 4 and sum(s.onset for s in steps) == 1
    assert steps[-1].outcome == Outcome.TRUNCATED and steps[0].is_first
    assert np.flatnonzero(label_rewards(steps)[0]).tolist() == [3]
    assert (report.episodes, report.clipped, dict(report.refused)) == (1, 0, {})


def test_actions_and_states_are_those_of_the_tick(tmp_path: Path) -> None:
    steps, _ = convert(write(tmp_path / "bag", session()))
    assert steps[0].action.tolist() == pytest.approx([0.5, -0.5])
    assert steps[4].action.tolist() == pytest.approx([0.2, -0.2])
    # The newest pose when the tick begins: the first one of that tick is logged just before it.
    assert [s.state[0] for s in steps] == pytest.approx(range(11), abs=1.0)


def test_a_flicker_within_the_dwell_is_one_intervention(tmp_path: Path) -> None:
    """PITFALLS: one zero reading of the device ends an intervention."""
    messages = session(operator=range(3, 8))
    flicker = [joy(SECOND + 5 * SECOND // 10 + 15_000_000, False)]
    steps, _ = convert(write(tmp_path / "bag", sorted(messages + flicker, key=lambda m: m[1])))
    assert sum(s.onset for s in steps) == 1


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_storage_and_compression_make_no_difference(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode
) -> None:
    plain, _ = convert(write(tmp_path / "plain", session(5)))
    other, _ = convert(write(tmp_path / "other", session(5), plugin, mode))
    assert [s.state.tolist() for s in other] == [s.state.tolist() for s in plain]
    assert drivers(other) == drivers(plain)


def test_a_ros_1_bag_through_the_same_library(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(tmp_path / "old.bag") as writer:
        connections: dict[str, Any] = {}
        for topic, stamp, kind, message in session(5):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            old = message.header
            new = store.types["std_msgs/msg/Header"](seq=0, stamp=old.stamp, frame_id=old.frame_id)
            values = {**{k: getattr(message, k) for k in message.__dataclass_fields__ if k[0] != "_"},
                      "header": new}  # fmt: skip
            values = {k: v for k, v in values.items() if not k.startswith("__")}
            data = store.serialize_ros1(store.types[kind](**values), kind)
            writer.write(connections[topic], stamp, data)
    steps, _ = convert(tmp_path / "old.bag")
    assert len(steps) == 6 and steps[0].action.tolist() == pytest.approx([0.5, -0.5])


def test_a_silent_sensor_leaves_a_gap_that_is_not_learned_across(tmp_path: Path) -> None:
    silent = (SECOND + 3 * SECOND // 10, SECOND + 7 * SECOND // 10)
    messages = [m for m in session() if m[0] != "/arm/pose" or not silent[0] < m[1] < silent[1]]
    steps, report = convert(write(tmp_path / "bag", messages))
    indices = [s.step_index for s in steps]
    assert len(indices) < 11 and indices[-1] == 10
    assert indices == [s.sequence for s in steps]
    assert sum(report.gaps.values()) == 11 - len(indices)
    assert "ee_pose" in next(iter(report.gaps))


def test_a_second_session_is_a_second_episode(tmp_path: Path) -> None:
    later = [
        (topic, stamp + 4 * SECOND, kind, message) for topic, stamp, kind, message in session()
    ]
    steps, report = convert(write(tmp_path / "bag", session() + later))
    assert report.episodes == 2 and [s.episode_id for s in steps if s.is_last] == [1, 2]
    assert sum(s.onset for s in steps) == 2


def test_success_ends_the_episode(tmp_path: Path) -> None:
    kind = "std_msgs/msg/Bool"
    done = ("/done", SECOND + 6 * SECOND // 10, kind, TYPES[kind](data=True))
    messages = [m for m in session() if m[0] != "/arm/twist" or m[1] < done[1]]
    bag = write(tmp_path / "bag", sorted([*messages, done], key=lambda m: m[1]))
    steps, _ = convert(bag, success="/done")
    assert steps[-1].outcome == Outcome.SUCCESS and len(steps) == 7


def test_false_is_no_success(tmp_path: Path) -> None:
    """Regression: each message on the topic ended the episode in success, whatever it said."""
    kind = "std_msgs/msg/Bool"
    no = [("/done", SECOND + n * SECOND // 5, kind, TYPES[kind](data=False)) for n in range(5)]
    bag = write(tmp_path / "bag", sorted([*session(), *no], key=lambda m: m[1]))
    steps, report = convert(bag, success="/done")
    assert report.episodes == 1 and steps[-1].outcome == Outcome.TRUNCATED


def test_what_cannot_be_read_is_refused_and_counted(tmp_path: Path) -> None:
    messages = session()
    wrong = pose(SECOND + 45 * SECOND // 100, 0.0, frame="tool")
    broken = twist(SECOND + 46 * SECOND // 100, float("nan"))
    bag = write(tmp_path / "bag", sorted([*messages, wrong, broken], key=lambda m: m[1]))
    steps, report = convert(bag)
    assert report.refused == {"/arm/pose": 1, "/arm/twist": 1}
    notes = "\n".join(report.notes)
    assert "'tool', expected 'world'" in notes and "not finite" in notes
    assert all(np.isfinite(s.action).all() for s in steps)


def test_a_command_in_another_frame_is_refused(tmp_path: Path) -> None:
    messages = session()
    topic, stamp, kind, message = twist(SECOND + 45 * SECOND // 100, 0.05)
    message.header.frame_id = "tool"
    messages.append((topic, stamp, kind, message))
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    _, report = convert(bag)
    assert report.refused == {"/arm/twist": 1}
    assert "frame_id is 'tool', that of the first was 'world'" in report.notes[0]


def test_actions_beyond_the_scale_are_clipped_and_counted(tmp_path: Path) -> None:
    steps, report = convert(write(tmp_path / "bag", session()), linear_scale=0.04)
    assert steps[0].action.tolist() == [1.0, -1.0] and report.clipped == 7


def test_a_missing_topic_is_named(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", [m for m in session() if m[0] != "/joy"])
    with pytest.raises(BagError, match=r"no topic /joy \(of driver\)"):
        convert(bag)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ["/cam"]}, r"cameras: found .*'/cam'.*, expected {name: value}"),
        ({"cameras": {"wrist": 3}}, "cameras: wrist: found 3, expected a topic"),
        ({"sources": {"ee_pose": None}}, "sources: ee_pose"),
        ({"axes": [1, 2]}, "axes"),
        ({"image_width": 12.5}, "whole number"),
        ({"release_dwell": "short"}, "release_dwell"),
        ({"driver": {"joy": "/joy", "button": "A"}}, "button: 'A'"),
        ({"driver": {"flag": "/manual", "timeout": -1}}, "timeout: -1"),
        ({"driver": {"policy": "/policy", "threshold": "some"}}, "threshold: 'some'"),
        ({"driver": {"always": "policy", "timeout": 1}}, "driver"),
        ({"driver": {"joy": 7, "button": 4}}, "driver: joy: found 7"),
        ({"control_rate": 0.0}, "control_rate"),
        ({"features": ["nothing"]}, "features"),
        ({"sources": {}}, "sources"),
        ({"axes": ["w"]}, "axes"),
        ({"driver": {"joy": "/joy"}}, "driver"),
        ({"driver": {"always": "me"}}, "operator or policy"),
        ({"command": ""}, "command"),
    ],
)
def test_a_wrong_mapping_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mapping(**changes)


@pytest.fixture
def mapping_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(MAPPING))
    yield path


run = partial(own.run, relabel_command)


def test_the_command_makes_bags_of_steps_and_their_labels(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "teleop", session())
    assert run(bag, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
    output = capsys.readouterr().out
    assert "11 steps of 1 episodes" in output and "1 of 1 bags labelled" in output
    assert drivers(list(StepReader(tmp_path / "out/teleop"))) == BY_HAND
    assert run(bag, "-o", tmp_path / "out", "--mapping", mapping_file) == 0, "it resumes"
    assert "converted before" in capsys.readouterr().out


def test_a_described_bag_comes_with_a_mapping_that_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "teleop", session())
    assert run(bag, "--describe") == 0
    text = capsys.readouterr().out.split("--mapping:")[1]
    guess = yaml.safe_load(text)
    assert guess["command"] == "/arm/twist" and guess["driver"]["joy"] == "/joy"
    assert guess["base_frame"] == "world"
    (tmp_path / "guess.yaml").write_text(text)
    found = TopicMapping.read(tmp_path / "guess.yaml")
    assert len([*foreign_steps(bag, found, ForeignReport())]) == 11


def test_joint_states_without_names_are_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "sensor_msgs/msg/JointState"
    empty = np.zeros(0)
    state = TYPES[kind](
        header=header(SECOND), name=[], position=empty, velocity=empty, effort=empty
    )
    bag = write(tmp_path / "bag", [("/joint_states", SECOND, kind, state)])
    assert run(bag, "--describe") == 0
    assert yaml.safe_load(capsys.readouterr().out.split("--mapping:")[1])["joints"] == []


def test_a_guess_without_anything_known_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(starter({"/a": "std_msgs/msg/String"}))
    with pytest.raises(ValueError, match=r"m\.yaml"):
        TopicMapping.read(tmp_path / "m.yaml")


def test_a_mapping_with_unknown_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**MAPPING, "comand": "/x"}))
    with pytest.raises(ValueError, match="comand"):
        TopicMapping.read(tmp_path / "m.yaml")


def test_a_conversion_with_gaps_and_refusals_is_written_and_resumed(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: the counts could not be written, and so no bag with a single gap was converted."""
    silent = (SECOND + 3 * SECOND // 10, SECOND + 7 * SECOND // 10)
    messages = [m for m in session() if m[0] != "/arm/pose" or not silent[0] < m[1] < silent[1]]
    messages.append(pose(SECOND + 85 * SECOND // 100, 0.0, frame="tool"))
    bag = write(tmp_path / "teleop", sorted(messages, key=lambda m: m[1]))
    said = []
    for _ in range(2):
        assert run(bag, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
        said.append(capsys.readouterr().out)
    for text in said:
        assert "ticks without a step: ee_pose missing" in text
        assert "1 messages of /arm/pose refused" in text
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report[0]["conversion"]["refused"] == {"/arm/pose": 1}
    assert list(report[0]["conversion"]["gaps"].values()) == [3]


def test_success_that_is_said_on_and_on_is_one(tmp_path: Path) -> None:
    """Regression: a flag that stays true made an episode in success of each command after it."""
    kind = "std_msgs/msg/Bool"
    flags = [
        ("/done", SECOND + n * SECOND // 20, kind, TYPES[kind](data=n >= 12)) for n in range(40)
    ]
    bag = write(tmp_path / "bag", sorted([*session(), *flags], key=lambda m: m[1]))
    steps, report = convert(bag, success="/done")
    assert report.episodes == 1 and len(steps) == 8 and not report.refused
    assert steps[-1].outcome == Outcome.SUCCESS
    later = [(topic, stamp + 4 * SECOND, k, m) for topic, stamp, k, m in [*session(), *flags]]
    again = write(tmp_path / "again", sorted([*session(), *flags, *later], key=lambda m: m[1]))
    steps, _ = convert(again, success="/done")
    assert [s.outcome for s in steps if s.is_last] == [Outcome.SUCCESS] * 2


def test_success_after_the_end_is_said(tmp_path: Path) -> None:
    kind = "std_msgs/msg/Empty"
    bag = write(tmp_path / "bag", [*session(), ("/done", 5 * SECOND, kind, TYPES[kind]())])
    steps, report = convert(bag, success="/done")
    assert steps[-1].outcome == Outcome.TRUNCATED and report.refused == {"/done": 1}
    assert any("success, but no episode is going on" in note for note in report.notes)
