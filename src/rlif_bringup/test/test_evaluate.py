# SPDX-License-Identifier: Apache-2.0
"""What `rlif evaluate` takes over from the run of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlif_bringup.evaluate import as_trained
from rlif_bringup.graph_client import GraphError


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/000003"])
def test_as_trained_takes_robot_and_cameras_of_the_run(tmp_path: Path, inside: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "launch_arguments.yaml").write_text(
        "images: 'true'\nrobot: sim_vision\nseed: '4'\nrun_directory: /elsewhere\n"
    )
    (tmp_path / "checkpoints" / "000003").mkdir(parents=True)
    assert as_trained(tmp_path / inside) == {"robot": "sim_vision", "images": "true"}


def test_as_trained_of_a_checkpoint_without_a_run_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "000001").mkdir(parents=True)
    assert as_trained(tmp_path / "a" / "b" / "000001") == {}


def test_as_trained_of_a_broken_record_names_it(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "launch_arguments.yaml").write_text("robot: [")
    with pytest.raises(GraphError, match=r"launch_arguments\.yaml cannot be read"):
        as_trained(tmp_path)
