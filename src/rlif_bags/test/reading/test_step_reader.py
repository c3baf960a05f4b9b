# SPDX-License-Identifier: Apache-2.0
"""Steps of a bag: equal to what was recorded; what cannot be used is left out and named."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from external_sessions import SECOND
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from step_bags import (
    ENDED,
    EPISODE_EVENTS,
    PERIOD,
    Event,
    assert_equal_steps,
    discarded,
    make_episodes,
    make_step,
    record_bag,
    write_bag,
    write_old_bag,
    write_unfinished_bag,
)

from rlif_bags.drawing.film import find_takes
from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import MAX_NOTES, StepReader
from rlif_bags.relabelling.relabel import episodes_of
from rlif_bags.replay import recorded_steps
from rlif_bags.step_writer import StepWriter, step_bytes, step_typestore
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, StepRecord, follows


def test_step_reader_written_bag_gives_equal_steps(tmp_path: Path) -> None:
    steps = make_episodes(images=True)
    assert_equal_steps(list(StepReader(write_bag(tmp_path / "bag", steps))), steps)


def test_step_reader_bag_of_before_camera_names_gives_equal_steps_and_labels(
    tmp_path: Path,
) -> None:
    steps, cameras = make_episodes(2, images=True), ("wrist", "fixed")
    old = write_old_bag(tmp_path / "old", steps, cameras)
    new = write_bag(tmp_path / "new", steps, cameras=cameras)
    bags = [list(StepReader(bag)) for bag in (old, new)]
    for found in bags:
        assert_equal_steps(found, steps)
        assert all(step.cameras == cameras for step in found)
        for one, other in zip(episodes_of(found), episodes_of(steps), strict=True):
            labels, expected = label_rewards(one, "onset"), label_rewards(other, "onset")
            assert all(np.array_equal(a, b) for a, b in zip(labels, expected, strict=True))
            assert np.any(labels[0] < 0.0)
    assert [find_takes(bag)[0].cameras for bag in (old, new)] == [cameras, cameras]


def test_step_reader_without_images_leaves_them_out(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(images=True))
    assert not any(step.images for step in StepReader(bag, images=False))


def test_step_reader_unfinished_bag_is_read_to_last_flush(tmp_path: Path) -> None:
    steps = make_episodes(4)
    write_unfinished_bag(tmp_path / "bag", steps)
    reader = StepReader(tmp_path / "bag")
    found = list(reader)
    assert_equal_steps(found, steps[: len(steps) // 4 * 4])
    assert any("not finished" in note and "rlif bag repair" in note for note in reader.notes)


def test_step_reader_step_not_finite_is_left_out_and_named(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bad = make_step(2, 2, 5, state=np.array([np.nan, 0, 0], np.float32))
    reader = StepReader(write_bag(tmp_path / "bag", [*steps[:2], bad, *steps[3:]]))
    found = list(reader)
    assert [s.sequence for s in found] == [0, 1, 3, 4, 5]
    assert reader.skipped == {"not finite": 1}
    assert "step 2 of episode 1" in reader.notes[0] and str(tmp_path) in reader.notes[0]


def test_step_reader_no_steps_lists_the_topics_that_are_there(bag: Path) -> None:
    with pytest.raises(BagError, match=r"no Steps on /other, only \['/replay"):
        list(StepReader(bag, "/other"))


def write_with(path: Path, steps: list[StepRecord], broken: dict[int, bytes]) -> Path:
    """A bag of Steps, with other bytes after those steps."""
    with StepWriter(path) as writer:
        for step in steps:
            writer.write(step, step.sequence * PERIOD)
            if step.sequence in broken:
                stamp = step.sequence * PERIOD + 1
                writer._writer.write(writer._connection, stamp, broken[step.sequence])
    return path


def test_step_reader_unreadable_step_is_left_out_here_and_in_replay(tmp_path: Path) -> None:
    steps = make_episodes(1)
    bag = write_with(tmp_path / "bag", steps, {1: b"\x00\x01\x00\x00abc", 3: b""})
    reader, notes = StepReader(bag), list[str]()
    assert_equal_steps(list(reader), steps)
    assert reader.skipped == {"not readable": 2}
    assert f"{bag}: /replay at {PERIOD + 1} ns" in reader.notes[0]
    assert len(list(recorded_steps(bag, notes=notes))) == len(steps) and len(notes) == 2


def test_step_reader_many_notes_of_a_kind_are_counted(tmp_path: Path) -> None:
    steps = [replace(s, state=np.full(3, np.nan, np.float32)) for s in make_episodes(20)]
    reader = StepReader(write_bag(tmp_path / "bag", steps))
    assert not list(reader) and reader.skipped == {"not finite": 120}
    assert len(reader.notes) == MAX_NOTES + 1


def test_step_reader_episode_of_only_its_end_is_noted(tmp_path: Path) -> None:
    steps = make_episodes(1)
    end = make_step(6, 0, 0, episode=2)
    reader = StepReader(write_bag(tmp_path / "bag", [*steps, end]))
    assert len(list(reader)) == 7
    assert f"at {SECOND + 6 * PERIOD} ns: episode 2 is empty" in reader.notes[0]


def test_step_reader_clock_set_back_is_noted(tmp_path: Path) -> None:
    with StepWriter(tmp_path / "bag") as writer:
        for step in make_episodes(2):
            back = 3 * SECOND if step.sequence >= 4 else 0
            writer.write(step, 10 * SECOND + step.sequence * PERIOD - back)
    reader = StepReader(tmp_path / "bag")
    assert len(list(reader)) == 12 and "the clock was set back" in reader.notes[0]


def test_step_reader_steps_without_a_field_are_left_out(tmp_path: Path) -> None:
    store = step_typestore()
    text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
    old = get_typestore(Stores.EMPTY)
    old.register(
        get_types_from_msg(text.replace("uint32 intervention_id\n", ""), "rlif_msgs/msg/Step")
    )
    step = store.deserialize_cdr(step_bytes(store, make_episodes(1)[0], 1), "rlif_msgs/msg/Step")
    with BagWriter(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/replay", "rlif_msgs/msg/Step", typestore=old)
        kind = old.types["rlif_msgs/msg/Step"]
        values = {name: getattr(step, name) for name in kind.__dataclass_fields__ if name[0] != "_"}
        writer.write(connection, 1, bytes(old.serialize_cdr(kind(**values), kind.__msgtype__)))
    reader = StepReader(tmp_path / "bag")
    assert list(reader) == [] and reader.skipped == {"not valid": 1}
    assert "has no intervention_id" in reader.notes[0]


@pytest.mark.parametrize("back", [0.35, 0.95, 3.0])
def test_step_reader_steps_mixed_by_a_clock_set_back_are_not_joined(
    tmp_path: Path, back: float
) -> None:
    with StepWriter(tmp_path / "bag") as writer:
        for step in make_episodes(2):
            shift = round(back * SECOND) if step.sequence >= 4 else 0
            writer.write(step, 10 * SECOND + step.sequence * PERIOD - shift)
    steps = list(StepReader(tmp_path / "bag"))
    assert sorted(s.sequence for s in steps) == list(range(12))
    for previous, step in itertools.pairwise(steps):
        assert not follows(step, previous) or step.state[0] == previous.state[0] + 1


def test_step_reader_two_interleaved_recordings_are_refused(tmp_path: Path) -> None:
    """Regression: the next observation of one was taken from the other."""
    with StepWriter(tmp_path / "bag") as writer:
        for one in make_episodes(2):
            writer.write(one, 10 * SECOND + one.sequence * PERIOD)
            writer.write(
                replace(one, state=one.state + 100), 10 * SECOND + one.sequence * PERIOD + 7
            )
    with pytest.raises(BagError, match=r"Step 1 came twice, with others between"):
        list(StepReader(tmp_path / "bag"))


@pytest.mark.parametrize("first", [3, 7, 12])
def test_step_reader_restarted_recorder_is_read(tmp_path: Path, first: int) -> None:
    """Regression: it reached the number at which the one before had ended."""
    steps = make_episodes(2)
    with StepWriter(tmp_path / "bag") as writer:
        for part in (steps[:first], steps):
            for step in part:
                back = 0 if part is steps else 2 * SECOND
                writer.write(step, 12 * SECOND - back + step.sequence * PERIOD)
    assert len(list(StepReader(tmp_path / "bag"))) == first + 12


def test_step_reader_discard_on_the_episode_topic_ends_the_episode(tmp_path: Path) -> None:
    reader = StepReader(record_bag(tmp_path / "bag", discarded(), EPISODE_EVENTS))
    steps = list(reader)
    assert len(steps) == 18 and [s.outcome for s in steps if s.is_last] == [1, 4, 1]
    assert steps[11].outcome == Outcome.DISCARDED and steps[11].step_index == 5
    assert [n for n in reader.notes if "episode 2 was discarded" in n] == reader.notes


@pytest.mark.parametrize("end", [11, 12, 17])
def test_step_reader_discard_at_the_end_of_the_bag_ends_the_episode(
    tmp_path: Path, end: int
) -> None:
    steps = make_episodes(3)[:end]
    events: list[Event] = [*EPISODE_EVENTS[:3], (end, 2 if end < 17 else 3, ENDED, 4)]
    found = list(StepReader(record_bag(tmp_path / "bag", steps, events)))
    if end == 12:  # its last Step is there: that one counts
        assert len(found) == 12 and found[-1].outcome == Outcome.SUCCESS
    else:
        assert len(found) == end + 1 and found[-1].outcome == Outcome.DISCARDED


@pytest.mark.parametrize(
    ("events", "episode"),
    [
        ([], "/episode"),
        (EPISODE_EVENTS[:3], "/episode"),
        ([*EPISODE_EVENTS[:3], (11, 2, ENDED, 3)], "/episode"),
        (EPISODE_EVENTS, "/left/episode"),  # of another robot
        (
            [(0, 2, ENDED, 4), *EPISODE_EVENTS[:3]],
            "/episode",
        ),  # of an earlier life of the episode node
    ],
)
def test_step_reader_without_discard_message_keeps_the_steps(
    tmp_path: Path, events: list[Event], episode: str
) -> None:
    found = list(StepReader(record_bag(tmp_path / "bag", discarded(), events, episode)))
    assert [s.outcome for s in found if s.is_last] == [1, 1] and len(found) == 17


def test_step_reader_unusable_last_step_of_a_discarded_episode_is_replaced(tmp_path: Path) -> None:
    steps = make_episodes(3)
    broken = np.full(3, np.nan, np.float32)
    steps[11] = replace(steps[11], outcome=Outcome.DISCARDED, state=broken)
    reader = StepReader(record_bag(tmp_path / "bag", steps, EPISODE_EVENTS))
    assert [s.outcome for s in reader if s.is_last] == [1, 4, 1]
    assert reader.skipped == {"not finite": 1}
