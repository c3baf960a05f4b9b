# SPDX-License-Identifier: Apache-2.0
"""Algorithms by name."""

from __future__ import annotations

import pytest
import torch
from imitation_doubles import SPEC

from rlif_learner.algorithms.registry import make_algorithm


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["rlpd", "bc", "hg_dagger"])
def test_a_gpu_that_is_asked_for_is_not_quietly_left_out(name):
    """Regression: the baselines took the processor, whatever `device` said."""
    with pytest.raises(ValueError, match="device: found 'cuda', but PyTorch finds no GPU"):
        make_algorithm(name, {}, "rlpd", SPEC, 0, "cuda")
