"""An episode that was discarded, and whose last Step did not get into the bag."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_episodes import PERIOD, make_episodes, run
from rosbags.typesys import get_types_from_msg

from rlif_bags.commands import bag as bag_command
from rlif_bags.commands import export as export_command
from rlif_bags.commands import relabel as relabel_command
from rlif_bags.reading.open import STEP_TYPE
from rlif_bags.reading.step_reader import EPISODE_TYPE, StepReader
from rlif_bags.step_writer import step_bytes, step_typestore
from rlif_bags.train import Data, OfflineConfig, load, make_trainer
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic, qos_profile
from rlif_intervention.message_definitions import definition, type_hash
from rlif_learner.data.steps import Outcome, StepRecord

ENDED, RUNNING = 3, 2
Event = tuple[int, int, int, int]  # before which step, episode, phase, outcome
SMALL = {"hidden": [8], "ensemble_size": 2, "utd": 1}


def record(
    path: Path, steps: list[StepRecord], events: list[Event], episode: str = "/episode"
) -> Path:
    """A bag as the recorder writes it, of these Steps and words on their episodes."""
    store = step_typestore()
    store.register(get_types_from_msg(definition(EPISODE_TYPE), EPISODE_TYPE))
    writer = BagWriter(BagConfig(path))
    for name, kind in (("/replay", STEP_TYPE), (episode, EPISODE_TYPE)):
        writer.add_topic(Topic(name, kind, definition(kind), type_hash(kind), (qos_profile(),)))

    def say(at: int, number: int, phase: int, outcome: int) -> None:
        time = store.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        message = store.types[EPISODE_TYPE](
            header=store.types["std_msgs/msg/Header"](time, frame_id=""), id=number,
            phase=phase, outcome=outcome, reason="", max_steps=0, steps=0, interventions=0,
            operator_steps=0, evaluation=False,
        )  # fmt: skip
        data = bytes(store.serialize_cdr(message, EPISODE_TYPE))
        writer.write(episode, PERIOD + at * PERIOD - 1, data)

    waiting = list(events)
    for step in steps:
        while waiting and waiting[0][0] <= step.sequence:
            say(*waiting.pop(0))
        stamp = PERIOD + step.sequence * PERIOD
        writer.write("/replay", stamp, step_bytes(store, step, stamp))
    for event in waiting:
        say(*event)
    writer.close()
    return path


def discarded(length: int = 6) -> list[StepRecord]:
    """Three episodes; the end of the second is missing."""
    steps = make_episodes(3)
    del steps[2 * length - 1]
    return steps


SAYS: list[Event] = [(0, 1, RUNNING, 0), (6, 1, ENDED, 1), (6, 2, RUNNING, 0),
                     (11, 2, ENDED, 4), (12, 3, RUNNING, 0)]  # fmt: skip


def test_the_episode_topic_ends_what_has_lost_its_end(tmp_path: Path) -> None:
    reader = StepReader(record(tmp_path / "bag", discarded(), SAYS))
    steps = list(reader)
    assert len(steps) == 18 and [s.outcome for s in steps if s.is_last] == [1, 4, 1]
    assert steps[11].outcome == Outcome.DISCARDED and steps[11].step_index == 5
    assert [n for n in reader.notes if "episode 2 was discarded" in n] == reader.notes


@pytest.mark.parametrize("end", [11, 12, 17])
def test_the_end_of_the_bag_is_no_exception(tmp_path: Path, end: int) -> None:
    steps = make_episodes(3)[:end]
    says: list[Event] = [*SAYS[:3], (end, 2 if end < 17 else 3, ENDED, 4)]
    found = list(StepReader(record(tmp_path / "bag", steps, says)))
    if end == 12:  # its last Step is there: that one counts
        assert len(found) == 12 and found[-1].outcome == Outcome.SUCCESS
    else:
        assert len(found) == end + 1 and found[-1].outcome == Outcome.DISCARDED


@pytest.mark.parametrize(
    ("says", "episode"),
    [
        ([], "/episode"),
        (SAYS[:3], "/episode"),
        ([*SAYS[:3], (11, 2, ENDED, 3)], "/episode"),
        (SAYS, "/left/episode"),  # of another robot
        ([(0, 2, ENDED, 4), *SAYS[:3]], "/episode"),  # of an earlier life of the episode node
    ],
)
def test_without_that_word_its_steps_stay(tmp_path: Path, says: list[Event], episode: str) -> None:
    found = list(StepReader(record(tmp_path / "bag", discarded(), says, episode)))
    assert [s.outcome for s in found if s.is_last] == [1, 1] and len(found) == 17


def test_a_last_step_that_cannot_be_used_is_as_good_as_lost(tmp_path: Path) -> None:
    steps = make_episodes(3)
    broken = np.full(3, np.nan, np.float32)
    steps[11] = replace(steps[11], outcome=Outcome.DISCARDED, state=broken)
    reader = StepReader(record(tmp_path / "bag", steps, SAYS))
    assert [s.outcome for s in reader if s.is_last] == [1, 4, 1]
    assert reader.skipped == {"not finite": 1}


def test_nobody_learns_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = record(tmp_path / "whole", make_episodes(3), [])
    bag = record(tmp_path / "bag", discarded(), SAYS)
    assert run(relabel_command, bag, "-o", tmp_path / "labels") == 0
    assert "18 steps, 10 transitions" in capsys.readouterr().out
    assert run(export_command, bag, "-o", tmp_path / "out.npz") == 0
    said = capsys.readouterr().out
    assert "left out, discarded: 1 episodes" in said and "10 transitions of 2 episodes" in said
    assert run(bag_command, "info", bag) == 0
    assert "2 success, 1 discarded" in capsys.readouterr().out
    for path, labels, count in ((whole, None, 15), (bag, None, 10), (bag, tmp_path / "labels", 10)):
        data = Data([path], labels=labels)
        trainer = make_trainer(OfflineConfig(hidden=(8,), settings=SMALL), data)
        load(trainer, data, lambda line: None)
        assert int(trainer.buffers.online.columns["valid"].sum()) == count


def test_what_follows_is_learned_from_whether_the_end_had_a_number_or_not(tmp_path: Path) -> None:
    for numbered in (True, False):  # lost on the way, or never made by the recorder
        after = [replace(s, sequence=s.sequence - (not numbered)) for s in make_episodes(4)[12:]]
        bag = record(tmp_path / str(numbered), [*make_episodes(3)[:11], *after], SAYS)
        reader = StepReader(bag)
        assert [s.outcome for s in reader if s.is_last] == [1, 4, 1, 1] and len(reader.notes) == 1
        trainer = make_trainer(OfflineConfig(hidden=(8,), settings=SMALL), Data([bag]))
        load(trainer, Data([bag]), lambda line: None)
        assert int(trainer.buffers.online.columns["valid"].sum()) == 15
        assert trainer.counts.episodes == 3
