# SPDX-License-Identifier: Apache-2.0
"""Several processes learn together and end with the same weights: torchrun as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from step_bags import make_episodes, write_bag

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.engines import distributed
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import read_actor

TORCHRUN = Path(sys.executable).with_name("torchrun")
DEADLINE = 100.0  # s; most of it is the import of PyTorch, in three processes
MARK = "RLIF_TEST_TORCHRUN"  # in the environment of all that torchrun starts
WORKER = Path(__file__).parents[1] / "distributed_worker.py"
SETTINGS = ("--set", "hidden=[8]", "--set", "rlpd.hidden=[8]", "--set", "rlpd.ensemble_size=2",
            "--set", "rlpd.batch_size=8", "--set", "rlpd.utd=2")  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3 * DEADLINE),
    pytest.mark.skipif(
        not (torch.distributed.is_available() and TORCHRUN.exists()),
        reason="PyTorch without distributed, or no torchrun beside this Python",
    ),
]


def torchrun(*words):
    """Two processes on a free port of this host; exit code and output. None of them is left."""
    own = {"OMP_NUM_THREADS": "1", MARK: str(os.getpid())}
    process = subprocess.Popen(
        [TORCHRUN, "--standalone", "--nproc-per-node", "2", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **own},
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends its workers, with force after 30 s
        output, _ = process.communicate(timeout=40)
        pytest.fail(f"torchrun did not end within {DEADLINE} s:\n{output}")
    finally:
        left = marked_processes(f"{MARK}={os.getpid()}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left
    return process.returncode, output


def marked_processes(mark):
    """Those that have this line in the environment that they were started with."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and mark in (path / "environ").read_text().split("\0"):
                found.append(int(path.name))
        except (OSError, UnicodeDecodeError):  # it has ended, or is another user's
            continue
    return found


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", make_episodes(6))


@pytest.fixture(scope="module")
def seen(tmp_path_factory, bag):
    """What the two processes of distributed_worker.py have seen."""
    directory = tmp_path_factory.mktemp("workers")
    words = (bag, "-o", directory / "out", "--updates", 50, "--no-curves", *SETTINGS)
    code, output = torchrun(WORKER, directory, *words)
    assert code == 0, output
    found = [json.loads((directory / f"rank-{rank}.json").read_text()) for rank in range(2)]
    return SimpleNamespace(found=found, out=directory / "out")


@pytest.fixture(scope="module")
def found(seen):
    return seen.found


@pytest.mark.parametrize("algorithm", ["rlpd", "bc"])
def test_two_processes_end_with_identical_weights(found, algorithm):
    """Regression: optimiser steps and counters were not taken over from the first process."""
    one, two = (own[algorithm] for own in found)
    assert [own["count"] for own in found] == [2, 2]
    assert one == two
    assert one["joined"] != one["learned"]
    assert one["updates"] == 2 + 5  # two were done by the first process before it was joined


def test_what_one_has_failed_in_all_know(found):
    assert [own["failed"] for own in found] == [[1, None], [1, None]]


def test_a_resumed_process_draws_other_batches_than_before(found):
    """Regression: the seed was made of the rank alone, and each resume repeated the batches."""
    drawn = [tuple(values) for own in found for values in own["draws"]]
    assert len(drawn) == len(set(drawn)) == 8  # two processes, twice, batches and noise


@pytest.mark.parametrize("algorithm", ["rlpd", "bc"])
def test_all_refuse_a_step_that_one_must_refuse(found, algorithm):
    """Regression: one that alone raised NonFiniteError left the others waiting."""
    for own in found:
        assert "not finite" in own[f"{algorithm} refuses"]["error"]
        assert own[f"{algorithm} refuses"]["unchanged"]


def test_nobody_waits_for_one_that_is_gone(found):
    assert "another process has ended" in found[0]["left"]


def test_without_a_group_it_says_what_to_do():
    learner = RLPD(RLPDConfig(hidden=(8,), ensemble_size=2), PolicySpec(3, 2))
    with pytest.raises(RuntimeError, match="torchrun.*processes"):
        distributed.join(learner)
    with distributed.processes() as own:
        assert (own.rank, own.count, own.is_first) == (0, 1, True)
        assert (own.first_failed(True), own.first_failed(False)) == (0, None)


def test_rlif_train_in_two_processes(tmp_path, bag):
    """As docs/learner.md says: the first one writes and speaks, both end, with equal weights."""
    assert shutil.which("rlif")
    out = tmp_path / "out"
    words = ("--no-python", "rlif", "train", bag, "-o", out, "--updates", 7, *SETTINGS)
    code, output = torchrun(*words, "--checkpoint-every", 5)
    assert code == 0, output
    for once in ("7/7 updates", "2 processes with the same weights: sha256 ", "checkpoint: "):
        assert output.count(once) == 1, output
    store = CheckpointStore(out)
    assert len(store.paths()) == 2
    assert store.verify(store.paths()[-1])["values"]["updates"] == 7
    assert len(list((out / "tensorboard").iterdir())) == 1
    code, output = torchrun(*words)
    assert code != 0 and output.count("is not empty; name a new directory") == 1, output


def test_rlif_train_in_two_processes_keeps_what_it_had_when_a_loss_is_not_finite(seen):
    outputs = [own["train"]["output"] for own in seen.found]
    assert all(own["train"]["code"] != 0 for own in seen.found)
    for rank, output in enumerate(outputs):
        assert f"rlif train (process {rank} of 2): " in output, output
    together = "".join(outputs)
    assert together.count("not finite at") == 2 and together.count("last checkpoint: ") == 1
    assert len(CheckpointStore(seen.out).paths()) == 1
    assert all(torch.isfinite(tensor).all() for tensor in read_actor(seen.out).tensors.values())
