# SPDX-License-Identifier: Apache-2.0
"""The policy: what it is made of (`PolicySpec`) and the network itself (`Actor`).

The actor is a tanh-Gaussian multi-layer perceptron, as in SAC and RLPD. It carries its own
normaliser of the state and its own image encoder, so that a set of weights is complete: state in SI
units and images in, action in [-1, 1] out. The perceptrons of actor and critics take *features*: the
state, and with images also the encoder's output, concatenated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlif_policy.encoders import EncoderSpec, ImageEncoder

LOG_STD_MIN = -20.0
LOG_STD_MAX = 2.0
ENCODER = "encoder."  # names of the encoder's weights begin so, in whatever holds an actor's
CONSTANT = 1e-6  # standard deviation of a state entry, in its unit, that counts as none
LEAST_SCALE = 0.01  # of a state entry by the demonstrations, in its unit: m, rad, m/s, N
TRUNKS = ENCODER + "trunks."


def _positive_int(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: found {value!r}, expected a whole number of at least 1")


@dataclass(frozen=True)
class PolicySpec:
    """What a policy network is: two networks with equal specs take each other's weights.

    Raises ValueError, naming the field, for anything that no network could be built from.
    """

    state_dim: int
    action_dim: int
    hidden: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    images: tuple[tuple[int, int, int], ...] = ()  # (height, width, channels) of each camera
    state_offset: tuple[float, ...] = ()  # subtracted from the state, per entry; empty: 0
    state_scale: tuple[float, ...] = ()  # then divided by, per entry; empty: 1
    encoder: EncoderSpec | None = None  # of the images; None where there are none
    cameras: tuple[str, ...] = ()  # names, in the order of `images`; empty: not known

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "images", tuple(tuple(image) for image in self.images))
        object.__setattr__(self, "state_offset", tuple(float(v) for v in self.state_offset))
        object.__setattr__(self, "state_scale", tuple(float(v) for v in self.state_scale))
        _positive_int("state_dim", self.state_dim)
        _positive_int("action_dim", self.action_dim)
        if not self.hidden:
            raise ValueError("hidden: found no layer, expected at least one width, e.g. [256, 256]")
        for width in self.hidden:
            _positive_int("hidden", width)
        if not isinstance(self.layer_norm, bool):
            raise ValueError(f"layer_norm: found {self.layer_norm!r}, expected true or false")
        for image in self.images:
            if len(image) != 3:
                raise ValueError(
                    f"images: found {image!r}, expected (height, width, channels) for each camera"
                )
            for size in image:
                _positive_int("images", size)
        if isinstance(self.encoder, Mapping):
            object.__setattr__(self, "encoder", EncoderSpec.from_mapping(self.encoder))
        if not isinstance(self.encoder, EncoderSpec | None):
            raise ValueError(
                f"encoder: found {self.encoder!r}, expected its fields by name, or none"
            )
        if bool(self.images) != (self.encoder is not None):
            raise ValueError(
                f"images: found {self.images} with encoder {self.encoder}, expected both or neither"
            )
        object.__setattr__(self, "cameras", tuple(self.cameras))
        self._check_cameras()
        self._check_normaliser()

    def _check_cameras(self) -> None:
        names = self.cameras
        if names and (len(names) != len(self.images) or len(set(names)) != len(names)):
            raise ValueError(
                f"cameras: found {names} with {len(self.images)} images, expected a name of its own "
                "for each, or none"
            )

    def _check_normaliser(self) -> None:
        for name, values in (
            ("state_offset", self.state_offset),
            ("state_scale", self.state_scale),
        ):
            if values and len(values) != self.state_dim:
                raise ValueError(
                    f"{name}: found {len(values)} entries, expected {self.state_dim} (state_dim) "
                    "or none"
                )
            if not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name}: found {values!r}, expected finite numbers")
        if any(value <= 0.0 for value in self.state_scale):
            raise ValueError(f"state_scale: found {self.state_scale!r}, expected values above 0")

    @property
    def feature_dim(self) -> int:
        """Entries of the state and of what the encoder makes of the images."""
        features = self.encoder.features * len(self.images) if self.encoder is not None else 0
        return self.state_dim + features

    def to_json(self) -> str:
        """The spec as canonical JSON: equal specs give equal text."""
        values = asdict(self)
        if self.encoder is None:
            del values["encoder"]  # as those were written that know none
        if not self.cameras:
            del values["cameras"]  # likewise
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> PolicySpec:
        """The inverse of `to_json`. ValueError names unknown and missing fields."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"policy spec: expected JSON, found {text[:80]!r}: {error}") from error
        if not isinstance(values, Mapping):
            raise ValueError(f"policy spec: expected a JSON object, found {text[:80]!r}")
        known = {field.name for field in fields(cls)}
        unknown, missing = set(values) - known, {"state_dim", "action_dim"} - set(values)
        if unknown or missing:
            raise ValueError(
                f"policy spec: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}; "
                f"known are {sorted(known)}"
            )
        return cls(**values)

    def hash(self) -> str:
        """sha256 of the canonical JSON, as hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def camera_places(expected: Sequence[str], found: Sequence[str]) -> tuple[int, ...]:
    """Where each of the `expected` cameras is among those `found`: images are identified by name, as
    their sizes may be the same. ValueError names the one that is missing.

    In their order, where either side gives no names.
    """
    if not expected or not found or not all(found):
        return tuple(range(len(found)))
    missing = [name for name in expected if name not in found]
    if missing:
        raise ValueError(
            f"images: found cameras {', '.join(found)}, expected {', '.join(expected)}, which the "
            f"policy uses: {', '.join(missing)} is missing; give the observer's `cameras` these names"
        )
    return tuple(found.index(name) for name in expected)


class StateNormaliser(nn.Module):
    """(state - offset) / scale: not trained, but part of the weights.

    The numbers are the spec's. Where it has none they are 0 and 1, until the learner puts in those of
    the demonstrations (`fit`). Features that the encoder made are left as they are.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        offset = spec.state_offset or (0.0,) * spec.state_dim
        scale = spec.state_scale or (1.0,) * spec.state_dim
        beside = spec.feature_dim - spec.state_dim
        self.register_buffer("offset", torch.tensor((*offset, *(0.0,) * beside)))
        self.register_buffer("scale", torch.tensor((*scale, *(1.0,) * beside)))

    def forward(self, state: Tensor) -> Tensor:
        return (state - self.offset) / self.scale

    def fit(self, states: np.ndarray) -> None:
        """Mean and standard deviation of `states` [count, state_dim]. An entry that never changes has
        scale 1, one that hardly changes LEAST_SCALE: what is small there may be larger later."""
        mean, deviation = (
            states.mean(axis=0, dtype=np.float64),
            states.std(axis=0, dtype=np.float64),
        )
        scale = np.where(deviation < CONSTANT, 1.0, np.maximum(deviation, LEAST_SCALE))
        self.offset[: len(mean)] = torch.from_numpy(mean)
        self.scale[: len(mean)] = torch.from_numpy(scale)


def xavier_uniform_(weight: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
    """Fill `weight` in place as Glorot does, from an own generator: no global random state."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)


class Actor(nn.Module):
    """Tanh-Gaussian policy: features [..., feature_dim] to an action [..., action_dim] in (-1, 1).

    `seed` fixes the initial weights and the noise of `act`. Without images the features are the
    state; with them, `encode` computes them. `trunk`: pretrained weights of the encoder's trunk (pretrained.py).
    """

    def __init__(
        self, spec: PolicySpec, seed: int = 0, trunk: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.generator = torch.Generator().manual_seed(seed)
        self.normaliser = StateNormaliser(spec)
        widths = (spec.feature_dim, *spec.hidden)
        linears = [
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in zip(widths, widths[1:], strict=False)
        ]
        self.layers = nn.ModuleList(linears)
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, eps=1e-6) if spec.layer_norm else nn.Identity()
            for width in spec.hidden
        )
        self.head = nn.Linear(widths[-1], 2 * spec.action_dim)  # mean and log standard deviation
        for layer in linears:
            xavier_uniform_(layer.weight, layer.in_features, layer.out_features, self.generator)
            nn.init.zeros_(layer.bias)
        # Both halves of the head are drawn as if they were a layer each.
        xavier_uniform_(self.head.weight, widths[-1], spec.action_dim, self.generator)
        nn.init.zeros_(self.head.bias)
        self.encoder: ImageEncoder | None = None
        if spec.encoder is not None:
            self.encoder = ImageEncoder(spec.encoder, spec.images, self.generator)
            if trunk is not None:
                self.encoder.load_trunk(trunk)

    def decision_parameters(self) -> list[nn.Parameter]:
        """Those of the perceptron alone, without the encoder's."""
        encoder = () if self.encoder is None else self.encoder.parameters()
        seeing = {id(parameter) for parameter in encoder}
        return [parameter for parameter in self.parameters() if id(parameter) not in seeing]

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights that make this policy, by name: all but those of a frozen trunk."""
        frozen = self.encoder is not None and self.encoder.spec.frozen
        return {
            name: value
            for name, value in self.state_dict().items()
            if not (frozen and name.startswith(TRUNKS))
        }

    def normaliser_part(self) -> dict[str, Tensor]:
        """What normalises the state, by the names of `export_state_dict`, shared (not copied)."""
        return {f"normaliser.{n}": value for n, value in self.normaliser.named_buffers()}

    def load_exported(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `export_state_dict`: a frozen trunk stays as it is."""
        expected, found = set(self.export_state_dict()), set(tensors)
        if found != expected:
            missing, unknown = sorted(expected - found), sorted(found - expected)
            raise ValueError(f"weights: missing {missing}, unknown {unknown}")
        self.load_state_dict(tensors, strict=False)
        if self.encoder is not None:
            self.encoder.load_exported(tensors, ENCODER)

    def encode(self, state: Tensor, images: Sequence[Tensor] = ()) -> Tensor:
        """[..., feature_dim] of a state [..., state_dim] and the images, as ImageEncoder takes them."""
        if self.encoder is None:
            return state
        return torch.cat([state, self.encoder(images)], dim=-1)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, each [..., action_dim]."""
        hidden = self.normaliser(state)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            # In place: nothing on the way back needs what was there before.
            hidden = functional.relu(norm(layer(hidden)), inplace=True)
        mean, log_std = self.head(hidden).chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, state: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A reparametrised action [..., action_dim] and its log probability [...].

        `noise` is standard normal, [..., action_dim]; without it the actor's own generator draws.
        """
        mean, log_std = self.forward(state)
        if noise is None:
            noise = torch.randn(
                mean.shape, generator=self.generator, dtype=mean.dtype, device=self.generator.device
            ).to(mean.device)
        return squash(mean, log_std, noise)

    @torch.no_grad()
    def act(
        self,
        state: np.ndarray,
        deterministic: bool = True,
        images: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """The action [action_dim] in [-1, 1], float32, for one state [state_dim] in SI units and one
        image, uint8 [height, width, channels], of each camera.

        ValueError for a state of another shape or with a value that is not finite.
        """
        found = np.asarray(state, dtype=np.float32)
        if found.shape != (self.spec.state_dim,):
            raise ValueError(f"state: found shape {found.shape}, expected ({self.spec.state_dim},)")
        if not np.isfinite(found).all():
            raise ValueError(
                f"state: entries {np.flatnonzero(~np.isfinite(found)).tolist()} are not finite; "
                "check the observer's sources"
            )
        like = self.head.weight
        tensor = torch.from_numpy(found).to(device=like.device, dtype=like.dtype)
        tensor = self.encode(tensor, [torch.from_numpy(i).to(like.device) for i in images])
        action = torch.tanh(self.forward(tensor)[0]) if deterministic else self.sample(tensor)[0]
        return action.float().cpu().numpy()


def encoder_part(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights out of an actor's, or out of a learner's state."""
    return {name: value for name, value in tensors.items() if name.startswith(ENCODER)}


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std * noise) and its log probability, summed over the last dimension."""
    raw = mean + log_std.exp() * noise
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)): no cancellation where tanh is near 1.
    log_slope = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return torch.tanh(raw), (log_normal - log_slope).sum(dim=-1)
