"""Nothing is lost: a run that is killed at any moment, and resumed, ends as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import checkpoint_runs as runs
import pytest
import torch

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.data import checkpoint
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore

advance, everything, resume = runs.advance, runs.everything, runs.resume

TOTAL_UPDATES = 36  # the buffer is full by then, and old segments are removed
KILLS = 22


class Moments:
    """Counts what a run does, by name, and kills the process at one of them."""

    def __init__(self, kill_at=None):
        self.names, self.kill_at = [], kill_at

    def count(self, name):
        if len(self.names) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)

    def counted(self, name, function):
        def call(*args, **kwargs):
            self.count(f"before {name}")
            result = function(*args, **kwargs)
            self.count(f"after {name}")
            return result

        return call

    def half_written(self, function):
        """For `_write`: half of the file first."""

        def call(path, data):
            path.write_bytes(data[: len(data) // 2])
            self.count("within a write")
            function(path, data)

        return call

    def watch(self, patch):
        for owner, name in (
            (RLPD, "learn"), (RLPD, "actor_step"), (ReplayBuffer, "add_step"),
            (os, "fsync"), (os, "rename"), (Path, "replace"),
            (shutil, "rmtree"), (os, "unlink"), (Path, "unlink"),
        ):  # fmt: skip
            patch.setattr(owner, name, self.counted(name, getattr(owner, name)))
        patch.setattr(checkpoint, "_write", self.half_written(checkpoint._write))


def run_to_end(root, begins=None):
    """The whole run, with a checkpoint at every other update."""
    store = CheckpointStore(root, keep_last=2)
    learner, buffers = resume(store)
    if begins is not None:
        begins.set()
    while learner.updates < TOTAL_UPDATES:
        advance(learner, buffers)
        if learner.updates % 2 == 0:
            store.save(learner, buffers)
    return learner, buffers


def run_watched(root, kill_at=None):
    """The same, killed at that moment, if at all. Returns the names of all moments."""
    moments = Moments(kill_at)
    with pytest.MonkeyPatch.context() as patch:
        moments.watch(patch)
        run_to_end(root)
    return moments.names


def run_until_killed(root, begins):
    """The same; it never ends by itself."""
    run_to_end(root, begins)
    signal.pause()


def chosen(names):
    """KILLS distinct moments: one of every kind, and others at random."""
    rng = random.Random(0)
    picked = {
        rng.choice([i for i, n in enumerate(names) if n == name]) for name in sorted(set(names))
    }
    rest = [i for i in range(len(names)) if i not in picked]
    return sorted([*picked, *rng.sample(rest, KILLS - len(picked))])


@pytest.fixture(scope="module")
def children():
    """Starts processes that have imported everything: what is killed is the run, not the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlif_learner"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """All of the state at the end, and the seconds it took."""
    torch.set_num_threads(1)
    begin = time.monotonic()
    run = run_to_end(tmp_path_factory.mktemp("whole"))
    return everything(*run), time.monotonic() - begin


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    return run_watched(tmp_path_factory.mktemp("watched"))


@pytest.mark.parametrize("attempt", range(KILLS))
def test_killed_at_any_moment_and_resumed_equals_never_killed(
    attempt, tmp_path, uninterrupted, moments, children
):
    moment = chosen(moments)[attempt]
    child = children.Process(target=run_watched, args=(tmp_path, moment))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, f"not killed at {moment}, {moments[moment]}"
    assert everything(*run_to_end(tmp_path)) == uninterrupted[0]


def test_the_moments_are_distinct_and_of_every_kind(moments):
    """Regression: two of ten kills came at the same moment; none within an update or a removal."""
    kinds = {moments[i] for i in chosen(moments)}
    assert len(set(chosen(moments))) == KILLS
    assert kinds == set(moments) and len(kinds) == 17


def test_killed_by_the_clock_again_and_again_equals_never_killed(tmp_path, uninterrupted, children):
    """Whatever is going on then, in compiled code or in the system's."""
    expected, duration = uninterrupted
    rng = random.Random(1)
    for _ in range(KILLS):
        begins = children.Event()
        child = children.Process(target=run_until_killed, args=(tmp_path, begins))
        child.start()
        assert begins.wait(60), "the child did not begin"
        child.join(rng.uniform(0.0, 3.0 * duration / KILLS))  # it does not end: this is the clock
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        learner, buffers = resume(CheckpointStore(tmp_path))
        assert learner.updates % 2 == 0 and buffers.online.total == 3 * learner.updates
    assert everything(*run_to_end(tmp_path)) == expected
