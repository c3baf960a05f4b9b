# SPDX-License-Identifier: Apache-2.0
"""Learner node: RLPD on interventions, replay buffer, labels.

A public name is imported when it is first used: what needs Steps and labels alone, such as the
commands on bags, does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlif_learner.algorithms.bc import BC
    from rlif_learner.algorithms.dagger import DAgger
    from rlif_learner.algorithms.hg_dagger import HGDAgger
    from rlif_learner.algorithms.rlpd import RLPD, NonFiniteError
    from rlif_learner.config import ImitationConfig, RLPDConfig, named_preset
    from rlif_learner.data.batch import Batch
    from rlif_learner.data.buffer import ReplayBuffer
    from rlif_learner.data.checkpoint import (
        CheckpointError,
        CheckpointStore,
        DamagedError,
        MismatchError,
    )
    from rlif_learner.data.labels import label_rewards
    from rlif_learner.data.sampling import Buffers, sample_mixed
    from rlif_learner.data.steps import Outcome, Source, StepRecord
    from rlif_learner.engines.select import accelerate

__all__ = [
    "BC",
    "RLPD",
    "Batch",
    "Buffers",
    "CheckpointError",
    "CheckpointStore",
    "DAgger",
    "DamagedError",
    "HGDAgger",
    "ImitationConfig",
    "MismatchError",
    "NonFiniteError",
    "Outcome",
    "RLPDConfig",
    "ReplayBuffer",
    "Source",
    "StepRecord",
    "accelerate",
    "label_rewards",
    "named_preset",
    "sample_mixed",
]

_MODULES = {
    "BC": "rlif_learner.algorithms.bc",
    "Batch": "rlif_learner.data.batch",
    "Buffers": "rlif_learner.data.sampling",
    "CheckpointError": "rlif_learner.data.checkpoint",
    "CheckpointStore": "rlif_learner.data.checkpoint",
    "DAgger": "rlif_learner.algorithms.dagger",
    "DamagedError": "rlif_learner.data.checkpoint",
    "HGDAgger": "rlif_learner.algorithms.hg_dagger",
    "ImitationConfig": "rlif_learner.config",
    "MismatchError": "rlif_learner.data.checkpoint",
    "NonFiniteError": "rlif_learner.algorithms.rlpd",
    "Outcome": "rlif_learner.data.steps",
    "RLPD": "rlif_learner.algorithms.rlpd",
    "RLPDConfig": "rlif_learner.config",
    "ReplayBuffer": "rlif_learner.data.buffer",
    "Source": "rlif_learner.data.steps",
    "StepRecord": "rlif_learner.data.steps",
    "accelerate": "rlif_learner.engines.select",
    "label_rewards": "rlif_learner.data.labels",
    "named_preset": "rlif_learner.config",
    "sample_mixed": "rlif_learner.data.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
