# SPDX-License-Identifier: Apache-2.0
"""Which engine a learner gets, and that all of them run the loss that stands in rlpd.py."""

from __future__ import annotations

from dataclasses import replace
from shutil import which

import pytest
import torch

from rlif_learner.algorithms.rlpd import RLPD, Engine
from rlif_learner.config import RLPDConfig
from rlif_learner.data.batch import Batch
from rlif_learner.engines.compiled_engine import CompiledCriticEngine
from rlif_learner.engines.cuda_graph import CudaGraphEngine
from rlif_learner.engines.select import accelerate
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(3, 1, hidden=(8,))
CONFIG = RLPDConfig(hidden=(8, 8), ensemble_size=3, utd=2, batch_size=4)


@pytest.mark.filterwarnings("ignore:no compiled critics")
def test_accelerate_takes_compiled_critics_only_where_they_cover_the_learner():
    seeing = replace(SPEC, images=((8, 8, 3),), encoder=EncoderSpec(features=4, channels=4))
    compiled = CompiledCriticEngine if which("c++") or which("g++") else Engine
    for config, spec, expected in (
        (CONFIG, SPEC, compiled),
        (CONFIG, seeing, Engine),
        (replace(CONFIG, dropout=0.1), SPEC, Engine),
        (replace(CONFIG, hidden=(8, 16)), SPEC, Engine),
    ):
        learner = RLPD(config, spec)
        assert type(learner.engine) is Engine
        assert type(accelerate(learner).engine) is expected


@pytest.mark.parametrize("kind", [Engine, CudaGraphEngine])
def test_engines_of_pytorch_run_the_loss_of_rlpd(kind, monkeypatch):
    learner = RLPD(CONFIG, SPEC)
    learner.engine = kind(learner)
    monkeypatch.setattr(learner, "critic_loss", lambda *_: (torch.zeros(1, requires_grad=True).sum(),
                                                            torch.tensor(7.0)))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    sizes = [(3,), (1,), (), (3,), ()]
    batches = Batch.from_tensors(torch.rand(2, 4, *size, generator=generator) for size in sizes)
    record = learner.learn(batches, learner.draw_noise())
    assert record.critics[:, :2].tolist() == [[0.0, 7.0]] * 2
