# SPDX-License-Identifier: Apache-2.0
"""The success detector: from an observation to how sure it is that the task has succeeded.

A binary classifier with the policy's image encoders. Its file holds its spec, the weights, the
calibration and the threshold, and the fingerprint of the observations that it takes. No ROS.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlif_policy.encoders import EncoderSpec, ImageEncoder, Shape
from rlif_policy.networks import CONSTANT, LEAST_SCALE, camera_places
from rlif_policy.pretrained import load_frozen

FILE = "detector.safetensors"
FORMAT = "1"


class DetectorError(ValueError):
    """A detector that cannot be used, or not for these observations; the message has the remedy."""


@dataclass(frozen=True)
class ObservationLayout:
    """What a detector takes of an observation.

    state_dim: entries of the state; 0: it is not used
    features: names of the state's features, as the observer's; empty: not known
    cameras: names; empty: not known; images: (height, width, channels) of each
    """

    state_dim: int = 0
    features: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    images: tuple[Shape, ...] = ()

    def __post_init__(self) -> None:
        for name in ("features", "cameras"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "images", tuple(tuple(image) for image in self.images))
        if not self.state_dim and not self.images:
            raise DetectorError("layout: found neither state nor images, expected one of them")

    def fingerprint(self) -> str:
        """sha256, as hex, of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def select(
        self, state: np.ndarray, cameras: Sequence[str], images: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """State and images of an observation as the detector takes them: its cameras in its order.

        DetectorError names what the observation lacks, or has in another size.
        """
        if self.state_dim and state.shape != (self.state_dim,):
            raise DetectorError(
                f"the observation has a state of {state.size}, expected {self.state_dim}: the "
                "observer's features are not those that the detector was trained with"
            )
        if self.state_dim and not np.isfinite(state).all():
            raise DetectorError(f"the observation's state is not finite: {state}")
        try:
            places = camera_places(self.cameras, cameras) if self.images else ()
        except ValueError as problem:
            raise DetectorError(str(problem).replace("the policy", "the detector")) from problem
        chosen = [images[place] for place in places if place < len(images)]
        found = tuple(tuple(image.shape) for image in chosen)
        if found != self.images:
            raise DetectorError(
                f"the observation has images of {found}, expected {self.images} (height, width, "
                "channels): the observer's cameras, image_width and image_height must be those that "
                "the detector was trained with"
            )
        return (state if self.state_dim else state[:0]), chosen

    def check_features(self, features: Sequence[str]) -> None:
        """DetectorError for other features than it was trained with, where both are known."""
        if self.state_dim and self.features and features and tuple(features) != self.features:
            raise DetectorError(
                f"features: found {', '.join(features)}, expected {', '.join(self.features)}, with "
                "which the detector was trained; train another for these"
            )


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is made of. encoder: of its images; None where it takes none."""

    layout: ObservationLayout
    encoder: EncoderSpec | None = None
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if bool(self.layout.images) != (self.encoder is not None):
            raise DetectorError(
                f"encoder: found {self.encoder} with images of {self.layout.images}, expected both "
                "or neither"
            )

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DetectorSpec:
        """DetectorError for what is no spec of this version."""
        try:
            values: dict[str, Any] = json.loads(text)
            encoder = values["encoder"]
            return cls(
                ObservationLayout(**values["layout"]),
                None if encoder is None else EncoderSpec.from_mapping(encoder),
                values["hidden"],
            )
        except (KeyError, TypeError, ValueError) as error:
            known = ", ".join(field.name for field in fields(cls))
            raise DetectorError(f"spec: expected {known}, found {text[:80]!r}: {error}") from error


class Detector(nn.Module):
    """The network. `trunk`: pretrained weights of the encoder's trunk (pretrained.py).

    confidence = sigmoid(slope * logit + shift), which calibration fits; `threshold` is of it
    """

    offset: Tensor
    scale: Tensor
    slope: Tensor
    shift: Tensor
    threshold: Tensor

    def __init__(
        self, spec: DetectorSpec, seed: int = 0, trunk: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        size = spec.layout.state_dim
        self.encoder: ImageEncoder | None = None
        if spec.encoder is not None:
            self.encoder = ImageEncoder(spec.encoder, spec.layout.images, generator)
            size += self.encoder.size
            if trunk is not None:
                self.encoder.load_trunk(trunk)
        for name, value in (("offset", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((spec.layout.state_dim,), value))
        for name, value in (("slope", 1.0), ("shift", 0.0), ("threshold", 0.5)):
            self.register_buffer(name, torch.tensor(value))
        layers: list[nn.Module] = []
        for width in (*spec.hidden, 1):
            linear = nn.Linear(size, width)
            nn.init.orthogonal_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
            size = width
        self.layers = nn.Sequential(*layers[:-1])

    def normalise_by(self, states: np.ndarray) -> None:
        """Take mean and standard deviation of `states` [count, state_dim] off the state."""
        deviation = states.std(axis=0, dtype=np.float64)
        scale = np.where(deviation < CONSTANT, 1.0, np.maximum(deviation, LEAST_SCALE))
        self.offset.copy_(torch.from_numpy(states.mean(axis=0, dtype=np.float64)))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, state: Tensor, images: Sequence[Tensor] = ()) -> Tensor:
        """Logits [...] of states [..., state_dim] and images as ImageEncoder takes them."""
        parts = [(state - self.offset) / self.scale]
        if self.encoder is not None:
            parts.append(self.encoder(images))
        logits: Tensor = self.layers(torch.cat(parts, dim=-1))
        return logits.squeeze(-1)

    @torch.no_grad()
    def confidence(
        self, state: np.ndarray, cameras: Sequence[str], images: Sequence[np.ndarray]
    ) -> float:
        """In [0, 1], of one observation. DetectorError where it is not one for this detector."""
        state, images = self.spec.layout.select(state, cameras, images)
        pixels = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        logit = self(torch.from_numpy(np.array(state, np.float32)), pixels)
        return float(torch.sigmoid(self.slope * logit + self.shift))

    def export_state_dict(self) -> dict[str, Tensor]:
        """All weights but those of a frozen trunk."""
        frozen = self.encoder is not None and self.encoder.spec.frozen
        return {
            name: value.detach().cpu().contiguous()
            for name, value in self.state_dict().items()
            if not (frozen and name.startswith("encoder.trunks."))
        }


def save_detector(detector: Detector, directory: Path) -> Path:
    """Write it into `directory`, whole or not at all."""
    path = directory / FILE
    metadata = {
        "format": FORMAT,
        "spec": detector.spec.to_json(),
        "layout": detector.spec.layout.fingerprint(),
    }
    part = path.with_suffix(".part")
    save_file(detector.export_state_dict(), part, metadata)
    part.replace(path)
    return path


def load_detector(directory: Path, encoder_weights: str = "torchvision") -> Detector:
    """The detector that `rlif detector train` wrote. encoder_weights: of a frozen encoder.

    DetectorError says what is wrong with it, and what to do.
    """
    path = directory / FILE
    if not path.is_file():
        raise DetectorError(
            f"detector: found no {FILE} in {directory}, expected the directory that "
            "`rlif detector train … -o DIR` wrote"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise DetectorError(f"{path}: cannot be read, train it again: {error}") from error
    if about.get("format") != FORMAT:
        raise DetectorError(
            f"{path}: found format {about.get('format')}, expected {FORMAT}: train it again"
        )
    spec = DetectorSpec.from_json(about.get("spec", ""))
    if about.get("layout") != spec.layout.fingerprint():
        raise DetectorError(
            f"{path}: its fingerprint is not that of the observations it describes: train it again"
        )
    detector = Detector(spec, trunk=load_frozen(spec.encoder, encoder_weights))
    expected = detector.export_state_dict()
    wrong = [
        name
        for name in sorted(expected.keys() | tensors.keys())
        if name not in expected
        or name not in tensors
        or tensors[name].shape != expected[name].shape
        or (tensors[name].is_floating_point() and not tensors[name].isfinite().all())
    ]
    if wrong:
        raise DetectorError(f"{path}: {', '.join(wrong)}: missing, unknown, not finite or of "
                            "another shape: train it again")  # fmt: skip
    detector.load_state_dict(tensors, strict=False)
    if detector.encoder is not None:  # which knows then that it has a trunk
        detector.encoder.load_exported(tensors, "encoder.")
    return detector.eval()
