"""The actor's forward pass in NumPy: several times faster than torch for one small state.

The weights are those of `networks.Actor`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from rlif_policy.networks import LOG_STD_MAX, LOG_STD_MIN, PolicySpec

NORM_EPS = 1e-6


class StateError(ValueError):
    """A state that the policy cannot answer; the message says why."""


class NumpyActor:
    """Tanh-Gaussian policy of fixed weights. Its noise comes from the generator passed in."""

    def __init__(self, spec: PolicySpec, tensors: Mapping[str, Tensor]) -> None:
        weights = {name: value.numpy().copy() for name, value in tensors.items()}
        self.spec = spec
        self._offset, self._scale = weights["normaliser.offset"], weights["normaliser.scale"]
        self._layers = [
            (np.ascontiguousarray(weights[f"layers.{i}.weight"]), weights[f"layers.{i}.bias"])
            for i in range(len(spec.hidden))
        ]
        self._norms = [
            (weights[f"norms.{i}.weight"], weights[f"norms.{i}.bias"])
            for i in range(len(spec.hidden) if spec.layer_norm else 0)
        ]
        self._head = (weights["head.weight"], weights["head.bias"])

    def act(self, state: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The action, float32 [action_dim] in [-1, 1], for a state [state_dim] in SI units.

        Without `rng` the mean (deterministic). StateError for a wrong length, or values that are
        not finite.
        """
        check_state(state, self.spec.state_dim)
        hidden = (state - self._offset) / self._scale
        for i, (weight, bias) in enumerate(self._layers):
            hidden = weight @ hidden + bias
            if self._norms:
                hidden = layer_norm(hidden, *self._norms[i])
            hidden = np.maximum(hidden, 0.0)
        out = self._head[0] @ hidden + self._head[1]
        mean, log_std = out[: self.spec.action_dim], out[self.spec.action_dim :]
        if rng is not None:
            std = np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
            mean = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
        action = np.tanh(mean)
        if not np.isfinite(action).all():
            raise StateError(f"the action is not finite ({action}) for state {state}")
        return action


def layer_norm(values: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred / np.sqrt((centred * centred).mean() + NORM_EPS) * gain + shift


def check_state(state: np.ndarray, state_dim: int) -> None:
    """StateError naming what was found and what was expected."""
    if state.shape != (state_dim,):
        raise StateError(
            f"the observation has a state of {state.size}, expected {state_dim}: the observer's "
            "features are not those that the policy was made for"
        )
    if not np.isfinite(state).all():
        raise StateError(f"the observation's state is not finite: {state}")


def initial_policy(
    kind: str, action_dim: int, scale: float, rng: np.random.Generator
) -> Callable[[], np.ndarray]:
    """What to do before there are any weights: "hold" (zeros) or "random" in [-scale, scale]."""
    if kind == "hold":
        return lambda: np.zeros(action_dim, np.float32)
    return lambda: rng.uniform(-scale, scale, action_dim).astype(np.float32)
