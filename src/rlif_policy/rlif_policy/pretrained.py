# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights for an encoder's trunk: torchvision's own, a file, or one in an installed package.

`source` is one of
    torchvision        torchvision's ImageNet weights, out of its cache or fetched into it
    PATH               a file: torchvision's state dict of the model, .pth (weights only) or .safetensors
    package:NAME/FILE  such a file inside an installed Python package
"""

from __future__ import annotations

import hashlib
import importlib.resources
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rlif_policy.encoders import ENCODERS, EncoderSpec

PACKAGE = "package:"
# What batch normalisation counts while it trains plays no part in a trunk, and files of before
# PyTorch counted it do not have it.
UNUSED = ".num_batches_tracked"


class PretrainedError(ValueError):
    """Weights that cannot be had, or are of another network; the message has the remedy."""


def load_trunk(spec: EncoderSpec, source: str) -> dict[str, Tensor]:
    """The trunk's weights by name, for `ImageEncoder.load_trunk`. PretrainedError has the reason."""
    if not spec.pretrained:
        raise PretrainedError(f"encoder {spec.name!r} is trained from scratch: it takes no weights")
    found = _from_torchvision(spec.name) if source == "torchvision" else _from_file(source)
    trunk = ENCODERS[spec.name].trunk(spec, 3, torch.Generator())
    return _chosen(found, trunk, spec.name, source)


def load_frozen(spec: EncoderSpec | None, source: str) -> dict[str, Tensor] | None:
    """The trunk that a policy with a frozen one was made with; None where it has none.

    PretrainedError where it cannot be had, or `source` holds another.
    """
    if spec is None or not spec.frozen:
        return None
    trunk = load_trunk(spec, source)
    if spec.trunk and (found := fingerprint(trunk)) != spec.trunk:
        raise PretrainedError(
            f"encoder_weights: {source} holds a {spec.name} with fingerprint {found[:12]}…, expected "
            f"{spec.trunk[:12]}…: give the policy the same weights as the learner"
        )
    return trunk


def fingerprint(trunk: Mapping[str, Tensor]) -> str:
    """sha256, as hex, of the weights' names and values: which trunk a policy was made with."""
    digest = hashlib.sha256()
    for name in sorted(trunk):
        value = trunk[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _from_torchvision(name: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights  # noqa: PLC0415 - takes a second to import

    weights: Any = get_model_weights(name).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        file = weights.url.rsplit("/", 1)[-1]
        raise PretrainedError(
            f"encoder_weights: torchvision's weights of {name} are not in its cache and could not be "
            f"fetched ({error}). Where there is internet, run\n"
            f'  python -c "from torchvision.models import get_model_weights as w; '
            f"w('{name}').DEFAULT.get_state_dict()\"\n"
            f"and copy ~/.cache/torch/hub/checkpoints/{file} to the same place here, or set "
            "encoder_weights to the path of that file"
        ) from error
    return state


def _from_file(source: str) -> Mapping[str, Tensor]:
    if source.startswith(PACKAGE):
        package, _, inside = source.removeprefix(PACKAGE).partition("/")
        try:
            resource = importlib.resources.files(package).joinpath(inside)
        except (ImportError, TypeError, ValueError) as error:  # the last two: for what is no name
            raise PretrainedError(
                f"encoder_weights: found no installed package {package!r}: pip install it, or name "
                "another source, as package:NAME/FILE"
            ) from error
        with importlib.resources.as_file(resource) as path:
            return _read(Path(path))
    return _read(Path(source).expanduser())


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise PretrainedError(
            f"encoder_weights: found no file {path}, expected torchvision, the path of a state dict, "
            "or package:NAME/FILE"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError, OSError, RuntimeError, pickle.UnpicklingError, EOFError
    ) as error:  # fmt: skip
        raise PretrainedError(f"encoder_weights: {path} cannot be read: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PretrainedError(f"encoder_weights: {path} holds no state dict of tensors")
    return state


def _chosen(
    found: Mapping[str, Tensor], trunk: nn.Module, name: str, source: str
) -> dict[str, Tensor]:
    """Those of torchvision's model that the trunk has, under the trunk's names."""
    chosen = {}
    for own, value in trunk.state_dict().items():
        if own.endswith(UNUSED):
            chosen[own] = torch.zeros(value.shape, dtype=value.dtype)
            continue
        theirs = _torchvision_name(own, name)
        if theirs not in found and own not in found:
            raise PretrainedError(
                f"encoder_weights: {source} has no tensor {theirs!r}, expected torchvision's state "
                f"dict of {name}"
            )
        weight = found.get(theirs, found.get(own))
        assert weight is not None
        if weight.shape != value.shape:
            raise PretrainedError(
                f"encoder_weights: {theirs} of {source} is {tuple(weight.shape)}, expected "
                f"{tuple(value.shape)} of {name}"
            )
        chosen[own] = weight.detach().to(value.dtype).contiguous()
    if broken := [n for n, w in chosen.items() if w.is_floating_point() and not w.isfinite().all()]:
        raise PretrainedError(f"encoder_weights: {broken[0]} of {source} is not finite")
    return chosen


# The trunk numbers the parts of ResNet-18 that torchvision names.
_RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def _torchvision_name(own: str, name: str) -> str:
    part, _, rest = own.partition(".")
    return f"features.{own}" if name != "resnet18" else f"{_RESNET_PARTS[int(part)]}.{rest}"
