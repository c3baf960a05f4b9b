# SPDX-License-Identifier: Apache-2.0
"""Checkpoints survive SIGKILL: whatever a run was doing, resuming finds its last complete state."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal

import checkpoint_runs as runs
import pytest
import torch
from waiting import scaled

from rlif_learner.data.checkpoint import CheckpointStore

pytestmark = pytest.mark.slow

SEED = 0
CLOCK_KILLS = 5


@pytest.fixture(scope="module")
def children():
    """Starts processes that have imported everything: what is killed is the run, not the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["rlif_learner.algorithms.rlpd", "rlif_learner.data.checkpoint", "pytest"]
    )
    return context


class Reference:
    """A run that is never saved, resumed or killed: its state after each number of updates."""

    def __init__(self):
        self.run, self.states = runs.fresh_run(), []

    def state(self, updates):
        while len(self.states) <= updates:
            self.states.append(runs.everything(*self.run))
            runs.advance(*self.run)
        return self.states[updates]


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    return Reference()


def check_resumed(root, reference):
    """All of the state is that of the reference, at an update after which a checkpoint is due."""
    learner, buffers = runs.resume(CheckpointStore(root))
    assert learner.updates % runs.SAVE_EVERY == 0
    assert runs.everything(learner, buffers) == reference.state(learner.updates)
    return learner.updates


@pytest.mark.timeout(300)
def test_run_killed_at_every_stage_resumes_exactly(tmp_path, children, reference):
    """Each child goes on in the directory as the kill before left it.

    Regression: two of ten kills came at the same moment; none within an update or a removal.
    """
    stages, rng = sorted(runs.STAGES), random.Random(SEED)
    rng.shuffle(stages)
    resumed = []
    for stage in stages:
        child = children.Process(
            target=runs.run_watched, args=(tmp_path, stage, rng.randrange(3), runs.MOST_UPDATES)
        )
        child.start()
        child.join(scaled(60))
        assert child.exitcode == -signal.SIGKILL, f"not killed {stage}"
        resumed.append(check_resumed(tmp_path, reference))
    assert resumed == sorted(resumed), "a kill must not cost an older checkpoint"
    assert resumed[-1] * runs.STEPS_PER_UPDATE > runs.CAPACITY, (
        "the buffer must have wrapped around"
    )


@pytest.mark.timeout(300)
def test_run_killed_by_the_clock_resumes_exactly(tmp_path, children, reference):
    """At moments that no test chose, in compiled code or in the system's."""
    rng = random.Random(SEED)
    for _ in range(CLOCK_KILLS):
        begins = children.Event()
        child = children.Process(target=runs.run_until_killed, args=(tmp_path, begins))
        child.start()
        assert begins.wait(scaled(60)), "the child did not begin"
        child.join(rng.uniform(0.0, 0.3))  # it does not end: this is the clock
        os.kill(child.pid, signal.SIGKILL)
        child.join(scaled(60))
        assert child.exitcode == -signal.SIGKILL
        check_resumed(tmp_path, reference)
