"""One learner in several processes, one per GPU or socket, started by `torchrun`.

Each process draws its own batches and noise; gradients are averaged before every optimiser step,
as DistributedDataParallel does. The gradients lie in one flat vector already, so that a step is
one all-reduce, and the weights stay equal bit for bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from rlif_learner.rlpd import RLPD


def average(gradients: Tensor) -> None:
    """Replace `gradients` by their mean over all processes, in place."""
    dist.all_reduce(gradients, op=dist.ReduceOp.SUM)
    gradients.div_(dist.get_world_size())


@torch.no_grad()
def join(learner: RLPD, seed: int = 0) -> None:
    """Let `learner` learn together with those of the other processes of the group.

    All take over the state of process 0; from here on each has randomness of its own. RuntimeError
    if there is no process group (start with `torchrun`, then `init_process_group`).
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "found no process group; start with torchrun and call "
            "torch.distributed.init_process_group first"
        )
    for name, tensor in sorted(learner.state_tensors().items()):
        if "generator" not in name:
            dist.broadcast(tensor, src=0)
    own = seed * dist.get_world_size() + dist.get_rank()
    learner.generator.manual_seed(own)
    learner.rng = np.random.default_rng(own)
    learner.average_gradients = average
