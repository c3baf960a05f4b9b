"""Several processes learn together and end with the same weights: torchrun as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bag_episodes import make_episodes, write_bag

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.engines import distributed
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import read_actor

TORCHRUN = Path(sys.executable).with_name("torchrun")
DEADLINE = 100.0  # s; most of it is the import of PyTorch, in three processes
MARK = "RLIF_TEST_TORCHRUN"  # in the environment of all that torchrun starts
WORKER = Path(__file__).with_name("distributed_worker.py")
pytestmark = [
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
def seen(tmp_path_factory):
    """What the two processes of distributed_worker.py have seen."""
    directory = tmp_path_factory.mktemp("workers")
    code, output = torchrun(WORKER, directory)
    assert code == 0, output
    return [json.loads((directory / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("algorithm", ["rlpd", "bc"])
def test_two_processes_end_with_identical_weights(seen, algorithm):
    """Regression: optimiser steps and counters were not taken over from the first process."""
    one, two = (found[algorithm] for found in seen)
    assert [found["count"] for found in seen] == [2, 2]
    assert one == two
    assert one["joined"] != one["learned"]
    assert one["updates"] == 2 + 5  # two were done by the first process before it was joined


def test_what_one_has_failed_in_all_know(seen):
    assert [found["failed"] for found in seen] == [[1, None], [1, None]]


def test_a_resumed_process_draws_other_batches_than_before(seen):
    """Regression: the seed was made of the rank alone, and each resume repeated the batches."""
    drawn = [tuple(values) for found in seen for values in found["draws"]]
    assert len(drawn) == len(set(drawn)) == 8  # two processes, twice, batches and noise


@pytest.mark.parametrize("algorithm", ["rlpd", "bc"])
def test_all_refuse_a_step_that_one_must_refuse(seen, algorithm):
    """Regression: one that alone raised NonFiniteError left the others waiting."""
    for found in seen:
        assert "not finite" in found[f"{algorithm} refuses"]["error"]
        assert found[f"{algorithm} refuses"]["unchanged"]


def test_nobody_waits_for_one_that_is_gone(seen):
    assert "another process has ended" in seen[0]["left"]


def test_without_a_group_it_says_what_to_do():
    learner = RLPD(RLPDConfig(hidden=(8,), ensemble_size=2), PolicySpec(3, 2), accelerate=False)
    with pytest.raises(RuntimeError, match="torchrun.*processes"):
        distributed.join(learner)
    with distributed.processes() as own:
        assert (own.rank, own.count, own.is_first) == (0, 1, True)
        assert (own.first_failed(True), own.first_failed(False)) == (0, None)


SETTINGS = ("--set", "hidden=[8]", "--set", "rlpd.hidden=[8]", "--set", "rlpd.ensemble_size=2",
            "--set", "rlpd.batch_size=8", "--set", "rlpd.utd=2")  # fmt: skip


@pytest.mark.slow
def test_rlif_train_in_two_processes(tmp_path):
    """As docs/learner.md says: the first one writes and speaks, both end, with equal weights."""
    assert shutil.which("rlif")
    out = tmp_path / "out"
    bag = write_bag(tmp_path / "bag", make_episodes(6))
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


@pytest.mark.slow
def test_rlif_train_in_two_processes_keeps_what_it_had_when_a_loss_is_not_finite(tmp_path):
    out = tmp_path / "out"
    bag = write_bag(tmp_path / "bag", make_episodes(6))
    words = ("train", bag, "-o", out, "--updates", 50, "--no-curves", *SETTINGS)
    wild = ("--set", "rlpd.critic_learning_rate=1e25")
    code, output = torchrun("--no-python", "rlif", *words, *wild)
    assert code != 0
    for rank in range(2):
        assert f"rlif train (process {rank} of 2): " in output, output
    assert output.count("not finite at") == 2 and output.count("last checkpoint: ") == 1, output
    assert len(CheckpointStore(out).paths()) == 1
    assert all(torch.isfinite(tensor).all() for tensor in read_actor(out).tensors.values())
