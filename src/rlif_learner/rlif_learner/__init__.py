"""Learner node: RLPD on interventions, replay buffer, labels, bags."""

from rlif_learner.bc import BC
from rlif_learner.buffer import Batch, Buffers, ReplayBuffer, sample_mixed
from rlif_learner.checkpoint import CheckpointError, CheckpointStore, DamagedError, MismatchError
from rlif_learner.config import ImitationConfig, RLPDConfig, named_preset
from rlif_learner.dagger import DAgger
from rlif_learner.hg_dagger import HGDAgger
from rlif_learner.labels import label_rewards
from rlif_learner.rlpd import RLPD, NonFiniteError
from rlif_learner.steps import Outcome, Source, StepRecord

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
