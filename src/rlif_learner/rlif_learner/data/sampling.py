# SPDX-License-Identifier: Apache-2.0
"""Batches out of several buffers: the robot's own data and prior data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlif_learner.data.batch import Batch, joined
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.steps import Source

DRIVEN = (Source.POLICY, Source.OPERATOR)  # the steps in which somebody did something


@dataclass(frozen=True)
class Buffers:
    """What an algorithm learns from: the robot's own data and, if any, prior data."""

    online: ReplayBuffer
    prior: ReplayBuffer | None = None


def sample_mixed(
    online: ReplayBuffer,
    prior: ReplayBuffer | None,
    batch: int,
    prior_ratio: float,
    rng: np.random.Generator,
    count: int | None = None,
    images: bool = True,
    refused_ratio: float = 0.0,
) -> Batch:
    """Batches of which round(batch * prior_ratio) transitions each come from `prior`, the rest
    from `online`. While one of the two is empty, the other gives all. `images`, `refused_ratio`:
    as of `sample`."""
    from_prior = round(batch * prior_ratio)
    if prior is None or not len(prior):
        from_prior = 0
    elif not len(online):
        from_prior = batch
    parts = []
    if prior is not None and from_prior:
        parts.append(
            prior.sample(from_prior, rng, count, images=images, refused_ratio=refused_ratio)
        )
    if from_prior < batch:
        own = batch - from_prior
        parts.append(online.sample(own, rng, count, images=images, refused_ratio=refused_ratio))
    return joined(parts, dim=0 if count is None else 1)


def sample_union(
    parts: Sequence[tuple[ReplayBuffer | None, Sequence[Source]]],
    batch: int,
    rng: np.random.Generator,
    images: bool = True,
) -> Batch:
    """`batch` transitions, uniformly out of all that are in one of `parts`, each a buffer (None:
    there is none) and the sources that count in it. ValueError if there is not one."""
    filled = [(b, sources, b.count(sources)) for b, sources in parts if b is not None]
    sizes = np.array([size for _, _, size in filled], float)
    if not sizes.sum():
        raise ValueError("found no transition in any buffer; add some before sampling")
    # Drawn, not rounded: a part of one transition among 100,000 has its turn too.
    shares = rng.multinomial(batch, sizes / sizes.sum())
    return joined(
        [
            buffer.sample(int(share), rng, sources=sources, images=images)
            for (buffer, sources, _), share in zip(filled, shares, strict=True)
            if share
        ]
    )
