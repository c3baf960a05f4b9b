"""Steps out of bags: equal to what went in, whatever happened to the bag."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bag_episodes import PERIOD, assert_equal_steps, make_episodes, make_step, write_bag
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader

from rlif_bags.commands import bag as bag_command
from rlif_bags.reading.files import BagError, bag_paths, is_finished, unfinished_files
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.repair import repair_bag
from rlif_bags.reading.step_reader import StepReader, read_steps
from rlif_bags.step_writer import StepWriter, step_bytes, step_typestore
from rlif_learner.data.step_messages import image_array
from rlif_learner.data.steps import StepRecord


def write_unfinished(path: Path, steps: list[StepRecord], topic: str = "/replay") -> list[int]:
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


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    steps = make_episodes(images=True)
    assert_equal_steps(list(read_steps(write_bag(tmp_path / "bag", steps))), steps)


def test_images_can_be_left_out(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(images=True))
    assert not any(step.images for step in StepReader(bag, images=False))


def test_an_unfinished_bag_is_read_up_to_its_last_flush(tmp_path: Path) -> None:
    steps = make_episodes(4)
    write_unfinished(tmp_path / "bag", steps)
    reader = StepReader(tmp_path / "bag")
    found = list(reader)
    assert_equal_steps(found, steps[: len(steps) // 4 * 4])
    assert any("not finished" in note and "rlif bag repair" in note for note in reader.notes)


def test_repair_keeps_every_whole_chunk_wherever_the_file_is_cut(tmp_path: Path) -> None:
    """Killed at any byte: what was flushed before is there."""
    steps = make_episodes(4)
    sizes = write_unfinished(tmp_path / "whole", steps)
    file = tmp_path / "whole/whole_0.mcap"
    data = file.read_bytes()
    for number, cut in enumerate(range(sizes[0], sizes[-1], 211)):
        bag = tmp_path / f"cut{number}"
        bag.mkdir()
        (bag / "cut_0.mcap").write_bytes(data[:cut])
        expected = 4 * sum(size <= cut for size in sizes)
        report = repair_bag(bag, tmp_path / f"repaired{number}")
        # The chunk's index follows it: the chunk can be whole where the flush is not.
        assert expected <= report.kept["/replay"] <= expected + 4
        repaired = list(read_steps(tmp_path / f"repaired{number}"))
        assert_equal_steps(repaired, steps[: report.kept["/replay"]])
    assert file.read_bytes() == data, "the source is never modified"


def test_a_damaged_chunk_is_not_believed(tmp_path: Path) -> None:
    sizes = write_unfinished(tmp_path / "bag", make_episodes(4))
    file = tmp_path / "bag/bag_0.mcap"
    data = bytearray(file.read_bytes())
    data[sizes[1] + 200] ^= 0xFF
    file.write_bytes(bytes(data))
    report = repair_bag(tmp_path / "bag", tmp_path / "out")
    assert report.kept == {"/replay": 8} and "bag_0.mcap" in report.cut


def test_a_repaired_bag_opens_by_itself(tmp_path: Path) -> None:
    write_unfinished(tmp_path / "bag", make_episodes(2))
    assert unfinished_files(tmp_path / "bag")
    repair_bag(tmp_path / "bag", tmp_path / "out")
    assert all(is_finished(f) for f in (tmp_path / "out").glob("*.mcap"))
    with AnyReader([tmp_path / "out"]) as reader:
        assert reader.message_count == 12


def test_a_bag_without_metadata_is_read(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bag = write_bag(tmp_path / "bag", steps)
    (bag / "metadata.yaml").unlink()
    assert_equal_steps(list(read_steps(bag)), steps)


def test_a_single_mcap_file_is_a_bag(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bag = write_bag(tmp_path / "bag", steps)
    assert_equal_steps(list(read_steps(next(bag.glob("*.mcap")))), steps)


def test_steps_that_are_not_finite_are_left_out_and_named(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bad = make_step(2, 2, 5, state=np.array([np.nan, 0, 0], np.float32))
    reader = StepReader(write_bag(tmp_path / "bag", [*steps[:2], bad, *steps[3:]]))
    found = list(reader)
    assert [s.sequence for s in found] == [0, 1, 3, 4, 5]
    assert reader.skipped == {"not finite": 1}
    assert "step 2 of episode 1" in reader.notes[0] and str(tmp_path) in reader.notes[0]


def test_two_recorders_in_one_bag_are_noticed(tmp_path: Path) -> None:
    steps = make_episodes(2)
    with StepWriter(tmp_path / "bag") as writer:
        for at, step in enumerate([*steps[6:], *steps[:6]]):
            writer.write(step, at)
    reader = StepReader(tmp_path / "bag")
    assert len(list(reader)) == 12 and "more than one recorder" in reader.notes[0]


def test_no_steps_says_what_is_there_instead(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(1))
    with pytest.raises(BagError, match=r"no Steps on /other, only \['/replay"):
        list(read_steps(bag, "/other"))


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"something else"])
def test_what_is_no_bag_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mcap").write_bytes(content)
    with pytest.raises(BagError, match=r"bad\.mcap"), open_bag(tmp_path / "bad.mcap"):
        pass


def test_directories_of_bags_stand_for_their_bags(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_bag(tmp_path / name, make_episodes(1))
    assert bag_paths([tmp_path]) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(BagError, match="found no bag"):
        bag_paths([tmp_path / "c"])


def test_a_failed_write_leaves_no_bag(tmp_path: Path) -> None:
    with pytest.raises(KeyError), StepWriter(tmp_path / "bag") as writer:
        writer.write(make_step(0, 0, 5), 0)
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_info_tells_episodes_and_missing_steps(tmp_path: Path) -> None:
    steps = make_episodes(3)
    lines = "\n".join(describe_bag(write_bag(tmp_path / "bag", steps[:7] + steps[8:])))
    assert "3 episodes (3 success), 17 steps" in lines and "1 missing" in lines
    assert "10.0 Hz" in lines and "3 interventions" in lines


def test_the_command_repairs_and_informs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    def run(*words: str) -> int:
        parser = argparse.ArgumentParser()
        bag_command.add_arguments(parser)
        return bag_command.run(parser.parse_args(words))

    write_unfinished(tmp_path / "bag", make_episodes(2))
    assert run("repair", str(tmp_path / "bag"), "-o", str(tmp_path / "out")) == 0
    assert run("info", str(tmp_path / "out")) == 0
    assert "2 episodes" in capsys.readouterr().out
    assert run("repair", str(tmp_path / "bag"), "-o", str(tmp_path / "out")) == 1
    assert "exists already" in capsys.readouterr().err


def test_padded_and_grey_images() -> None:
    class Image:
        encoding, height, width, step = "mono8", 2, 3, 4
        data = np.arange(8, dtype=np.uint8)

    assert image_array(Image()).tolist() == [[[0], [1], [2]], [[4], [5], [6]]]
    Image.encoding = "16UC1"
    with pytest.raises(ValueError, match="encoding"):
        image_array(Image())


def test_temporary_copies_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    write_unfinished(tmp_path / "bag", make_episodes(2))
    list(read_steps(tmp_path / "bag"))
    assert list((tmp_path / "tmp").iterdir()) == []
    shutil.rmtree(tmp_path / "bag")
