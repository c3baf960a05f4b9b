# SPDX-License-Identifier: Apache-2.0
"""One of the processes that torchrun starts for test_distributed.py: DIRECTORY, words for `rlif train`.
Writes what it has seen into the directory.

Other data and other initial weights in each, the same learner at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from rlif_bags.commands import train as train_command
from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig, RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines import distributed
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=3, action_dim=2, hidden=(16, 16))
CONFIG = RLPDConfig(hidden=(16, 16), ensemble_size=3, utd=3, batch_size=16)
IMITATION = ImitationConfig(utd=2, batch_size=16)


def make_buffers(seed):
    """Online and prior data of a process."""
    rng, buffer = np.random.default_rng(seed), ReplayBuffer(200, 3, 2)
    for n in range(100):
        t, last = n % 10, n % 10 == 9
        buffer.add_step(
            StepRecord(
                n, 1 + n // 10, t, t == 0, last, 3 if last else 0, 0 if last else 1, False, 0,
                False, rng.normal(size=3), np.zeros(0) if last else rng.uniform(-1, 1, 2),
            )
        )  # fmt: skip
    return Buffers(buffer, buffer)


def digest(learner):
    """The sha256 of all that shall be the same everywhere."""
    tensors = learner.state_tensors()
    shared = [
        tensors[name].numpy().tobytes() for name in sorted(tensors) if "generator" not in name
    ]
    values = {k: v for k, v in learner.state_values().items() if k != "rng"}
    return hashlib.sha256(b"".join(shared) + json.dumps(values).encode()).hexdigest()


def learn_together(make, rank):
    """Joined in the middle of its training, from the state of the first process alone."""
    learner, buffers = make(rank), make_buffers(rank)
    for _ in range(2 - rank):
        learner.update(buffers)
    distributed.join(learner, seed=7)
    joined = digest(learner)
    for _ in range(5):
        learner.update(buffers)
    return {"joined": joined, "learned": digest(learner), "updates": learner.updates,
            "common": distributed.common_digest(learner)}  # fmt: skip


def draws_after_resume(directory, rank):
    """States of the batches that a process draws: of a new learner, and resumed from its end."""
    buffers, drawn = make_buffers(0), []
    store = CheckpointStore(directory / f"store-{rank}")
    learner = accelerate(RLPD(CONFIG, SPEC))
    for _ in range(2):
        distributed.join(learner, seed=7)
        drawn += [buffers.online.sample(8, learner.rng).states[:, 0].tolist()]
        drawn += [torch.randn(8, generator=learner.generator).tolist()]
        learner.update(buffers)
        path = store.save(learner, buffers)
        learner = accelerate(RLPD(CONFIG, SPEC, seed=9))
        store.load(path, learner, buffers)
    return drawn


def spoil_rewards(columns):
    columns["reward"][:] = np.nan


def spoil_actions(columns):
    """The squared errors are infinite, their gradients cancel out: these are not."""
    columns["action"][::2, 0], columns["action"][1::2, 0] = 1.9e19, -1.9e19


def refuse_together(make, spoil, rank):
    """What an update says where the data of process 1 alone breaks a loss."""
    learner, buffers = make(rank), make_buffers(rank)
    distributed.join(learner)
    if rank == 1:
        spoil(buffers.online.columns)
    before = digest(learner)
    try:
        learner.update(buffers)
    except NonFiniteError as error:
        return {"error": str(error), "unchanged": digest(learner) == before}
    return {"error": "", "unchanged": False}


def leave_alone(rank):
    """Process 1 goes away in the middle; what the other one sees."""
    learner, buffers = accelerate(RLPD(CONFIG, SPEC)), make_buffers(rank)
    distributed.join(learner)
    if rank == 1:
        return ""
    try:
        learner.update(buffers)
    except distributed.GroupError as error:
        return str(error)
    return "nothing"


def train(own, words):
    """`rlif train` in this process, as one of the group; exit code and what it printed."""
    parser, printed = argparse.ArgumentParser(), io.StringIO()
    train_command.add_arguments(parser)
    in_group = patch.object(distributed, "processes", lambda: nullcontext(own))
    with in_group, redirect_stdout(printed), redirect_stderr(printed):
        code = train_command.run(parser.parse_args(words))
    return {"code": code, "output": printed.getvalue()}


def main(directory, words):
    torch.set_num_threads(1)
    makers = {
        "rlpd": lambda rank: accelerate(RLPD(CONFIG, SPEC, seed=rank)),
        "bc": lambda rank: BC(IMITATION, SPEC, seed=rank),
    }
    with distributed.processes() as own:
        found = {"pid": os.getpid(), "rank": own.rank, "count": own.count}
        found["train"] = train(own, [*words, "--set", "rlpd.critic_learning_rate=1e25"])
        found["failed"] = [own.first_failed(own.rank == 1), own.first_failed(False)]
        for name, make in makers.items():
            found[name] = learn_together(make, own.rank)
        found["draws"] = draws_after_resume(directory, own.rank)
        found["rlpd refuses"] = refuse_together(makers["rlpd"], spoil_rewards, own.rank)
        found["bc refuses"] = refuse_together(makers["bc"], spoil_actions, own.rank)
        found["left"] = leave_alone(own.rank)
    (directory / f"rank-{own.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
