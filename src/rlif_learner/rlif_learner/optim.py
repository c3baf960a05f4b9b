"""Adam over one flat vector, and the guard before each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlif_learner.buffer import Batch


class NonFiniteError(ArithmeticError):
    """A loss or gradient was not finite. The step was not taken: the weights are the last good."""


def refuse_non_finite(quantities: dict[str, float], batch: Batch, where: str) -> None:
    """NonFiniteError, naming the quantities and the parts of the batch, unless all are finite."""
    broken = [name for name, value in quantities.items() if not math.isfinite(value)]
    if not broken:
        return
    names = ("states", "actions", "rewards", "next_states", "terminals")
    inputs = [name for name in names if not torch.isfinite(getattr(batch, name)).all()]
    raise NonFiniteError(
        f"{', '.join(broken)} not finite at {where}; not finite in its batch: "
        f"{inputs or 'nothing'}. The step was not taken; look at the data, or lower the learning "
        "rates"
    )


class FlatAdam:
    """Adam (and, with `weight_decay`, AdamW) on a flat vector of parameters, in place.

    `decayed`: 1 where weight decay applies, 0 elsewhere; same length as the parameters.
    """

    def __init__(
        self,
        values: Tensor,
        learning_rate: float,
        weight_decay: float = 0.0,
        decayed: Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.values, self.learning_rate, self.betas, self.eps = values, learning_rate, betas, eps
        self.weight_decay, self.decayed = weight_decay, decayed
        self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Tensor) -> None:
        """One step down `gradients`, a vector of the same length."""
        self.steps += 1
        if self.weight_decay and self.decayed is not None:
            self.values.addcmul_(
                self.values, self.decayed, value=-self.learning_rate * self.weight_decay
            )
        self.first.lerp_(gradients, 1.0 - self.betas[0])
        self.second.mul_(self.betas[1]).addcmul_(gradients, gradients, value=1.0 - self.betas[1])
        correction = math.sqrt(1.0 - self.betas[1] ** self.steps)
        size = self.learning_rate * correction / (1.0 - self.betas[0] ** self.steps)
        # eps is scaled so that this equals lr * m_hat / (sqrt(v_hat) + eps) exactly.
        self.values.addcdiv_(
            self.first, self.second.sqrt().add_(self.eps * correction), value=-size
        )
