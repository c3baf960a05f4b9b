"""Learner node: RLPD on interventions, replay buffer, labels, bags."""

from rlif_learner.buffer import Batch, Buffers, ReplayBuffer, sample_mixed
from rlif_learner.config import RLPDConfig, named_preset
from rlif_learner.labels import label_rewards
from rlif_learner.rlpd import RLPD, NonFiniteError
from rlif_learner.steps import Outcome, Source, StepRecord

__all__ = [
    "RLPD",
    "Batch",
    "Buffers",
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
