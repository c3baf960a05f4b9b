# SPDX-License-Identifier: Apache-2.0
"""Image encoders by name: from the cameras' pixels to a few numbers for the policy and the critics.

An encoder is a trunk, which turns an image into a map of channels, and a head, which pools that map
and passes it through a bottleneck of LayerNorm and tanh, beside which the state is then joined
(networks.Actor.encode). A trunk is either trained with the rest, or pretrained and frozen: then its
maps are computed once per image, and what is stored and sent is the heads alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # height, width, channels of an image
# Kernel and stride of the small network's layers. One place of the map for every 4 x 4 pixels: coarse
# enough to be fast, fine enough for the pooling to tell where something is to a part of a pixel.
SMALL_LAYERS = ((8, 4), (3, 1), (3, 1))
BOTTLENECK_EPS = 1e-6
SMALLEST_SIDE = 8  # pixels of an image; the small network makes 2 x 2 places of it
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of pixels in [0, 1], as torchvision's weights expect them
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """What an image encoder is. Raises ValueError, naming the field, for what cannot be built."""

    name: str = "small"  # one of ENCODERS
    pooling: str = "spatial_softmax"  # one of POOLINGS
    features: int = 64  # per camera, behind the bottleneck
    shared: bool = False  # one trunk and head for all cameras; else each camera has its own
    frozen: bool = False  # the trunk stays as it was pretrained
    channels: int = 32  # of the small network's layers
    embeddings: int = 8  # of each channel, with spatial_embedding
    trunk: str = ""  # fingerprint of the frozen trunk's weights: see pretrained.py

    def __post_init__(self) -> None:
        for name, known in (("name", ENCODERS), ("pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"encoder.{name}: found {getattr(self, name)!r}, expected one of "
                    f"{', '.join(known)}"
                )
        for name in ("features", "channels", "embeddings"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"encoder.{name}: found {value!r}, expected a whole number of at least 1"
                )
        for name in ("shared", "frozen"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"encoder.{name}: found {getattr(self, name)!r}, expected true or false"
                )
        if self.frozen and not self.pretrained:
            raise ValueError(
                f"encoder.frozen: found true with {self.name!r}, whose weights are random; expected "
                f"one of {', '.join(n for n, e in ENCODERS.items() if e.pretrained)}, or false"
            )

    @property
    def pretrained(self) -> bool:
        """Whether the trunk begins with pretrained weights."""
        return ENCODERS[self.name].pretrained

    def to_mapping(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> EncoderSpec:
        """The inverse of `to_mapping`. ValueError names fields that do not exist."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"encoder: unknown fields {unknown}; known are {sorted(known)}")
        return cls(**values)


# ---- trunks


class SmallTrunk(nn.Sequential):
    """Three convolutions with ReLU, trained from scratch."""

    def __init__(self, spec: EncoderSpec, in_channels: int, generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        fan_in = in_channels
        for kernel, stride in SMALL_LAYERS:
            padding = (kernel - stride + 1) // 2
            convolution = nn.Conv2d(fan_in, spec.channels, kernel, stride, padding)
            # Orthogonal with the gain of ReLU, as DrQ and RLPD initialise theirs.
            nn.init.orthogonal_(convolution.weight, math.sqrt(2.0), generator=generator)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True)]
            fan_in = spec.channels
        super().__init__(*layers)


class ResNet18Trunk(nn.Sequential):
    """torchvision's ResNet-18 without its average and its classifier: 512 channels, 1/32 of a side."""

    def __init__(self, spec: EncoderSpec, in_channels: int, generator: torch.Generator) -> None:
        from torchvision.models import resnet18  # noqa: PLC0415 - takes a second to import

        with torch.device("meta"):  # shapes alone: the weights come later
            model = resnet18(weights=None)
        super().__init__(
            model.conv1, model.bn1, model.relu, model.maxpool,
            model.layer1, model.layer2, model.layer3, model.layer4,
        )  # fmt: skip


class EfficientNetB3Trunk(nn.Sequential):
    """torchvision's EfficientNet-B3 without its classifier: 1536 channels, 1/32 of a side."""

    def __init__(self, spec: EncoderSpec, in_channels: int, generator: torch.Generator) -> None:
        from torchvision.models import efficientnet_b3  # noqa: PLC0415 - takes a second to import

        with torch.device("meta"):  # as above
            model = efficientnet_b3(weights=None)
        super().__init__(*model.features)


@dataclass(frozen=True)
class Encoder:
    """A kind of trunk. mean, std: of pixels in [0, 1], taken off and divided by."""

    trunk: Callable[[EncoderSpec, int, torch.Generator], nn.Module]
    pretrained: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


ENCODERS: dict[str, Encoder] = {
    "small": Encoder(SmallTrunk, False, (0.5,), (0.5,)),
    "resnet18": Encoder(ResNet18Trunk, True, IMAGENET_MEAN, IMAGENET_STD),
    "efficientnet_b3": Encoder(EfficientNetB3Trunk, True, IMAGENET_MEAN, IMAGENET_STD),
}


# ---- pooling: a map [batch, channels, height, width] to [batch, size]


class SpatialSoftmax(nn.Module):
    """Where each channel is active: the mean place, x and y in [-1, 1], under a softmax over the map
    (Levine et al., 2016), with a temperature of each channel that is learned."""

    places: Tensor

    def __init__(self, spec: EncoderSpec, shape: Sequence[int], _: torch.Generator) -> None:
        super().__init__()
        channels, height, width = shape
        if height * width == 1:
            raise ValueError(
                f"encoder.pooling: found spatial_softmax with a map of one place, which says nothing of "
                f"where; expected larger images for {spec.name}, or another pooling"
            )
        self.size = 2 * channels
        y, x = torch.meshgrid(
            torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width), indexing="ij"
        )
        places = torch.stack([x.flatten(), y.flatten()], dim=1)
        self.register_buffer("places", places, persistent=False)
        self.sharpness = nn.Parameter(torch.ones(channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        weights = torch.softmax(maps.flatten(2) * self.sharpness, dim=-1)
        return (weights @ self.places).flatten(1)


class _Transposed(torch.autograd.Function):
    """A matrix turned into one whose rows were columns, in memory too, on the way back likewise:
    PyTorch copies whole matrices by blocks, and views of other shapes number by number."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        return matrix.t().contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].t().contiguous()


def _by_channel(maps: Tensor) -> Tensor:
    """[channels, batch, height * width] of maps [batch, channels, height, width]."""
    if not maps.is_contiguous(memory_format=torch.channels_last):
        return maps.flatten(2).transpose(0, 1)
    batch, channels, height, width = maps.shape
    pixels = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    return _Transposed.apply(pixels).view(channels, batch, height * width)


class SpatialEmbedding(nn.Module):
    """Learned weights over the map, `embeddings` of them for each channel (as in SERL)."""

    def __init__(self, spec: EncoderSpec, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        channels, height, width = shape
        self.size = channels * spec.embeddings
        kernel = torch.empty(channels, height * width, spec.embeddings)
        self.kernel = nn.Parameter(
            nn.init.normal_(kernel, 0.0, 1.0 / math.sqrt(height * width), generator=generator)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.bmm(_by_channel(maps), self.kernel).transpose(0, 1).flatten(1)


class Average(nn.Module):
    """The mean of each channel: what is there, not where."""

    def __init__(self, spec: EncoderSpec, shape: Sequence[int], _: torch.Generator) -> None:
        super().__init__()
        self.size = shape[0]

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


POOLINGS: dict[str, Callable[[EncoderSpec, Sequence[int], torch.Generator], Any]] = {
    "spatial_softmax": SpatialSoftmax,
    "spatial_embedding": SpatialEmbedding,
    "average": Average,
}


class Head(nn.Module):
    """Pooling and bottleneck: a map to `features` numbers in (-1, 1)."""

    def __init__(self, spec: EncoderSpec, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.pooling = POOLINGS[spec.pooling](spec, shape, generator)
        self.bottleneck = nn.Linear(self.pooling.size, spec.features)
        nn.init.orthogonal_(self.bottleneck.weight, generator=generator)
        nn.init.zeros_(self.bottleneck.bias)
        self.norm = nn.LayerNorm(spec.features, eps=BOTTLENECK_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.bottleneck(self.pooling(maps))))


class ImageEncoder(nn.Module):
    """All cameras of an observation to [..., cameras * features].

    images: (height, width, channels) of each camera. A frozen trunk is one for all cameras, each
    head is a camera's own unless `shared`; its weights are put in by `load_trunk`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: EncoderSpec, images: Sequence[Shape], generator: torch.Generator
    ) -> None:
        super().__init__()
        kind = ENCODERS[spec.name]
        _check_shapes(spec, images)
        self.spec, self.images = spec, tuple(tuple(shape) for shape in images)
        self.size = spec.features * len(images)
        trunks = 1 if spec.shared or spec.frozen else len(images)
        heads = 1 if spec.shared else len(images)
        self._loaded: bool = not spec.pretrained
        self.trunks = nn.ModuleList(
            kind.trunk(spec, images[i][2], generator) for i in range(trunks)
        )
        self.trunks.eval()  # batch normalisation in training refuses a map of one place
        self.register_buffer("mean", 255.0 * torch.tensor(kind.mean), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(kind.std), persistent=False)
        self.map_shapes = [self._map_shape(i) for i in range(len(images))]
        self.heads = nn.ModuleList(Head(spec, self.map_shapes[i], generator) for i in range(heads))
        if next(self.trunks.parameters()).is_meta:
            self.trunks.to_empty(device="cpu").to(memory_format=torch.channels_last)
        self.low_precision = False  # the trunk's products in bfloat16
        self.eval()
        if spec.frozen:
            self.trunks.requires_grad_(False)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Batch normalisation keeps the statistics that it was pretrained with: a batch of one robot's
        images is none of the world's."""
        return super().train(False)

    def trained(self) -> list[nn.Parameter]:
        """What an optimiser shall change."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def load_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Pretrained weights (pretrained.py) into every trunk."""
        for trunk in self.trunks:
            trunk.load_state_dict(tensors)
        self._loaded = True

    def load_exported(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """All weights, or, where the trunk is frozen, those of the heads alone: out of `tensors` those
        whose names begin with `prefix`."""
        own = {
            n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)
        }
        self.load_state_dict(own, strict=not self.spec.frozen)
        self._loaded |= not self.spec.frozen

    def copy(self) -> ImageEncoder:
        """Another of the same weights. A frozen trunk, which nothing changes, is one for both."""
        return copy.deepcopy(self, {id(self.trunks): self.trunks} if self.spec.frozen else {})

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Of each camera uint8 [..., height, width, channels], or, of a frozen trunk, the maps that
        `maps` gave, floating point [..., channels, height, width]."""
        if len(images) != len(self.images):
            raise ValueError(f"images: found {len(images)}, expected {len(self.images)}")
        for i, image in enumerate(images):
            expected = self.map_shapes[i] if image.is_floating_point() else self.images[i]
            if tuple(image.shape[-3:]) != expected:
                raise ValueError(
                    f"images: found {tuple(image.shape)} {image.dtype} of camera {i}, expected "
                    f"[..., {', '.join(map(str, expected))}]"
                )
        leading = images[0].shape[:-3]
        parts = []
        for i, image in enumerate(images):
            flat = image.flatten(0, -4) if leading else image[None]
            maps = (
                flat.float()
                if image.is_floating_point()
                else self._map(i, flat, self.low_precision)
            )
            parts.append(_of(self.heads, i)(maps))
        features = torch.cat(parts, dim=-1)
        return features.unflatten(0, leading) if leading else features[0]

    @torch.no_grad()
    def maps(self, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The trunks' maps of each camera, float16 [channels, height, width], of one observation:
        what is kept in place of its images where the trunk is frozen. In float32 whatever `low_precision`
        is: they are those that a policy sees."""
        return tuple(self._map(i, image[None], False)[0].half() for i, image in enumerate(images))

    def _map(self, i: int, image: Tensor, low: bool) -> Tensor:
        """[batch, channels, height, width] of uint8 [batch, height, width, channels]."""
        if not self._loaded:
            raise ValueError(
                f"encoder {self.spec.name}: its pretrained weights were not loaded; call load_trunk"
            )
        # In place, while they are in the cache; a view in channels-last order, which convolutions on a
        # processor prefer.
        pixels = image.to(self.mean.dtype).sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            return _of(self.trunks, i)(pixels).to(pixels.dtype)

    def _map_shape(self, i: int) -> tuple[int, ...]:
        height, width, channels = self.images[i]
        trunk = _of(self.trunks, i)
        device = next(trunk.parameters()).device
        with torch.no_grad():
            found = trunk(torch.zeros(1, channels, height, width, device=device))
        return tuple(found.shape[1:])


def _of(modules: nn.ModuleList, i: int) -> nn.Module:
    """The module of camera `i`: its own, or the one for all."""
    return modules[min(i, len(modules) - 1)]


def _check_shapes(spec: EncoderSpec, images: Sequence[Shape]) -> None:
    if not images:
        raise ValueError("images: found no camera, expected at least one for an encoder")
    if any(min(shape[:2]) < SMALLEST_SIDE for shape in images):
        raise ValueError(
            f"images: found {images}, expected sides of at least {SMALLEST_SIDE} pixels"
        )
    if spec.shared and len(set(images)) > 1:
        raise ValueError(
            f"encoder.shared: found true with images of {images}, expected one size for all cameras"
        )
    if spec.pretrained and any(shape[2] != 3 for shape in images):
        raise ValueError(f"images: found {images}, expected 3 channels (RGB) for {spec.name}")
