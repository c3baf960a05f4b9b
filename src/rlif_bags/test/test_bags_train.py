"""Offline training: the buffer that it learns from is the one that a live run would have had."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest

from rlif_bags.commands import train as train_command
from rlif_bags.commands.relabel import parse_parameters
from rlif_bags.reading.files import BagError
from rlif_bags.relabelling.relabel import Relabelling, relabel_bag
from rlif_bags.train import Data, OfflineConfig, load, make_trainer, read_parameters
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.steps import Source
from rlif_policy.stored_actor import read_actor

SMALL = {"hidden": (8,), "settings": {"hidden": [8], "ensemble_size": 2, "utd": 1}}


run = partial(helpers.run, train_command)


def loaded(data: Data, **settings: Any) -> Any:
    trainer = make_trainer(OfflineConfig(**{**SMALL, **settings}), data)
    load(trainer, data, print)
    return trainer


def test_the_buffer_is_byte_for_byte_that_of_the_live_learner(tmp_path: Path) -> None:
    """PITFALLS: evaluation, gaps and ends of episodes are where copies differ."""
    steps = helpers.make_episodes(5)
    evaluated = [
        helpers.make_step(s.sequence, s.step_index, 5, s.episode_id, evaluation=s.episode_id == 3)
        for s in steps
    ]
    evaluated.pop(8)  # lost on the way
    trainer = loaded(Data([helpers.write_bag(tmp_path / "bag", evaluated)]))
    live = ReplayBuffer(len(evaluated), 3, 2)
    for step in evaluated:
        live.add_step(step)
    for name, column in live.columns.items():
        assert trainer.buffers.online.columns[name].tobytes() == column.tobytes(), name
    assert len(trainer.buffers.online) == len(live) > 0
    assert trainer.counts.lost == 1


def test_labels_of_relabel_take_the_place_of_the_scheme(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(3))
    relabel_bag(bag, tmp_path / "labels", Relabelling("every_step"))
    given = loaded(Data([bag], labels=tmp_path / "labels")).buffers.online
    direct = loaded(Data([bag]), label_scheme="every_step").buffers.online
    onset = loaded(Data([bag])).buffers.online
    valid = direct.columns["valid"]
    for name in ("reward", "terminal"):
        assert np.array_equal(given.columns[name][valid], direct.columns[name][valid])
    assert not np.array_equal(given.columns["reward"], onset.columns["reward"])


def test_labels_of_a_bag_that_numbers_its_steps_alike_are_refused(tmp_path: Path) -> None:
    """Regression: demonstrations of one length all do."""
    steps = helpers.make_episodes(2)
    bag = helpers.write_bag(tmp_path / "lab1/bag", steps)
    relabel_bag(bag, tmp_path / "labels", Relabelling())
    moved = [replace(s, onset=s.step_index == 2, source=s.source if s.is_last or s.step_index < 2
                     else Source.OPERATOR) for s in steps]  # fmt: skip
    other = helpers.write_bag(tmp_path / "else/lab1/bag", moved)
    with pytest.raises(BagError, match="are not those of the Steps"):
        loaded(Data([other], labels=tmp_path / "labels"))
    same = shutil.copytree(bag, tmp_path / "copy/lab1/bag")
    loaded(Data([same], labels=tmp_path / "labels"))


def quarter(steps: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(steps), -0.25, np.float32), np.zeros(len(steps), np.bool_)


@pytest.mark.parametrize("another", [False, True])
def test_labels_of_a_bag_that_was_cut_are_not_written_over_by_the_next(
    tmp_path: Path, another: bool
) -> None:
    """Regression: the policy step whose label was still open got that of the scheme, 0."""
    steps = helpers.make_episodes(1)[:3]
    steps += [helpers.make_step(n, n, 9, source=Source.NONE, onset=False) for n in (3, 4)]
    bags = [helpers.write_bag(tmp_path / "cut", steps)]
    if another:
        bags.append(helpers.write_bag(tmp_path / "whole", helpers.make_episodes(1)))
    for bag in bags:
        relabel_bag(bag, tmp_path / "labels", Relabelling(f"{__name__}:quarter"))
    buffer = loaded(Data(bags, labels=tmp_path / "labels")).buffers.online
    valid = buffer.columns["valid"]
    assert valid[:5].tolist() == [True] * 4 + [False]
    assert set(buffer.columns["reward"][valid].tolist()) == {np.float32(-0.25)}


@pytest.mark.parametrize(("episodes", "length"), [(1, 5), (3, 5), (3, 3)])
def test_labels_of_another_bag_are_refused(tmp_path: Path, episodes: int, length: int) -> None:
    """Of more Steps too, or of as many in other episodes: every bag counts from 0."""
    (tmp_path / "other").mkdir()
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(2))
    found = helpers.make_episodes(episodes, length=length)
    other = helpers.write_bag(tmp_path / "other/peg", found)
    relabel_bag(other, tmp_path / "labels", Relabelling())
    with pytest.raises(BagError, match="not those of the Steps"):
        loaded(Data([bag], labels=tmp_path / "labels"))


def test_prior_bags_go_into_the_prior_buffer(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    prior = helpers.write_bag(tmp_path / "prior", helpers.make_episodes(4))
    trainer = loaded(Data([bag], prior=[prior]))
    assert (len(trainer.buffers.online), len(trainer.buffers.prior)) == (5, 20)
    first = loaded(Data([prior]), prior_episodes=3)
    assert (len(first.buffers.online), len(first.buffers.prior)) == (5, 15)


def test_several_bags_are_not_joined_to_one(tmp_path: Path) -> None:
    bags = [helpers.write_bag(tmp_path / f"b{i}", helpers.make_episodes(2)) for i in range(3)]
    trainer = loaded(Data(bags))
    assert len(trainer.buffers.online) == 30 and trainer.counts.lost == 0


def test_steps_of_another_robot_are_refused_by_name(tmp_path: Path) -> None:
    steps = helpers.make_episodes(1)
    other = [helpers.make_step(i, i, 5, state=np.zeros(4, np.float32)) for i in range(6)]
    bags = [helpers.write_bag(tmp_path / "a", steps), helpers.write_bag(tmp_path / "b", other)]
    with pytest.raises(ValueError, match=r"/b: state of step 0 .*\(4,\), expected \(3,\)"):
        loaded(Data(bags))


def test_the_command_leaves_a_checkpoint_that_the_policy_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(6))
    config = tmp_path / "learner.yaml"
    config.write_text(
        "/**:\n  ros__parameters:\n    hidden: [8]\n    publish_every: 2\n    rlpd:\n"
        "      hidden: [8]\n      ensemble_size: 2\n      batch_size: 8\n      utd: 2\n"
    )
    words = (bag, "-o", tmp_path / "out", "--config", config, "--updates", 7, "--no-curves")
    assert run(*words, "--set", "seed=5", "--set", "rlpd.utd=3", "--checkpoint-every", 5) == 0
    output = capsys.readouterr().out
    assert "7/7 updates" in output and "not used offline: publish_every" in output
    store = CheckpointStore(tmp_path / "out")
    assert len(store.paths()) == 2
    manifest = store.verify(store.paths()[-1])
    assert manifest["config"]["utd"] == 3 and manifest["extra"]["steps"] == 36
    assert read_actor(tmp_path / "out").spec.state_dim == 3


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))


QUICK = ("--no-curves", "--set", "hidden=[8]", "--set", "rlpd.batch_size=4", "--set", "rlpd.utd=1",
         "--set", "rlpd.hidden=[8]", "--set", "rlpd.ensemble_size=2")  # fmt: skip


def fake_evaluation(summary: str, code: int, called: list[list[str]]) -> Any:
    """In the place of subprocess.run, for `rlif evaluate`."""

    def fake(command: list[str]) -> Any:
        called.append([str(word) for word in command])
        directory = Path(command[-1])
        directory.mkdir(parents=True)
        (directory / "summary.json").write_text(summary)
        return subprocess.CompletedProcess(command, code)

    return fake


def test_the_evaluation_at_the_end_is_that_of_rlif_evaluate(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: its score went into no checkpoint, so that none was ever the best."""
    called: list[list[str]] = []
    fake = fake_evaluation('{"policy_success": 0.8}', 0, called)
    monkeypatch.setattr(train_command.subprocess, "run", fake)
    monkeypatch.setattr(sys, "argv", ["/bin/rlif", "train"])
    out = tmp_path / "out"
    assert run(bag, "-o", out, "--evaluate", 5, "--updates", 1, *QUICK) == 0
    directory = ["--run-directory", str(out / "evaluation")]
    assert called == [["/bin/rlif", "evaluate", str(out), "--eval-episodes", "5", *directory]]
    store = CheckpointStore(out)
    best = store.best()
    assert best == store.paths()[-1] and store.verify(best)["score"] == 0.8


@pytest.mark.parametrize(("summary", "code", "expected"), [("{}", 3, 3), ("{}", 0, 1), ("", 0, 1)])
def test_an_evaluation_that_failed_gives_no_score(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch,
    summary: str, code: int, expected: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(train_command.subprocess, "run", fake_evaluation(summary, code, []))
    out = tmp_path / "out"
    assert run(bag, "-o", out, "--evaluate", 5, "--updates", 1, *QUICK) == expected
    assert CheckpointStore(out).best() is None and CheckpointStore(out).last_good()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), NonFiniteError("loss not finite")])
def test_what_ends_the_training_early_leaves_a_checkpoint(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], failure: BaseException,
) -> None:  # fmt: skip
    """Regression: the updates since the last periodic checkpoint were lost."""
    update = train_command.Trainer.update

    def until_the_third(trainer: Any) -> None:
        if trainer.algorithm.updates == 2:
            raise failure
        update(trainer)

    monkeypatch.setattr(train_command.Trainer, "update", until_the_third)
    words, out = ("--updates", 9, *QUICK), tmp_path / "out"
    if isinstance(failure, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            run(bag, "-o", out, *words)
    else:
        assert run(bag, "-o", out, *words) == 1
        said = capsys.readouterr().err
        assert said.index("last checkpoint: ") < said.index("rlif train: loss not finite")
    store = CheckpointStore(out)
    assert len(store.paths()) == 1
    assert store.verify(store.paths()[0])["values"]["updates"] == 2


@pytest.mark.parametrize("full_for", [1, 2])
def test_a_full_disk_is_tried_once_more_before_the_error_is_shown(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], full_for: int,
) -> None:  # fmt: skip
    save, tries = CheckpointStore.save, []

    def on_a_full_disk(*arguments: Any, **options: Any) -> Path:
        tries.append(1)
        if len(tries) <= full_for:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments, **options)

    monkeypatch.setattr(CheckpointStore, "save", on_a_full_disk)
    words = ("--updates", 9, "--checkpoint-every", 2)
    assert run(bag, "-o", tmp_path / "out", *words, *QUICK) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("last checkpoint: " if full_for == 1 else "no last checkpoint: ")
    assert said[1] == "rlif train: [Errno 28] No space left on device"
    assert len(CheckpointStore(tmp_path / "out").paths()) == 2 - full_for


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(3))
    settings = ("--set", "hidden=[8]", "--set", "rlpd.batch_size=4", "--set", "rlpd.utd=1")
    for name in ("one", "two"):
        assert run(bag, "-o", tmp_path / name, "--updates", 2, "--no-curves", *settings) == 0
    one, two = (read_actor(tmp_path / n).tensors for n in ("one", "two"))
    assert all(np.array_equal(one[k].numpy(), two[k].numpy()) for k in one)


def test_behavioural_cloning_takes_all_bags_as_demonstrations(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(3))
    trainer = loaded(Data([bag]), algorithm="bc", settings={"utd": 1, "batch_size": 4})
    assert len(trainer.buffers.prior) == 15
    trainer.update()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "algorithm=dqn"], "algorithm"),
        (["--set", "rlpd.no=1"], "unknown settings"),
        (["--set", "capacity=5"], "no use for"),
        (["--set", "label_scheme=no"], "scheme"),
        (["--set", "updates_per_step=0.0"], "--updates"),
        (["--prior", "nowhere"], "found no bag"),
        (["--labels", "nowhere"], "there are no such labels"),
        (["--checkpoint-every", "0"], "expected whole numbers of at least 1"),
        (["--updates", "-5"], "expected whole numbers of at least 1"),
    ],
)
def test_what_is_asked_wrongly_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert run(bag, "-o", tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err


def test_a_directory_in_use_is_not_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    assert run(bag, "-o", tmp_path / "out") == 1
    assert "not empty" in capsys.readouterr().err


def test_a_parameter_file_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("learner:\n  seed: 3\n")
    with pytest.raises(ValueError, match="ros__parameters"):
        read_parameters(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed=two", "seed: found 'two', expected a whole number"),
        ("seed=-1", "seed: found -1, expected a whole number of at least 0"),
        ("hidden=64", "hidden: found 64, expected a list"),
        ("state_scale=1.0", "state_scale: found 1.0, expected a list"),
        ("updates_per_step=x", "updates_per_step: found 'x', expected a number"),
        ("torch_threads=0", "torch_threads: found 0, expected a whole number of at least 1"),
        ("layer_norm=1", "layer_norm: found 1, expected true or false"),
        ("rlpd.hidden=8", "hidden: found 8, expected a list"),
        ("image_width=wide", "image_width: found 'wide', expected a whole number"),
        ("cameras=wrist", "cameras: found 'wrist', expected a list"),
        ("cameras=[wrist", r"--set: found '\[wrist', which is no list"),
    ],
)
def test_a_setting_of_another_kind_is_named(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    """Regression: a traceback out of PyTorch, or nothing at all."""
    assert run(bag, "-o", tmp_path / "out", "--updates", 2, "--set", setting) == 1
    assert re.fullmatch(rf"rlif train: {words}.*", capsys.readouterr().err.strip(), re.S)


@pytest.mark.parametrize("text", ["a:\n\tb: 1", "[1, 2]", "/**:\n  ros__parameters:\n", "x"])
def test_what_is_no_parameter_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "learner.yaml").write_text(text)
    with pytest.raises(ValueError, match="learner.yaml: "):
        read_parameters(tmp_path / "learner.yaml")


def test_lists_are_written_as_in_a_parameter_file() -> None:
    given = ["cameras=[wrist, fixed]", "hidden=[8, 8]", "rlpd__utd=3", "encoder=small"]
    assert parse_parameters(given) == {
        "cameras": ["wrist", "fixed"], "hidden": [8, 8], "rlpd__utd": 3, "encoder": "small",
    }  # fmt: skip
