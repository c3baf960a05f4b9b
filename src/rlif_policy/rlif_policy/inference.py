# SPDX-License-Identifier: Apache-2.0
"""The actor's forward pass in NumPy: several times faster than torch for one small state.

The weights are those of `networks.Actor`; a test compares the two. Images are encoded by torch, where
convolutions are fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rlif_policy.encoders import ImageEncoder
from rlif_policy.networks import ENCODER, LOG_STD_MAX, LOG_STD_MIN, PolicySpec

NORM_EPS = 1e-6


class StateError(ValueError):
    """A state, or an image, that the policy cannot answer; the message has the reason."""


class NumpyActor:
    """Tanh-Gaussian policy of fixed weights. Its noise comes from the generator passed in.

    `trunk`: the pretrained weights of a frozen trunk (pretrained.py), which are not among `tensors`;
    or it is taken from `before`, an actor of the same spec.
    """

    def __init__(
        self,
        spec: PolicySpec,
        tensors: Mapping[str, Tensor],
        trunk: Mapping[str, Tensor] | None = None,
        before: NumpyActor | None = None,
    ) -> None:
        known = before._encoder if before is not None else None
        self._encoder: ImageEncoder | None = load_encoder(spec, tensors, trunk, known)
        weights = {
            name: value.numpy().copy()
            for name, value in tensors.items()
            if not name.startswith(ENCODER)
        }
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

    def act(
        self,
        state: np.ndarray,
        rng: np.random.Generator | None = None,
        images: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """The action, float32 [action_dim] in [-1, 1], for a state [state_dim] in SI units and an
        image, uint8 [height, width, channels], of each camera.

        Without `rng` the mean (deterministic). StateError for a wrong length, values that are not
        finite, or images that are missing or of another size.
        """
        check_state(state, self.spec.state_dim)
        if self._encoder is not None:
            check_images(images, self.spec)
            with torch.inference_mode():
                features = self._encoder([torch.from_numpy(image) for image in images])
            state = np.concatenate([state, features.numpy()])
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


def load_encoder(
    spec: PolicySpec,
    tensors: Mapping[str, Tensor],
    trunk: Mapping[str, Tensor] | None,
    before: ImageEncoder | None = None,
) -> ImageEncoder | None:
    """An encoder with these weights; None without images. `before`: one of the same
    spec, which stays as it is: copying it is faster than making another."""
    if spec.encoder is None:
        return None
    if before is not None:
        encoder = before.copy()
    else:
        encoder = ImageEncoder(spec.encoder, spec.images, torch.Generator())
        if trunk is not None:
            encoder.load_trunk(trunk)
    encoder.load_exported(tensors, ENCODER)
    return encoder


def check_images(images: Sequence[np.ndarray], spec: PolicySpec) -> None:
    """StateError naming what was found and what was expected."""
    found = tuple(tuple(image.shape) for image in images)
    if found != spec.images:
        raise StateError(
            f"the observation has images of {found}, expected {spec.images} (height, width, "
            "channels): the observer's cameras, image_width and image_height must be those that the "
            "policy was made for"
        )


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
