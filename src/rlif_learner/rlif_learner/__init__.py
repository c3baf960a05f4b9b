"""Learner node: RLPD on interventions, replay buffer, labels, bags."""

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.dagger import DAgger
from rlif_learner.algorithms.hg_dagger import HGDAgger
from rlif_learner.algorithms.rlpd import RLPD, NonFiniteError
from rlif_learner.config import ImitationConfig, RLPDConfig, named_preset
from rlif_learner.data.buffer import Batch, Buffers, ReplayBuffer, sample_mixed
from rlif_learner.data.checkpoint import (
    CheckpointError,
    CheckpointStore,
    DamagedError,
    MismatchError,
)
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord

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
    "label_rewards",
    "named_preset",
    "sample_mixed",
]
