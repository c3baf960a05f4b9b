# SPDX-License-Identifier: Apache-2.0
"""Offline training: the buffer is the one that a live run would have had."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_bags import (
    EPISODE_EVENTS,
    Cli,
    discarded,
    make_episodes,
    make_step,
    record_bag,
    write_bag,
)

from rlif_bags.reading.files import BagError
from rlif_bags.reading.step_reader import StepReader
from rlif_bags.relabelling.relabel import Relabelling, relabel_bag
from rlif_bags.train import Data, OfflineConfig, load, make_trainer, read_parameters
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.steps import Source


def test_discarded_episode_without_its_end_is_not_learned_from(tmp_path: Path, cli: Cli) -> None:
    whole = record_bag(tmp_path / "whole", make_episodes(3), [])
    bag = record_bag(tmp_path / "bag", discarded(), EPISODE_EVENTS)
    assert "18 steps, 10 transitions" in cli.succeeds("relabel", bag, "-o", tmp_path / "labels")
    printed = cli.succeeds("export", bag, "-o", tmp_path / "out.npz")
    assert (
        "left out, discarded: 1 episodes" in printed and "10 transitions of 2 episodes" in printed
    )
    assert "2 success, 1 discarded" in cli.succeeds("bag", "info", bag)
    for path, labels, count in ((whole, None, 15), (bag, None, 10), (bag, tmp_path / "labels", 10)):
        trainer = loaded(Data([path], labels=labels))
        assert int(trainer.buffers.online.columns["valid"].sum()) == count


def test_episodes_after_a_discarded_one_are_learned_from(tmp_path: Path) -> None:
    for numbered in (True, False):  # lost on the way, or never made by the recorder
        after = [replace(s, sequence=s.sequence - (not numbered)) for s in make_episodes(4)[12:]]
        bag = record_bag(tmp_path / str(numbered), [*make_episodes(3)[:11], *after], EPISODE_EVENTS)
        reader = StepReader(bag)
        assert [s.outcome for s in reader if s.is_last] == [1, 4, 1, 1] and len(reader.notes) == 1
        trainer = loaded(Data([bag]))
        assert int(trainer.buffers.online.columns["valid"].sum()) == 15
        assert trainer.counts.episodes == 3


SMALL = {"hidden": (8,), "settings": {"hidden": [8], "ensemble_size": 2, "utd": 1}}


def loaded(data: Data, **settings: Any) -> Any:
    trainer = make_trainer(OfflineConfig(**{**SMALL, **settings}), data)
    load(trainer, data, print)
    return trainer


def test_load_buffer_is_byte_for_byte_that_of_the_live_learner(tmp_path: Path) -> None:
    """PITFALLS: evaluation, gaps and ends of episodes are where copies differ."""
    steps = make_episodes(5)
    evaluated = [
        make_step(s.sequence, s.step_index, 5, s.episode_id, evaluation=s.episode_id == 3)
        for s in steps
    ]
    evaluated.pop(8)  # lost on the way
    trainer = loaded(Data([write_bag(tmp_path / "bag", evaluated)]))
    live = ReplayBuffer(len(evaluated), 3, 2)
    for step in evaluated:
        live.add_step(step)
    for name, column in live.columns.items():
        assert trainer.buffers.online.columns[name].tobytes() == column.tobytes(), name
    assert len(trainer.buffers.online) == len(live) > 0
    assert trainer.counts.lost == 1


def test_load_labels_replace_the_scheme(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(3))
    relabel_bag(bag, tmp_path / "labels", Relabelling("every_step"))
    given = loaded(Data([bag], labels=tmp_path / "labels")).buffers.online
    direct = loaded(Data([bag]), label_scheme="every_step").buffers.online
    onset = loaded(Data([bag])).buffers.online
    valid = direct.columns["valid"]
    for name in ("reward", "terminal"):
        assert np.array_equal(given.columns[name][valid], direct.columns[name][valid])
    assert not np.array_equal(given.columns["reward"], onset.columns["reward"])


def test_load_labels_of_a_bag_with_the_same_numbers_are_refused(tmp_path: Path) -> None:
    """Regression: demonstrations of one length all do."""
    steps = make_episodes(2)
    bag = write_bag(tmp_path / "lab1/bag", steps)
    relabel_bag(bag, tmp_path / "labels", Relabelling())
    moved = [replace(s, onset=s.step_index == 2, source=s.source if s.is_last or s.step_index < 2
                     else Source.OPERATOR) for s in steps]  # fmt: skip
    other = write_bag(tmp_path / "else/lab1/bag", moved)
    with pytest.raises(BagError, match="are not those of the Steps"):
        loaded(Data([other], labels=tmp_path / "labels"))
    same = shutil.copytree(bag, tmp_path / "copy/lab1/bag")
    loaded(Data([same], labels=tmp_path / "labels"))


@pytest.mark.parametrize("another", [False, True])
def test_load_labels_of_a_cut_bag_are_kept(tmp_path: Path, another: bool) -> None:
    """Regression: the policy step whose label was still open got that of the scheme, 0."""
    steps = make_episodes(1)[:3]
    steps += [make_step(n, n, 9, source=Source.NONE, onset=False) for n in (3, 4)]
    bags = [write_bag(tmp_path / "cut", steps)]
    if another:
        bags.append(write_bag(tmp_path / "whole", make_episodes(1)))
    for bag in bags:
        relabel_bag(bag, tmp_path / "labels", Relabelling("step_bags:constant_labels"))
    buffer = loaded(Data(bags, labels=tmp_path / "labels")).buffers.online
    valid = buffer.columns["valid"]
    assert valid[:5].tolist() == [True] * 4 + [False]
    assert set(buffer.columns["reward"][valid].tolist()) == {np.float32(-0.25)}


def test_load_positive_labels_are_refused_where_values_are_clipped(tmp_path: Path) -> None:
    """They would have no effect beyond their own step."""
    bag, labels = write_bag(tmp_path / "bag", make_episodes(1)), tmp_path / "labels"
    relabel_bag(bag, labels, Relabelling("step_bags:positive_labels"))
    clipped = {"entropy_in_target": False, "clip_positive_values": True}
    with pytest.raises(ValueError, match="found 1, expected none above 0.*clip_positive_values=fa"):
        loaded(Data([bag], labels=labels), settings=SMALL["settings"] | clipped)
    loaded(Data([bag], labels=labels))


@pytest.mark.parametrize(("episodes", "length"), [(1, 5), (3, 5), (3, 3)])
def test_load_labels_of_another_bag_are_refused(tmp_path: Path, episodes: int, length: int) -> None:
    """Of more Steps too, or of as many in other episodes: every bag counts from 0."""
    (tmp_path / "other").mkdir()
    bag = write_bag(tmp_path / "peg", make_episodes(2))
    found = make_episodes(episodes, length=length)
    other = write_bag(tmp_path / "other/peg", found)
    relabel_bag(other, tmp_path / "labels", Relabelling())
    with pytest.raises(BagError, match="not those of the Steps"):
        loaded(Data([bag], labels=tmp_path / "labels"))


def test_load_prior_bags_go_into_the_prior_buffer(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(1))
    prior = write_bag(tmp_path / "prior", make_episodes(4))
    trainer = loaded(Data([bag], prior=[prior]))
    assert (len(trainer.buffers.online), len(trainer.buffers.prior)) == (5, 20)
    first = loaded(Data([prior]), prior_episodes=3)
    assert (len(first.buffers.online), len(first.buffers.prior)) == (5, 15)


def test_load_several_bags_are_not_joined(tmp_path: Path) -> None:
    bags = [write_bag(tmp_path / f"b{i}", make_episodes(2)) for i in range(3)]
    trainer = loaded(Data(bags))
    assert len(trainer.buffers.online) == 30 and trainer.counts.lost == 0


def test_load_steps_of_another_robot_are_refused_by_name(tmp_path: Path) -> None:
    steps = make_episodes(1)
    other = [make_step(i, i, 5, state=np.zeros(4, np.float32)) for i in range(6)]
    bags = [write_bag(tmp_path / "a", steps), write_bag(tmp_path / "b", other)]
    with pytest.raises(ValueError, match=r"/b: state of step 0 .*\(4,\), expected \(3,\)"):
        loaded(Data(bags))


def test_load_behavioural_cloning_takes_all_bags_as_demonstrations(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(3))
    trainer = loaded(Data([bag]), algorithm="bc", settings={"utd": 1, "batch_size": 4})
    assert len(trainer.buffers.prior) == 15
    trainer.update()


@pytest.mark.parametrize("text", ["a:\n\tb: 1", "[1, 2]", "/**:\n  ros__parameters:\n", "x"])
def test_read_parameters_no_parameter_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "learner.yaml").write_text(text)
    with pytest.raises(ValueError, match="learner.yaml: "):
        read_parameters(tmp_path / "learner.yaml")
