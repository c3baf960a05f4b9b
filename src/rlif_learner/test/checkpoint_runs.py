# SPDX-License-Identifier: Apache-2.0
"""A small run that is a function of its seed alone, and all of its state as comparable bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data import checkpoint
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=3, action_dim=1, hidden=(8, 8))
CONFIG = RLPDConfig(hidden=(8, 8), ensemble_size=3, utd=2, batch_size=8)
EPISODE = 12
CAPACITY = 50
STEPS_PER_UPDATE = 3
SAVE_EVERY = 2  # updates, where a run saves
MOST_UPDATES = 200  # of a run that should have been killed
WATCHED = (  # functions at whose beginning and end a run can be killed
    (RLPD, "learn"), (RLPD, "actor_step"), (ReplayBuffer, "add_step"),
    (os, "fsync"), (os, "rename"), (Path, "replace"), (shutil, "rmtree"), (Path, "unlink"),
)  # fmt: skip
STAGES = (*(f"{when} {name}" for _, name in WATCHED for when in ("before", "after")), "in a write")


def step_number(n):
    """The n-th step of a run: a function of n alone, so that a resumed run sees the same."""
    rng = np.random.default_rng(n)
    t, last = n % EPISODE, n % EPISODE == EPISODE - 1
    onset = t == 6
    return StepRecord(
        n, 1 + n // EPISODE, t, t == 0, last, 3 if last else 0, 0 if last else 1 + (5 < t < 8),
        onset, int(onset), False, rng.normal(size=3).astype(np.float32),
        np.zeros(0) if last else rng.uniform(-1, 1, 1), (rng.integers(0, 255, (4, 4, 3), np.uint8),),
    )  # fmt: skip


def make_buffers(capacity=CAPACITY):
    return Buffers(*(ReplayBuffer(capacity, 3, 1, ((4, 4, 3),)) for _ in range(2)))


def fresh_run(seed=0):
    buffers = make_buffers()
    buffers.prior.add_episode(step_number(n) for n in range(2 * EPISODE))
    return accelerate(RLPD(CONFIG, SPEC, seed)), buffers


def advance(learner, buffers):
    """Three steps and an update."""
    advance_without_learning(buffers)
    learner.update(buffers)


def advance_without_learning(buffers, steps=STEPS_PER_UPDATE):
    for _ in range(steps):
        buffers.online.add_step(step_number(buffers.online.total))


def everything(learner, buffers):
    """All of the state, as comparable bytes."""
    found = {k: v.numpy().tobytes() for k, v in learner.state_tensors().items()}
    found["values"] = json.dumps(learner.state_values(), sort_keys=True).encode()
    for name, buffer in (("online", buffers.online), ("prior", buffers.prior)):
        found[f"{name} state"] = json.dumps(buffer.state()).encode()
        found[f"{name} length"] = str(len(buffer)).encode()
        oldest = max(0, buffer.total - buffer.capacity)
        for key, rows in buffer.read_rows(range(oldest, buffer.total)).items():
            found[f"{name} {key}"] = rows.tobytes()
    return found


def resume(store):
    learner, buffers = fresh_run(seed=99)
    path = store.last_good()
    if path is None:
        return fresh_run()
    store.load(path, learner, buffers)
    return learner, buffers


def run_and_save(root, updates):
    """Resume, and advance by so many updates with a checkpoint at every other one."""
    store = CheckpointStore(root, keep_last=2)
    learner, buffers = resume(store)
    for _ in range(updates):
        advance(learner, buffers)
        if learner.updates % SAVE_EVERY == 0:
            store.save(learner, buffers)


def run_until_killed(root, begins):
    """The same; it never ends by itself."""
    begins.set()
    run_and_save(root, MOST_UPDATES)
    signal.pause()


def run_watched(root, stage, times, updates):
    """The same, and kills its process at this stage, one of STAGES, when it has passed it so often."""
    left = times

    def pass_stage(name):
        nonlocal left
        if name == stage:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def watched(name, function):
        def call(*args, **kwargs):
            pass_stage(f"before {name}")
            result = function(*args, **kwargs)
            pass_stage(f"after {name}")
            return result

        return call

    def half_written(function):
        def call(path, data):
            path.write_bytes(data[: len(data) // 2])
            pass_stage("in a write")
            function(path, data)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WATCHED:
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        patch.setattr(checkpoint, "_write", half_written(checkpoint._write))
        run_and_save(root, updates)
