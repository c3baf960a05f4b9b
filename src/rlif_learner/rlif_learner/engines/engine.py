# SPDX-License-Identifier: Apache-2.0
"""What executes the updates of RLPD: one interface, behind which they are faster or not.

The equations stand in algorithms/rlpd.py and do not know the engine. An engine decides when an update
is drawn and reported, and how the critics' numbers are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:  # which import the engines
    from rlif_learner.algorithms.critics import EnsembleCritic
    from rlif_learner.algorithms.noise import CriticNoise, UpdateNoise
    from rlif_learner.data.buffer import Batch, Buffers


class Engine(Protocol):
    """Executes the updates of one learner. All engines give the same numbers, to their precision."""

    def prepare(self) -> None:
        """What takes time once, so that no update waits for it. Called when the learner is complete."""

    def update(self, buffers: Buffers) -> dict[str, float]:
        """One update: draw its batches and noise, learn, report. Returns its metrics, or those of the
        update before where updates overlap. NonFiniteError as of RLPD.update."""

    def finish(self) -> dict[str, float]:
        """Wait for an update that still runs; returns its metrics, none where there is none."""

    def rng_state(self) -> Mapping[str, Any]:
        """State of the generator of batches, without what was drawn ahead."""

    def forget(self) -> None:
        """Drop what was drawn ahead: the learner's state was replaced."""

    def step_critics(self, batches: Batch, noise: UpdateNoise) -> tuple[Batch, Tensor]:
        """What RLPD.step_critics does."""

    def critic_gradients(self, batch: Batch, target: Tensor, masks: list[Tensor] | None) -> Tensor:
        """The gradients of RLPD.critic_loss, into the critics' flat vector (and the encoder's); returns
        the loss and the mean value, [2]."""

    def target_values(self, batch: Batch, actions: Tensor, noise: CriticNoise) -> Tensor:
        """Values [subset, batch] of `actions` in the next states, by the target critics."""

    def mean_value(self, states: Tensor, actions: Tensor, masks: list[Tensor] | None) -> Tensor:
        """Mean of all critics [batch], with its derivative by the actions."""

    def values(
        self, critic: EnsembleCritic, states: Tensor, actions: Tensor,
        subset: Tensor | None = None, masks: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """`critic(states, actions, subset, masks)`, its products alone in the engine's precision."""
