"""The training's curves as TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlif_learner.training import TrainingStatus


class Scalars:
    """Writes one point of every curve per status. The directory is made if need be."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

        directory.mkdir(parents=True, exist_ok=True)
        self._writer: Any = SummaryWriter(str(directory))
        self._last: tuple[int, int] = (-1, -1)

    def write(self, status: TrainingStatus) -> None:
        """By Steps received; nothing where neither steps nor updates have moved."""
        if (status.steps, status.updates) == self._last:
            return
        self._last = (status.steps, status.updates)
        values = {f"learner/{name}": value for name, value in status.metrics.items()}
        values["data/intervention_rate"] = status.intervention_rate
        values["data/transitions"] = status.transitions
        values["speed/critic_steps_per_s"] = status.critic_steps_per_s
        values["speed/updates_per_step"] = status.updates_per_step
        for name, value in values.items():
            self._writer.add_scalar(name, value, status.steps)

    def close(self) -> None:
        self._writer.close()
