"""Bags that are damaged, odd or of an old distribution: each said by file, topic and time."""

from __future__ import annotations

import argparse
import itertools
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import bag_episodes as own
import bag_sessions as foreign
import numpy as np
import pytest
import yaml
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rlif_bags.commands import bag as bag_command
from rlif_bags.external.guess import starter
from rlif_bags.external.report import ForeignReport
from rlif_bags.external.steps import ForeignSteps
from rlif_bags.reading.files import BagError
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.step_reader import MAX_NOTES, StepReader
from rlif_bags.replay import recorded_steps
from rlif_bags.step_writer import StepWriter, step_bytes, step_typestore
from rlif_learner.data.steps import Outcome, StepRecord, follows

SECOND = foreign.SECOND


def damage(file: Path, at: float, size: int = 200) -> None:
    data = bytearray(file.read_bytes())
    start = int(len(data) * at)
    for index in range(start, min(len(data), start + size)):
        data[index] ^= 0x5A
    file.write_bytes(bytes(data))


def old_sqlite(path: Path, messages: list[Any]) -> Path:
    """A bag as Humble records it: no definitions, metadata of version 5."""
    foreign.write(path, messages, StoragePlugin.SQLITE3)
    database = sqlite3.connect(foreign.data_file(path))
    database.execute("drop table message_definitions")
    database.execute("drop table schema")
    database.execute("alter table topics drop column type_description_hash")
    database.commit()
    database.close()
    metadata = path / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    information = content["rosbag2_bagfile_information"]
    information["version"] = 5
    for name in ("ros_distro", "custom_data"):
        information.pop(name, None)
    for entry in information["topics_with_message_count"]:
        entry["topic_metadata"].pop("type_description_hash")
    metadata.write_text(yaml.safe_dump(content))
    return path


def test_a_bag_of_humble_without_definitions_is_read(tmp_path: Path) -> None:
    plain, _ = foreign.convert(foreign.write(tmp_path / "new", foreign.session(5)))
    steps, report = foreign.convert(old_sqlite(tmp_path / "old", foreign.session(5)))
    assert [s.state.tolist() for s in steps] == [s.state.tolist() for s in plain]
    assert foreign.drivers(steps) == foreign.drivers(plain) and not report.notes
    assert any("/arm/pose" in line for line in describe_bag(tmp_path / "old"))


def test_a_type_that_nobody_knows_is_named(tmp_path: Path) -> None:
    bag = old_sqlite(tmp_path / "old", foreign.session(5))
    database = sqlite3.connect(foreign.data_file(bag))
    database.execute("update topics set type = 'lab_msgs/msg/Stick' where name = '/joy'")
    database.commit()
    database.close()
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("sensor_msgs/msg/Joy", "lab_msgs/msg/Stick"))
    with pytest.raises(BagError, match=r"/joy \(lab_msgs/msg/Stick\)"):
        foreign.convert(bag)
    assert describe_bag(bag), "its topics are listed all the same"


def test_a_definition_in_an_unknown_language_is_named(tmp_path: Path) -> None:
    with (tmp_path / "odd.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("lab_msgs/msg/Stick", "protobuf", b"?")
        writer.add_message(
            writer.register_channel("/stick", "cdr", schema), 1, b"\x00\x01\x00\x00", 1
        )
        writer.finish()
    with pytest.raises(BagError, match=r"odd\.mcap.*protobuf"):
        describe_bag(tmp_path / "odd.mcap")


def test_damage_inside_a_finished_bag_is_said(tmp_path: Path) -> None:
    """The library skips to the end of such a chunk without a word."""
    steps = own.make_episodes(200, images=True)
    bag = own.write_bag(tmp_path / "bag", steps)
    damage(foreign.data_file(bag), 0.5, 3000)
    reader = StepReader(bag)
    found = list(reader)
    note = next(n for n in reader.notes if "damaged" in n)
    left_out = sum(reader.skipped.values())
    assert 0 < len(found) < len(steps) and str(bag) in note and "/replay" in note
    assert f"{len(steps) - len(found) - left_out} of {len(steps)} messages cannot be read" in note
    assert len([*recorded_steps(bag)]) <= len(found) + left_out


@pytest.mark.parametrize("mode", [CompressionMode.STORAGE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_damage_in_compressed_bags_ends_in_a_line(
    tmp_path: Path, mode: CompressionMode, where: float
) -> None:
    bag = foreign.write(tmp_path / "bag", foreign.session(40), StoragePlugin.MCAP, mode)
    damage(foreign.data_file(bag), where)
    report = ForeignReport()
    try:
        steps, report = foreign.convert(bag)
    except BagError as error:
        assert str(bag) in str(error)
    else:
        said = report.notes or foreign.drivers(steps)[-1] == "|"
        assert said and (report.notes or len(steps) == 41)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.FILE])
def test_a_truncated_bag_is_refused_by_name_or_read_up_to_there(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bag = foreign.write(tmp_path / "bag", foreign.session(40), plugin, mode)
    file = foreign.data_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    parser = argparse.ArgumentParser()
    bag_command.add_arguments(parser)
    assert bag_command.run(parser.parse_args(["info", str(bag)])) == 1
    assert str(bag) in capsys.readouterr().err


def test_one_bad_bag_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mcap").write_bytes(b"nothing")
    bag = foreign.write(tmp_path / "b", foreign.session(5))
    parser = argparse.ArgumentParser()
    bag_command.add_arguments(parser)
    assert bag_command.run(parser.parse_args(["info", str(tmp_path / "a.mcap"), str(bag)])) == 1
    said = capsys.readouterr()
    assert f"{bag}: " in said.out and "a.mcap" in said.err


def test_a_guess_takes_what_it_can_read(tmp_path: Path) -> None:
    text = starter(
        {"/c": "sensor_msgs/msg/CompressedImage", "/u": "std_msgs/msg/Float64MultiArray"}
    )
    guess = yaml.safe_load(text)
    assert guess["cameras"] == {"camera0": "/c"} and guess["command"] == "/u"


def write_with(path: Path, steps: list[StepRecord], broken: dict[int, bytes]) -> Path:
    """A bag of Steps, with other bytes after those steps."""
    with StepWriter(path) as writer:
        for step in steps:
            writer.write(step, step.sequence * own.PERIOD)
            if step.sequence in broken:
                stamp = step.sequence * own.PERIOD + 1
                writer._writer.write(writer._connection, stamp, broken[step.sequence])
    return path


def test_a_step_that_is_not_readable_is_left_out_of_all(tmp_path: Path) -> None:
    steps = own.make_episodes(1)
    bag = write_with(tmp_path / "bag", steps, {1: b"\x00\x01\x00\x00abc", 3: b""})
    reader, notes = StepReader(bag), list[str]()
    own.assert_equal_steps(list(reader), steps)
    assert reader.skipped == {"not readable": 2}
    assert f"{bag}: /replay at {own.PERIOD + 1} ns" in reader.notes[0]
    assert len(list(recorded_steps(bag, notes=notes))) == len(steps) and len(notes) == 2


def test_many_of_a_kind_are_counted_and_not_all_named(tmp_path: Path) -> None:
    steps = [replace(s, state=np.full(3, np.nan, np.float32)) for s in own.make_episodes(20)]
    reader = StepReader(own.write_bag(tmp_path / "bag", steps))
    assert not list(reader) and reader.skipped == {"not finite": 120}
    assert len(reader.notes) == MAX_NOTES + 1


def test_an_episode_of_nothing_but_its_end_is_said(tmp_path: Path) -> None:
    steps = own.make_episodes(1)
    end = own.make_step(6, 0, 0, episode=2)
    reader = StepReader(own.write_bag(tmp_path / "bag", [*steps, end]))
    assert len(list(reader)) == 7
    assert f"at {SECOND + 6 * own.PERIOD} ns: episode 2 is empty" in reader.notes[0]


def test_a_clock_that_was_set_back_is_said(tmp_path: Path) -> None:
    with StepWriter(tmp_path / "bag") as writer:
        for step in own.make_episodes(2):
            back = 3 * SECOND if step.sequence >= 4 else 0
            writer.write(step, 10 * SECOND + step.sequence * own.PERIOD - back)
    reader = StepReader(tmp_path / "bag")
    assert len(list(reader)) == 12 and "the clock was set back" in reader.notes[0]


def test_steps_of_before_a_field_was_added_are_left_out_and_said(tmp_path: Path) -> None:
    store = step_typestore()
    text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
    old = get_typestore(Stores.EMPTY)
    old.register(
        get_types_from_msg(text.replace("uint32 intervention_id\n", ""), "rlif_msgs/msg/Step")
    )
    step = store.deserialize_cdr(
        step_bytes(store, own.make_episodes(1)[0], 1), "rlif_msgs/msg/Step"
    )
    with BagWriter(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/replay", "rlif_msgs/msg/Step", typestore=old)
        kind = old.types["rlif_msgs/msg/Step"]
        values = {name: getattr(step, name) for name in kind.__dataclass_fields__ if name[0] != "_"}
        writer.write(connection, 1, bytes(old.serialize_cdr(kind(**values), kind.__msgtype__)))
    reader = StepReader(tmp_path / "bag")
    assert list(reader) == [] and reader.skipped == {"not valid": 1}
    assert "has no intervention_id" in reader.notes[0]


@pytest.mark.parametrize("back", [0.35, 0.95, 3.0])
def test_steps_that_a_clock_set_back_has_mixed_are_not_joined(tmp_path: Path, back: float) -> None:
    with StepWriter(tmp_path / "bag") as writer:
        for step in own.make_episodes(2):
            shift = round(back * SECOND) if step.sequence >= 4 else 0
            writer.write(step, 10 * SECOND + step.sequence * own.PERIOD - shift)
    steps = list(StepReader(tmp_path / "bag"))
    assert sorted(s.sequence for s in steps) == list(range(12))
    for previous, step in itertools.pairwise(steps):
        assert not follows(step, previous) or step.state[0] == previous.state[0] + 1


def test_two_recordings_in_one_are_refused(tmp_path: Path) -> None:
    """Regression: the next observation of one was taken from the other."""
    with StepWriter(tmp_path / "bag") as writer:
        for one in own.make_episodes(2):
            writer.write(one, 10 * SECOND + one.sequence * own.PERIOD)
            writer.write(
                replace(one, state=one.state + 100), 10 * SECOND + one.sequence * own.PERIOD + 7
            )
    with pytest.raises(BagError, match=r"Step 1 came twice, with others between"):
        list(StepReader(tmp_path / "bag"))


@pytest.mark.parametrize("first", [3, 7, 12])
def test_a_recorder_that_began_anew_is_no_second_recording(tmp_path: Path, first: int) -> None:
    """Regression: it reached the number at which the one before had ended."""
    steps = own.make_episodes(2)
    with StepWriter(tmp_path / "bag") as writer:
        for part in (steps[:first], steps):
            for step in part:
                back = 0 if part is steps else 2 * SECOND
                writer.write(step, 12 * SECOND - back + step.sequence * own.PERIOD)
    assert len(list(StepReader(tmp_path / "bag"))) == first + 12


# ---- of a foreign bag


def camera(name: str, stamp: int, taken: int) -> Any:
    kind = "sensor_msgs/msg/Image"
    image = foreign.TYPES[kind](
        header=foreign.header(taken), height=2, width=2, encoding="mono8", is_bigendian=0, step=2,
        data=np.zeros(4, np.uint8),
    )  # fmt: skip
    return f"/{name}", stamp, kind, image


def two_cameras(lag: int) -> list[Any]:
    messages = foreign.session(5)
    for centi in range(0, 250, 5):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 3_000_000
        messages += [camera("left", stamp, stamp), camera("right", stamp + 1, stamp - lag)]
    return sorted(messages, key=lambda m: m[1])


CAMERAS = {"cameras": {"l": "/left", "r": "/right"}, "image_width": 2, "image_height": 2}


def test_two_cameras_out_of_step_give_no_step(tmp_path: Path) -> None:
    steps, report = foreign.convert(foreign.write(tmp_path / "good", two_cameras(0)), **CAMERAS)
    assert len(steps) == 6 and not report.gaps
    bag = foreign.write(tmp_path / "bad", two_cameras(SECOND // 2))
    steps, report = foreign.convert(bag, **CAMERAS)
    assert not steps and set(report.gaps) == {"cameras out of step"}
    assert f"{bag}: /left, /right at " in report.notes[0] and "0.500 s apart" in report.notes[0]
    assert "is empty" in report.notes[-1]
    steps, _ = foreign.convert(bag, **CAMERAS, max_camera_skew=0.0)
    assert len(steps) == 6


def test_values_that_are_not_finite_leave_a_gap(tmp_path: Path) -> None:
    broken = foreign.pose(SECOND + 2 * SECOND // 10 - 1, float("nan"))
    messages = sorted([*foreign.session(5), broken], key=lambda m: m[1])
    steps, report = foreign.convert(foreign.write(tmp_path / "bag", messages))
    assert [s.step_index for s in steps] == [0, 1, 3, 4, 5]
    assert sum(report.gaps.values()) == 1 and "/arm/pose at " in report.notes[0]


def test_time_that_jumps_back_begins_a_new_episode() -> None:
    """Two files of one bag, the clock was set back in between."""
    report = ForeignReport(bag="bag")
    steps, found = ForeignSteps(foreign.mapping(), report), []
    for part in range(2):
        for topic, stamp, _, message in foreign.session(5):
            found += steps.feed(topic, stamp + (1 - part) * 3600 * SECOND, message)
    found += steps.finish()
    stamps = [stamp for stamp, _ in found]
    assert stamps == sorted(stamps) and report.episodes == 2
    assert [s.outcome for _, s in found if s.is_last] == [Outcome.TRUNCATED] * 2
    assert len(found) == 12
    assert [n for n in report.notes if "time jumps by -3" in n and " at 498000000 ns" in n]


def test_files_that_overlap_a_little_do_not_end_an_episode() -> None:
    """Regression: a bag whose next file began milliseconds before the last one ended."""
    messages = foreign.session(10)
    half = next(i for i, m in enumerate(messages) if m[1] >= SECOND + 45 * SECOND // 100)
    for swapped in (messages, [*messages[: half - 4], *messages[half:][:4], *messages[half - 4 : half],
                               *messages[half + 4 :]]):  # fmt: skip
        report = ForeignReport(bag="bag")
        converter, found = ForeignSteps(foreign.mapping(), report), []
        for topic, stamp, _, message in swapped:
            found += [step for _, step in converter.feed(topic, stamp, message)]
        found += [step for _, step in converter.finish()]
        assert foreign.drivers(found) == foreign.BY_HAND and report.episodes == 1
    assert report.late == 4 and "4 messages out of order" in "\n".join(report.lines())
    assert "the first out of order: logged 0.0" in report.notes[0]


def test_a_silence_of_everything_is_said(tmp_path: Path) -> None:
    late = [(t, s + 100 * SECOND, k, m) for t, s, k, m in foreign.session(5)]
    bag = foreign.write(tmp_path / "bag", foreign.session(5) + late)
    steps, report = foreign.convert(bag)
    assert report.episodes == 2 and any("time jumps by +9" in note for note in report.notes)


def test_one_topic_may_be_two_cameras_with_other_regions(tmp_path: Path) -> None:
    """Regression: the first of two names never got an image."""
    bag = foreign.write(tmp_path / "bag", two_cameras(0))
    cameras = {"all": "/left", "corner": "/left"}
    steps, report = foreign.convert(
        bag, **{**CAMERAS, "cameras": cameras}, rois={"corner": [0, 0, 1, 1]}
    )
    assert len(steps) == 6 and len(steps[0].images) == 2 and not report.gaps


def test_cameras_are_read_as_the_observer_reads_them(tmp_path: Path) -> None:
    """Byte order, region and depth range count; one without its range is refused, by name."""
    depths = np.array([[0, 500], [1000, 2000]], ">u2")  # mm, of which the right column is used
    messages = foreign.session(5)
    for centi in range(0, 250, 5):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 3_000_000
        kind = "sensor_msgs/msg/Image"
        image = foreign.TYPES[kind](
            header=foreign.header(stamp), height=2, width=2, encoding="16UC1", is_bigendian=1,
            step=4, data=np.frombuffer(depths.tobytes(), np.uint8),
        )  # fmt: skip
        messages.append(("/depth", stamp, kind, image))
    bag = foreign.write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    settings = {"cameras": {"d": "/depth"}, "image_width": 1, "image_height": 2}
    steps, _ = foreign.convert(
        bag, **settings, rois={"d": [1, 0, 1, 2]}, depth_ranges={"d": [0.5, 2.0]}
    )
    assert steps and all(s.images[0][:, 0, 0].tolist() == [1, 255] for s in steps)
    steps, report = foreign.convert(bag, **settings)
    assert not steps and any("depth_range" in note for note in report.notes)
    with pytest.raises(ValueError, match="rois: found \\['e'\\]"):
        foreign.mapping(**settings, rois={"e": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match="expected 2 numbers"):
        foreign.mapping(**settings, depth_ranges={"d": [1.0]})
