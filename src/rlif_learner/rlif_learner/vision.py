# SPDX-License-Identifier: Apache-2.0
"""The image encoder as the learner's parameters describe it: its spec, its pretrained weights,
and what is stored of the images for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlif_learner.config import RLPDConfig, checked
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.steps import StepRecord, is_stored
from rlif_policy.encoders import ENCODERS, EncoderSpec, Shape
from rlif_policy.networks import Actor, camera_places
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
    interleaved: bool = False,
    evenly: bool = False,
    failure_reward: float = 0.0,
) -> ReplayBuffer:
    """A buffer for the steps of `actor`. images: what to keep where it sees nothing itself.
    The rest as ReplayBuffer's.

    Of a frozen trunk it holds what the trunk made of the images, in place of them.
    """
    spec, encoder = actor.spec, actor.encoder
    frozen = encoder is not None and encoder.spec.frozen
    shapes = spec.images or images
    if encoder is not None and frozen:
        shapes = tuple((c, h, w) for c, h, w in encoder.map_shapes)
    return ReplayBuffer(
        capacity, spec.state_dim, spec.action_dim, shapes, memmap_dir, scheme,
        features=frozen, interleaved=interleaved, evenly=evenly, failure_reward=failure_reward,
    )  # fmt: skip


def as_stored(actor: Actor) -> Callable[[StepRecord], StepRecord]:
    """What becomes of a step before it is stored: of its images those of the policy's cameras, in its
    order; where the encoder's trunk is frozen, what that makes of them, once and for all. ValueError
    for a camera that is missing, or images of other sizes."""
    encoder = actor.encoder
    if encoder is None:
        return lambda step: step
    if not encoder.spec.frozen:
        return lambda step: of_cameras(step, actor.spec.cameras)

    def see(step: StepRecord) -> StepRecord:
        step = of_cameras(step, actor.spec.cameras)
        if not is_stored(step):
            return replace(step, images=())
        shapes = tuple(image.shape for image in step.images)
        types = {image.dtype for image in step.images}
        if shapes != encoder.images or types != {np.dtype(np.uint8)}:
            raise ValueError(
                f"images of step {step.step_index} of episode {step.episode_id}: found {shapes} of "
                f"{sorted(map(str, types))}, expected {encoder.images} of uint8"
            )
        device = encoder.mean.device
        # Copied: those of a bag must not be written to, of which torch would warn.
        maps = encoder.maps([torch.tensor(image, device=device) for image in step.images])
        return replace(step, images=tuple(one.cpu().numpy() for one in maps))

    return see


def of_cameras(step: StepRecord, cameras: Sequence[str]) -> StepRecord:
    """The step with the images of these cameras alone, in this order. ValueError names one that is
    missing."""
    if not cameras or not step.cameras or tuple(cameras) == step.cameras:
        return step
    try:
        places = camera_places(cameras, step.cameras)
    except ValueError as problem:
        raise ValueError(
            f"step {step.step_index} of episode {step.episode_id}: {problem}"
        ) from problem
    images = tuple(step.images[place] for place in places)
    return replace(step, images=images, cameras=tuple(step.cameras[place] for place in places))
