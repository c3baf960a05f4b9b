# SPDX-License-Identifier: Apache-2.0
"""What algorithms learn from: transitions as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions; B stands for the leading dimensions, [batch] or [count, batch]."""

    states: Tensor  # float32 [B, state_dim]
    actions: Tensor  # float32 [B, action_dim]
    rewards: Tensor  # float32 [B]
    next_states: Tensor  # float32 [B, state_dim]
    terminals: Tensor  # float32 [B], 1: no value beyond
    images: tuple[Tensor, ...] = ()  # uint8 [B, height, width, channels] per camera, or features
    next_images: tuple[Tensor, ...] = ()

    def tensors(self) -> tuple[Tensor, ...]:
        plain = (self.states, self.actions, self.rewards, self.next_states, self.terminals)
        return (*plain, *self.images, *self.next_images)

    def __getitem__(self, i: int) -> Batch:
        """Batch `i` of [count, batch]."""
        return Batch.from_tensors(tensor[i] for tensor in self.tensors())

    @classmethod
    def from_tensors(cls, tensors: Iterable[Tensor]) -> Batch:
        states, actions, rewards, next_states, terminals, *images = tensors
        half = len(images) // 2
        return cls(
            states, actions, rewards, next_states, terminals,
            tuple(images[:half]), tuple(images[half:]),
        )  # fmt: skip


def joined(batches: Sequence[Batch], dim: int = 0) -> Batch:
    """One batch after the other, along a leading dimension."""
    if len(batches) == 1:
        return batches[0]
    columns = zip(*(batch.tensors() for batch in batches), strict=True)
    return Batch.from_tensors(torch.cat(pieces, dim) for pieces in columns)
