# SPDX-License-Identifier: Apache-2.0
"""Fixtures of this package: one graph of nodes for a test, one file of pretrained weights for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trunks
from node_graph import graph  # noqa: F401 - a fixture
from stand_in_tf import tf  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torchvision's ResNet-18 with random weights."""
    return trunks.random_file(tmp_path_factory.mktemp("weights"))
