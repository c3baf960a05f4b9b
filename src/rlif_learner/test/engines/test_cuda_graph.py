# SPDX-License-Identifier: Apache-2.0
"""Updates as on a GPU, on the processor: the same numbers, drawn ahead, reported one update later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlif_learner.algorithms.rlpd import RLPD, NonFiniteError
from rlif_learner.config import RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines.cuda_graph import CudaGraphEngine
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(3, 2, hidden=(16, 16))
CONFIG = RLPDConfig(hidden=(16, 16), ensemble_size=4, utd=2, batch_size=32)


def make_buffers():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(500, 3, 2)
    for n in range(200):
        t, last = n % 20, n % 20 == 19
        action = np.zeros(0) if last else rng.uniform(-1, 1, 2)
        buffer.add_step(
            StepRecord(
                n, 1 + n // 20, t, t == 0, last, 3 if last else 0, 0 if last else 1, False, 0,
                False, rng.normal(size=3), action,
            )
        )  # fmt: skip
    return Buffers(buffer)


def make_pair(config=CONFIG):
    """Two equal learners; the second one updates as on a GPU."""
    plain, ahead = (RLPD(config, SPEC, seed=1) for _ in range(2))
    ahead.engine = CudaGraphEngine(ahead)
    return plain, ahead


def assert_equal(one, other):
    for name, tensor in one.state_tensors().items():
        assert torch.equal(tensor, other.state_tensors()[name]), name
    assert one.state_values() == other.state_values()


def test_same_numbers_and_the_metrics_of_the_update_before():
    (plain, ahead), buffers = make_pair(), make_buffers()
    expected = [plain.update(buffers) for _ in range(4)]
    found = [ahead.update(buffers) for _ in range(4)]
    assert found == [{}, *expected[:3]]
    assert ahead.engine.finish() == expected[3]
    assert ahead.engine.finish() == {}
    assert_equal(plain, ahead)  # what was drawn ahead does not count


def test_dropout_too():
    (plain, ahead), buffers = make_pair(replace(CONFIG, dropout=0.1)), make_buffers()
    for learner in (plain, ahead):
        learner.update(buffers)
    assert_equal(plain, ahead)


def test_state_goes_through_between_updates():
    (plain, ahead), buffers = make_pair(), make_buffers()
    ahead.update(buffers)
    plain.load_state({k: v.clone() for k, v in ahead.state_tensors().items()}, ahead.state_values())
    assert_equal(plain, ahead)
    for learner in (plain, ahead):
        learner.update(buffers)
    assert_equal(plain, ahead)
    ahead.load_state({k: v.clone() for k, v in plain.state_tensors().items()}, plain.state_values())
    for learner in (plain, ahead):
        learner.update(buffers)
    assert_equal(plain, ahead)


@pytest.mark.filterwarnings("ignore:no compiled critics")
def test_from_a_step_that_is_not_finite_on_nothing_changes():
    (_, ahead), buffers = make_pair(), make_buffers()
    for _ in range(3):
        ahead.update(buffers)
    ahead.engine.finish()
    ahead.engine.forget()
    kept = {k: v.clone() for k, v in ahead.state_tensors().items() if "generator" not in k}
    good = buffers.online.columns["reward"].copy()
    buffers.online.columns["reward"][:] = np.inf
    ahead.update(buffers)  # starts it, and draws the next one
    buffers.online.columns["reward"][:] = good
    with pytest.raises(
        NonFiniteError, match=r"critic step 0 of update 3.*rewards in 32 of 32 rows"
    ):
        ahead.update(buffers)
    for name, tensor in kept.items():
        assert torch.equal(ahead.state_tensors()[name], tensor), name
    assert (ahead.updates, ahead.critic_steps) == (3, 6)
    ahead.engine.forget()
    ahead.update(buffers)  # and learning can go on
    assert ahead.engine.finish()["critic_loss"] > 0.0


def test_bfloat16_is_close():
    plain, low = (RLPD(CONFIG, SPEC, seed=1) for _ in range(2))
    low.engine.autocast = True
    buffers = make_buffers()
    expected, found = plain.update(buffers), low.update(buffers)
    assert found["critic_loss"] == pytest.approx(expected["critic_loss"], rel=0.05)
    assert found["critic_loss"] != expected["critic_loss"]
    assert all(t.dtype == torch.float32 for t in (low.critic.flat.values, low.actor_flat.values))


def test_formats_of_a_gpu_are_named():
    with pytest.raises(ValueError, match="float16.*bfloat16"):
        RLPD(replace(CONFIG, precision="float16"), SPEC, device="meta")
