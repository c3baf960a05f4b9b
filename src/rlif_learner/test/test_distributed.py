"""Several processes learn together and end with the same weights."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch

from rlif_learner import distributed
from rlif_learner.buffer import Buffers, ReplayBuffer
from rlif_learner.config import RLPDConfig
from rlif_learner.rlpd import RLPD
from rlif_learner.steps import StepRecord
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=3, action_dim=2, hidden=(16, 16))
CONFIG = RLPDConfig(hidden=(16, 16), ensemble_size=3, utd=3, batch_size=16)


def make_buffers(seed):
    rng, buffer = np.random.default_rng(seed), ReplayBuffer(200, 3, 2)
    for n in range(100):
        t, last = n % 10, n % 10 == 9
        buffer.add_step(
            StepRecord(
                n, 1 + n // 10, t, t == 0, last, 3 if last else 0, 0 if last else 1, False, 0,
                False, rng.normal(size=3), np.zeros(0) if last else rng.uniform(-1, 1, 2),
            )
        )  # fmt: skip
    return Buffers(buffer)


def work(rank, rendezvous, result):
    """One process: other data, other initial weights, the same learner."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    try:
        learner, buffers = RLPD(CONFIG, SPEC, seed=rank), make_buffers(rank)
        distributed.join(learner)
        for _ in range(5):
            learner.update(buffers)
        tensors = learner.state_tensors()
        weights = torch.cat([tensors[k] for k in ("actor", "critic", "target", "log_temperature")])
        np.save(f"{result}-{rank}.npy", weights.numpy(), allow_pickle=False)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed")
def test_two_processes_end_with_identical_weights(tmp_path):
    context = multiprocessing.get_context("forkserver")
    workers = [
        context.Process(target=work, args=(rank, tmp_path / "meet", tmp_path / "weights"))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0, 0]
    one, two = (np.load(f"{tmp_path / 'weights'}-{rank}.npy") for rank in range(2))
    assert np.array_equal(one, two)
    alone = RLPD(CONFIG, SPEC, seed=0)
    alone.update(make_buffers(0))
    assert not np.allclose(one[:50], alone.state_tensors()["actor"][:50].numpy())


def test_without_a_group_it_says_what_to_do():
    with pytest.raises(RuntimeError, match="torchrun"):
        distributed.join(RLPD(CONFIG, SPEC))
