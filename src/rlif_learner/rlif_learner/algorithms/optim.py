# SPDX-License-Identifier: Apache-2.0
"""Adam over one flat vector, and the guard before each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlif_learner.data.batch import Batch


class NonFiniteError(ArithmeticError):
    """A loss or gradient was not finite. The step was not taken: the weights are the last good."""


def refuse_non_finite(quantities: dict[str, float], batch: Batch, where: str) -> None:
    """NonFiniteError, naming the quantities and the parts of the batch, unless all are finite."""
    broken = [name for name, value in quantities.items() if not math.isfinite(value)]
    if not broken:
        return
    raise NonFiniteError(
        f"{', '.join(broken)} not finite at {where}; not finite in its batch: "
        f"{_not_finite(batch) or 'nothing'}. The step was not taken; look at the data, or lower the "
        "learning rates"
    )


def _not_finite(batch: Batch) -> str:
    """Which parts of the batch, and in how many of its rows."""
    found = []
    for name in ("states", "actions", "rewards", "next_states", "terminals"):
        part = getattr(batch, name).reshape(len(batch.rewards), -1)
        rows = torch.nonzero(~torch.isfinite(part).all(dim=1)).flatten().tolist()
        if rows:
            found.append(f"{name} in {len(rows)} of {len(part)} rows ({rows[0]} first)")
    return ", ".join(found)


class FlatAdam:
    """Adam (and, with `weight_decay`, AdamW) on a flat vector of parameters, in place.

    Not torch.optim.Adam, whose step can be refused on the device by private means only, and whose
    moments the compiled critics could not share. `decayed`: 1 where weight decay applies, 0 elsewhere; same length as the parameters. All of it is
    tensors on the parameters' device, the number of steps too: a step never waits for the device.
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
        self.count = torch.zeros((), dtype=torch.float64, device=values.device)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self.count)

    @steps.setter
    def steps(self, steps: int) -> None:
        self.count.fill_(steps)

    @torch.no_grad()
    def step(self, gradients: Tensor, allowed: Tensor | None = None) -> None:
        """One step down `gradients`, a vector of the same length; none where `allowed`, a boolean of
        no dimension, is false."""
        count = self.count + 1.0
        correction = (1.0 - self.betas[1] ** count).sqrt()
        size = (self.learning_rate * correction / (1.0 - self.betas[0] ** count)).float()
        first = torch.lerp(self.first, gradients, 1.0 - self.betas[0])
        second = (self.betas[1] * self.second).addcmul_(
            gradients, gradients, value=1.0 - self.betas[1]
        )
        # eps is scaled so that this equals lr * m_hat / (sqrt(v_hat) + eps) exactly.
        change = first / (second.sqrt().add_((self.eps * correction).float())) * size
        if self.weight_decay and self.decayed is not None:
            change = change + self.values * self.decayed * (self.learning_rate * self.weight_decay)
        replace_where(allowed, self.values, self.values - change)
        replace_where(allowed, self.first, first)
        replace_where(allowed, self.second, second)
        replace_where(allowed, self.count, count)


def replace_where(allowed: Tensor | None, old: Tensor, new: Tensor) -> None:
    """`old` becomes `new`, in place, unless `allowed` is a false one."""
    old.copy_(new if allowed is None else torch.where(allowed, new, old))
