# SPDX-License-Identifier: Apache-2.0
"""`rlif train`."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_bags import Cli, make_episodes, rlif, write_bag

from rlif_bags.commands import train as train_command
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_policy.stored_actor import read_actor


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bag", make_episodes(2))


def test_train_leaves_a_checkpoint_that_the_policy_reads(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(6))
    config = tmp_path / "learner.yaml"
    config.write_text(
        "/**:\n  ros__parameters:\n    hidden: [8]\n    publish_every: 2\n    rlpd:\n"
        "      hidden: [8]\n      ensemble_size: 2\n      batch_size: 8\n      utd: 2\n"
    )
    args = (bag, "-o", tmp_path / "out", "--config", config, "--updates", 7, "--no-curves")
    settings = ("--set", "seed=5", "--set", "rlpd.utd=3", "--checkpoint-every", 5)
    output = cli.succeeds("train", *args, *settings)
    assert "7/7 updates" in output and "not used offline: publish_every" in output
    store = CheckpointStore(tmp_path / "out")
    assert len(store.paths()) == 2
    manifest = store.verify(store.paths()[-1])
    assert manifest["config"]["utd"] == 3 and manifest["extra"]["steps"] == 36
    assert read_actor(tmp_path / "out").spec.state_dim == 3


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


def test_train_evaluate_scores_the_last_checkpoint(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: its score went into no checkpoint, so that none was ever the best."""
    called: list[list[str]] = []
    fake = fake_evaluation('{"policy_success": 0.8}', 0, called)
    monkeypatch.setattr(train_command.subprocess, "run", fake)
    monkeypatch.setattr(sys, "argv", ["/bin/rlif", "train"])
    out = tmp_path / "out"
    assert rlif("train", bag, "-o", out, "--evaluate", 5, "--updates", 1, *QUICK) == 0
    directory = ["--run-directory", str(out / "evaluation")]
    assert called == [["/bin/rlif", "evaluate", str(out), "--eval-episodes", "5", *directory]]
    store = CheckpointStore(out)
    best = store.best()
    assert best == store.paths()[-1] and store.verify(best)["score"] == 0.8


@pytest.mark.parametrize(("summary", "code", "expected"), [("{}", 3, 3), ("{}", 0, 1), ("", 0, 1)])
def test_train_failed_evaluation_gives_no_score(
    tmp_path: Path,
    bag: Path,
    monkeypatch: pytest.MonkeyPatch,
    summary: str,
    code: int,
    expected: int,
) -> None:
    monkeypatch.setattr(train_command.subprocess, "run", fake_evaluation(summary, code, []))
    out = tmp_path / "out"
    assert rlif("train", bag, "-o", out, "--evaluate", 5, "--updates", 1, *QUICK) == expected
    assert CheckpointStore(out).best() is None and CheckpointStore(out).last_good()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), NonFiniteError("loss not finite")])
def test_train_ended_early_leaves_a_checkpoint(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, failure: BaseException
) -> None:
    """Regression: the updates since the last periodic checkpoint were lost."""
    update = train_command.Trainer.update

    def until_the_third(trainer: Any) -> None:
        if trainer.algorithm.updates == 2:
            raise failure
        update(trainer)

    monkeypatch.setattr(train_command.Trainer, "update", until_the_third)
    args, out = ("--updates", 9, *QUICK), tmp_path / "out"
    if isinstance(failure, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            rlif("train", bag, "-o", out, *args)
    else:
        printed = cli.fails("train", bag, "-o", out, *args)
        assert printed.index("last checkpoint: ") < printed.index("rlif train: loss not finite")
    store = CheckpointStore(out)
    assert len(store.paths()) == 1
    assert store.verify(store.paths()[0])["values"]["updates"] == 2


@pytest.mark.parametrize("full_for", [1, 2])
def test_train_on_a_full_disk_tries_once_more(
    tmp_path: Path,
    bag: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
    full_for: int,
) -> None:
    save, tries = CheckpointStore.save, []

    def on_a_full_disk(*args: Any, **options: Any) -> Path:
        tries.append(1)
        if len(tries) <= full_for:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*args, **options)

    monkeypatch.setattr(CheckpointStore, "save", on_a_full_disk)
    args = ("--updates", 9, "--checkpoint-every", 2)
    printed = cli.fails("train", bag, "-o", tmp_path / "out", *args, *QUICK).splitlines()
    assert printed[0].startswith("last checkpoint: " if full_for == 1 else "no last checkpoint: ")
    assert printed[1] == "rlif train: [Errno 28] No space left on device"
    assert len(CheckpointStore(tmp_path / "out").paths()) == 2 - full_for


def test_train_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(3))
    settings = ("--set", "hidden=[8]", "--set", "rlpd.batch_size=4", "--set", "rlpd.utd=1")
    for name in ("one", "two"):
        assert (
            rlif("train", bag, "-o", tmp_path / name, "--updates", 2, "--no-curves", *settings) == 0
        )
    one, two = (read_actor(tmp_path / n).tensors for n in ("one", "two"))
    assert all(np.array_equal(one[k].numpy(), two[k].numpy()) for k in one)


def test_train_directory_in_use_is_refused(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(1))
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    assert "not empty" in cli.fails("train", bag, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "message"),
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
def test_train_setting_of_another_kind_is_named(
    bag: Path, tmp_path: Path, cli: Cli, setting: str, message: str
) -> None:
    """Regression: a traceback out of PyTorch, or nothing at all."""
    error = cli.fails("train", bag, "-o", tmp_path / "out", "--updates", 2, "--set", setting)
    assert re.fullmatch(rf"rlif train: {message}.*", error.strip(), re.S)
