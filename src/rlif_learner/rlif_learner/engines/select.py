# SPDX-License-Identifier: Apache-2.0
"""Which engine executes the updates of a learner: chosen here, once, before the first of them."""

from __future__ import annotations

import time
import warnings

import torch

from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.engines.compiled_engine import CompiledCriticEngine
from rlif_learner.engines.critic_kernel import CriticKernel, KernelUnavailableError
from rlif_learner.engines.cuda_graph import CudaGraphEngine
from rlif_policy.processor import processor


def accelerate(learner: RLPD) -> RLPD:
    """`learner`, with the fastest engine that there is for its device, networks and compiler. What takes
    time once is done here, so that no update waits for it."""
    if learner.device.type != "cpu":
        learner.engine = CudaGraphEngine(learner)
    # The compiled critics give no gradients to the encoder, beside which they cost little.
    elif learner.encoder is None:
        kernel = make_kernel(learner.critic, learner.config)
        if kernel is not None:
            learner.engine = CompiledCriticEngine(learner, kernel)
    return learner


def make_kernel(critic: EnsembleCritic, config: RLPDConfig) -> CriticKernel | None:
    """The compiled passes; or None, with a warning that says why and what it costs."""
    try:
        kernel = CriticKernel(critic, config)
    except KernelUnavailableError as error:
        warnings.warn(
            f"no compiled critics: {error}. PyTorch does the same more slowly: "
            f"{1e3 * measured_step(critic, config):.0f} ms for the gradients of one critic step",
            stacklevel=3,
        )
        return None
    if config.precision not in (kernel.precision, "auto"):
        warnings.warn(
            f"precision: found {config.precision!r}, of which this processor has no products at level "
            f"{processor().level.name}; {kernel.precision} is used",
            stacklevel=3,
        )
    return kernel


def measured_step(critic: EnsembleCritic, config: RLPDConfig) -> float:
    """Seconds that PyTorch takes on this machine for the gradients of a critic step, the best of
    three."""
    actions = torch.zeros(config.batch_size, critic.action_dim)
    states = torch.zeros(config.batch_size, critic.weights[0].shape[1] - critic.action_dim)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        critic(states, actions).sum().backward()
        times.append(time.perf_counter() - start)
    critic.flat.gradients.zero_()
    return min(times)
