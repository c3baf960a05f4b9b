# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for pretrained weights: torchvision's models with random ones, and their files.

Each is made once per process: tests take copies of what they change.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torchvision.models import get_model

from rlif_policy.encoders import EncoderSpec
from rlif_policy.pretrained import fingerprint, load_trunk

FLOOR = 0.05  # of a channel's variance, as a share of the layer's: no faint one is blown up


def random_model(name, seed=0):
    """torchvision's model, ready to be used, whose every weight is random.

    The statistics are near those of a batch of noise, so that each layer tells images apart, but
    makes no great difference of a small one.
    """
    return _random_model(name, seed)


@lru_cache(maxsize=4)
@torch.no_grad()
def _random_model(name, seed):
    model, generator = get_model(name, weights=None).eval(), torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        size = (2.0 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.3
        parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.add_(1.0)
        norm.momentum = 1.0
        norm.train()
    model(torch.randn(8, 3, 64, 64, generator=generator))
    for norm in norms:
        norm.running_var.add_(FLOOR * norm.running_var.mean())
    return model.eval()


def random_tensors(name, seed=0):
    """What of it a trunk takes, under the trunk's names: all but the classifier, in the same order."""
    model = random_model(name, seed)
    parts = model.features if name != "resnet18" else list(model.children())[:-2]
    return nn.Sequential(*parts).state_dict()


def random_file(folder, name="resnet18", seed=0):
    """Its state dict as a file in `folder`."""
    path = folder / f"{name}-{seed}.pth"
    if not path.exists():
        torch.save(random_model(name, seed).state_dict(), path)
    return path


@lru_cache(maxsize=4)
def _loaded(path, name):
    trunk = load_trunk(EncoderSpec(name), str(path))
    return trunk, fingerprint(trunk)


def random_trunk(path, name="resnet18", **fields):
    """Spec, with the fingerprint where it is frozen, and trunk of a file of `random_file`."""
    trunk, found = _loaded(path, name)
    spec = EncoderSpec(name, **fields)
    return EncoderSpec(name, **fields, trunk=found) if spec.frozen else spec, dict(trunk)
