# SPDX-License-Identifier: Apache-2.0
"""One learner in several processes, one per GPU or socket, started by `torchrun`:

  torchrun --standalone --nproc-per-node 2 --no-python rlif train BAG... -o DIR

Each process draws its own batches and noise; gradients are averaged before every optimiser step,
as DistributedDataParallel does. That class itself cannot wrap the compiled critics, whose gradients
come from no backward pass that it could hook into; they lie in one flat vector already, so that a
step is one all-reduce, and the weights stay equal bit for bit.

No process waits for one that is gone: its end is a GroupError in all others. And none refuses a
step alone: a mean that is not finite is so everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.training import Algorithm


class GroupError(RuntimeError):
    """The processes cannot go on together."""


@dataclass(frozen=True)
class Processes:
    """Those that learn together, and which of them this one is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def first_failed(self, failed: bool) -> int | None:
        """The lowest rank of those that have failed, the same answer in all; None if none has."""
        lowest = torch.tensor(self.rank if failed else self.count)
        if self.count > 1:
            _with_all(dist.all_reduce, lowest, op=dist.ReduceOp.MIN)
        return None if lowest == self.count else int(lowest)


@contextmanager
def processes() -> Iterator[Processes]:
    """Enters the group that torchrun describes in the environment, and leaves it at the end.

    Without torchrun this process is alone.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield Processes()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"  # each tensor goes by where it lies
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group(backend)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def join(learner: Algorithm, seed: int = 0) -> None:
    """Let `learner` learn together with those of the other processes of the group.

    All take over the whole state of the first one: weights, optimisers and counters. From here on
    each has randomness of its own, out of `seed`, its rank and the number of updates: one that is
    resumed draws other batches than it has drawn. RuntimeError if there is no process group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "found no process group; start with torchrun, and join within "
            "`with rlif_learner.engines.distributed.processes():`"
        )
    if not isinstance(learner, (RLPD, BC)):
        raise TypeError(f"found {type(learner).__name__}, expected RLPD, BC, HGDAgger or DAgger")
    tensors = learner.state_tensors()
    for name in _shared(tensors):
        _with_all(dist.broadcast, tensors[name], src=0)
    values = _from_first(learner.state_values(), tensors["actor"].device)
    learner.load_state(tensors, values)
    own = np.random.SeedSequence((seed, learner.updates, dist.get_rank()))
    learner.rng = np.random.default_rng(own)
    if isinstance(learner, RLPD):
        learner.generator.manual_seed(int(own.generate_state(1)[0]))
    learner.average_gradients = average


def average(gradients: Tensor) -> None:
    """Replace `gradients` by their mean over all processes, in place.

    A process whose own loss is not finite hands in gradients that are not: all refuse the step.
    """
    _with_all(dist.all_reduce, gradients, op=dist.ReduceOp.SUM)
    gradients.div_(dist.get_world_size())


@torch.no_grad()
def common_digest(learner: Algorithm) -> str:
    """The sha256 of weights and optimisers, as hex. GroupError if it differs between processes."""
    tensors = learner.state_tensors()
    digest = hashlib.sha256()
    for name in _shared(tensors):
        digest.update(tensors[name].cpu().contiguous().numpy().tobytes())
    own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
    own = own.to(tensors["actor"].device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    _with_all(dist.all_gather, found, own)
    different = [rank for rank, other in enumerate(found) if not torch.equal(other, found[0])]
    if different:
        raise GroupError(
            f"the weights of processes {different} differ from those of process 0, expected the "
            "same; let all run on processors of one kind, with one version of PyTorch"
        )
    return digest.hexdigest()


def _shared(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are the same in all processes, in an order that is, too."""
    return sorted(name for name in tensors if "generator" not in name)


def _from_first(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The `values` of process 0, as JSON: nothing that comes from another process is unpickled."""
    text = json.dumps(values).encode()
    size = torch.tensor(len(text), device=device)
    _with_all(dist.broadcast, size, src=0)
    data = torch.zeros(int(size), dtype=torch.uint8, device=device)
    if dist.get_rank() == 0:
        data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    _with_all(dist.broadcast, data, src=0)
    received: dict[str, Any] = json.loads(bytes(data.cpu().numpy()))
    return received


def _with_all(operation: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """An operation that all processes take part in."""
    try:
        operation(*arguments, **options)
    except RuntimeError as error:
        raise GroupError(
            "another process has ended or cannot be reached; its own output says why. "
            f"{str(error).splitlines()[0]}"
        ) from error
