# SPDX-License-Identifier: Apache-2.0
"""What is random in an update of RLPD."""

from __future__ import annotations

import torch

from rlif_learner.algorithms.noise import draw_noise
from rlif_learner.config import RLPDConfig
from rlif_policy.networks import PolicySpec


def test_subset_without_repetition():
    config = RLPDConfig(hidden=(16,), ensemble_size=4, subset_size=3, utd=2, batch_size=4)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(25):
        subset = draw_noise(config, PolicySpec(5, 2), generator).critics.subset
        assert subset.shape == (2, 3)
        subset = subset[0].tolist()
        assert len(set(subset)) == 3
        seen.update(subset)
    assert seen == {0, 1, 2, 3}
