# SPDX-License-Identifier: Apache-2.0
"""HG-DAgger: imitate the prior data and the steps that the operator drove, no others."""

from __future__ import annotations

from rlif_learner.algorithms.bc import BC
from rlif_learner.data.batch import Batch
from rlif_learner.data.sampling import DRIVEN, Buffers, sample_union
from rlif_learner.data.steps import Source


class HGDAgger(BC):
    """BC on a set that grows with each intervention: prior data and intervened steps, uniformly."""

    def draw(self, buffers: Buffers) -> Batch:
        """A batch out of the union. ValueError while both parts are empty."""
        intervened = (Source.OPERATOR,)
        demonstrated = buffers.prior.count(DRIVEN) if buffers.prior is not None else 0
        if not demonstrated + buffers.online.count(intervened):
            raise ValueError(
                "HG-DAgger: found neither prior data nor operator steps; record demonstrations or "
                "intervene first"
            )
        parts = ((buffers.prior, DRIVEN), (buffers.online, intervened))
        return sample_union(parts, self.config.batch_size, self.rng, images=self.uses_images)
