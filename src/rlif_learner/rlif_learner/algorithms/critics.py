# SPDX-License-Identifier: Apache-2.0
"""The critics: one ensemble, held in one flat vector, multiplied as batched matrices."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rlif_learner.config import RLPDConfig
from rlif_policy.networks import PolicySpec, StateNormaliser, xavier_uniform_

NORM_EPS = 1e-6


class FlatParameters:
    """Parameters of a module moved into one vector, gradients into another.

    The optimiser and the target's moving average are then one pass over one vector each, instead
    of one per tensor.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        first = self.parameters[0]
        size = sum(p.numel() for p in self.parameters)
        self.values = torch.empty(size, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.values)
        start = 0
        for parameter in self.parameters:
            part = slice(start, start + parameter.numel())
            self.values[part] = parameter.detach().reshape(-1)
            parameter.data = self.values[part].view(parameter.shape)
            parameter.grad = self.gradients[part].view(parameter.shape)
            start = part.stop


class EnsembleCritic(nn.Module):
    """`size` independent critics Q(s, a) of the features (rlif_policy.networks): MLPs with LayerNorm and ReLU, as batched matrices.

    Weights have the critic as their first dimension: [size, fan_in, fan_out].
    """

    def __init__(
        self,
        spec: PolicySpec,
        config: RLPDConfig,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> None:
        """`generator`: of the initial weights, on the processor, so that every `device` gets the
        same."""
        super().__init__()
        self.size, self.dropout = config.ensemble_size, config.dropout
        self.layer_norm, self.action_dim = config.layer_norm, spec.action_dim
        self.normaliser = StateNormaliser(spec)
        widths = (spec.feature_dim + spec.action_dim, *config.hidden, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            weight = torch.empty(self.size, fan_in, fan_out)
            xavier_uniform_(weight, fan_in, fan_out, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(self.size, 1, fan_out)))
        for width in config.hidden if self.layer_norm else ():
            self.gains.append(nn.Parameter(torch.ones(self.size, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(self.size, 1, width)))
        self.to(device)
        self.flat = FlatParameters(self.parameters())

    def decayed(self) -> Tensor:
        """1 for each entry of the flat vector that weight decay applies to, 0 elsewhere: all but the
        biases, as in RLPD's reference code. A LayerNorm's shift is its bias, its gain is not."""
        chosen = {id(parameter) for parameter in (*self.weights, *self.gains)}
        return torch.cat(
            [torch.full_like(p.flatten(), float(id(p) in chosen)) for p in self.flat.parameters]
        ).detach()

    def inputs(self, states: Tensor, actions: Tensor) -> Tensor:
        """What the first layer sees: the normalised state and the action, side by side."""
        return torch.cat([self.normaliser(states), actions], dim=-1)

    def forward(
        self,
        states: Tensor,
        actions: Tensor,
        subset: Tensor | None = None,
        masks: list[Tensor] | None = None,
    ) -> Tensor:
        """Values [critics, batch] of states [batch, feature_dim] and actions [batch, action_dim].

        `subset`: indices of the critics to use; all without it. `masks`: dropout, one
        [critics, batch, width] per hidden layer, already divided by the share that is kept.
        """

        def of(parameter: Tensor) -> Tensor:
            return parameter if subset is None else parameter.index_select(0, subset)

        inputs = self.inputs(states, actions)
        size = self.size if subset is None else len(subset)
        hidden = inputs.expand(size, *inputs.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(of(bias), hidden, of(weight))
            if i == len(self.weights) - 1:
                break
            if masks is not None:
                hidden = hidden * masks[i]
            if self.layer_norm:
                hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPS)
                hidden = torch.addcmul(of(self.shifts[i]), hidden, of(self.gains[i]))
            hidden = torch.relu(hidden)
        return hidden.squeeze(-1)
