"""HG-DAgger: imitate the prior data and the steps that the operator drove, no others."""

from __future__ import annotations

import torch

from rlif_learner.bc import BC
from rlif_learner.buffer import Batch, Buffers


class HGDAgger(BC):
    """BC on a set that grows with each intervention: prior data and intervened steps, uniformly."""

    def draw(self, buffers: Buffers) -> Batch:
        """A batch out of the union. ValueError while both parts are empty."""
        from_prior = len(buffers.prior) if buffers.prior is not None else 0
        intervened = buffers.online.operator_count()
        if not from_prior + intervened:
            raise ValueError(
                "HG-DAgger: found neither prior data nor operator steps; record demonstrations or "
                "intervene first"
            )
        share = from_prior / (from_prior + intervened)
        count = int(self.rng.binomial(self.config.batch_size, share))
        parts = []
        if buffers.prior is not None and count:
            parts.append(buffers.prior.sample(count, self.rng))
        if count < self.config.batch_size:
            size = self.config.batch_size - count
            parts.append(buffers.online.sample(size, self.rng, operator=True))
        return Batch.from_tensors(
            torch.cat(pieces) for pieces in zip(*(part.tensors() for part in parts), strict=True)
        )
