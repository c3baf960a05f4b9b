# SPDX-License-Identifier: Apache-2.0
"""Assertions in the shared modules are explained like those of the tests; fixtures of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("external_sessions", "lerobot_data", "step_bags")


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    """The mapping of external_sessions.session()."""
    import yaml
    from external_sessions import MAPPING

    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(MAPPING))
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """step_bags.Cli"""
    from step_bags import Cli

    return Cli(capsys)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """A bag of one episode."""
    from step_bags import make_episodes, write_bag

    return write_bag(tmp_path / "bag", make_episodes(1))
