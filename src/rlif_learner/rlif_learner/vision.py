# SPDX-License-Identifier: Apache-2.0
"""The image encoder as the learner's parameters describe it: its spec, its pretrained weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rlif_learner.config import RLPDConfig, checked
from rlif_learner.data.buffer import ReplayBuffer
from rlif_policy.encoders import ENCODERS, EncoderSpec, Shape
from rlif_policy.networks import Actor
from rlif_policy.pretrained import fingerprint, load_trunk
from rlif_policy.processor import processor

NO_ENCODER = "none"
NAMES = (NO_ENCODER, *ENCODERS)


@dataclass(frozen=True)
class VisionConfig:
    """The learner's parameters of the same names. ValueError names the one that is wrong."""

    encoder: str = NO_ENCODER  # one of NAMES
    encoder_pooling: str = "spatial_softmax"
    encoder_features: int = 64
    encoder_shared: bool = False
    encoder_frozen: bool = False
    encoder_channels: int = 32
    encoder_embeddings: int = 8
    encoder_weights: str = "torchvision"  # of a pretrained trunk: see rlif_policy/pretrained.py
    cameras: tuple[str, ...] = ()
    image_width: int = 128
    image_height: int = 128

    def __post_init__(self) -> None:
        if self.encoder not in NAMES:
            raise ValueError(f"encoder: found {self.encoder!r}, expected one of {', '.join(NAMES)}")
        if self.encoder != NO_ENCODER and not self.cameras:
            raise ValueError(
                f"cameras: found none with encoder {self.encoder!r}, expected the observer's names"
            )

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> VisionConfig:
        """Out of parameters of which some are not about seeing; what is not there has its default.

        ValueError names the one that is of another kind.
        """
        own = {
            f.name: checked(f.name, parameters[f.name], f.default)
            for f in fields(cls)
            if f.name in parameters
        }
        return cls(**own)

    @property
    def images(self) -> tuple[Shape, ...]:
        """(height, width, channels) of each camera's images in observations."""
        return ((self.image_height, self.image_width, 3),) * len(self.cameras)


@dataclass(frozen=True)
class Vision:
    """What a policy sees with. trunk: pretrained weights; None: it has none, or sees nothing."""

    encoder: EncoderSpec | None = None
    images: tuple[Shape, ...] = ()
    trunk: Mapping[str, Tensor] | None = None
    cameras: tuple[str, ...] = ()  # their names


def make_vision(config: VisionConfig) -> Vision:
    """ValueError names the setting that is wrong, or says how pretrained weights can be had."""
    if config.encoder == NO_ENCODER:
        return Vision()
    spec = EncoderSpec(
        config.encoder, config.encoder_pooling, config.encoder_features, config.encoder_shared,
        config.encoder_frozen, config.encoder_channels, config.encoder_embeddings,
    )  # fmt: skip
    if not spec.pretrained:
        return Vision(spec, config.images, None, config.cameras)
    trunk = load_trunk(spec, config.encoder_weights)
    if spec.frozen:
        spec = replace(spec, trunk=fingerprint(trunk))
    return Vision(spec, config.images, trunk, config.cameras)


def low_precision(config: RLPDConfig, device: torch.device) -> bool:
    """Whether the encoder's convolutions are in bfloat16. A processor without instructions for it
    takes several times as long as with float32: there they stay that, with a warning."""
    if config.precision == "float32":
        return False
    if device.type != "cpu":
        return True
    found = config.precision != "float16" and _has_bfloat16()
    if not found:
        warnings.warn(
            f"precision: found {config.precision!r}, but for images this processor has no such "
            "products; their convolutions are in float32",
            stacklevel=3,
        )
    return found


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, and PyTorch uses it."""
    # Not among PyTorch's public names; where it has another one, float32 is never wrong.
    used = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return "bfloat16" in processor().formats and used is not None and bool(used())


def make_buffer(
    capacity: int,
    actor: Actor,
    images: tuple[Shape, ...] = (),
    memmap_dir: str | None = None,
    scheme: str = "onset",
) -> ReplayBuffer:
    """A buffer for the steps of `actor`. images: what to keep where it sees nothing itself.

    Of a frozen trunk it holds what the trunk made of the images, in place of them.
    """
    spec, encoder = actor.spec, actor.encoder
    frozen = encoder is not None and encoder.spec.frozen
    shapes = spec.images or images
    if encoder is not None and frozen:
        shapes = tuple((c, h, w) for c, h, w in encoder.map_shapes)
    return ReplayBuffer(
        capacity, spec.state_dim, spec.action_dim, shapes, memmap_dir, scheme, features=frozen
    )
