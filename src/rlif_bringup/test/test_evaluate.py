"""What `rlif evaluate` takes over from the run of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlif_bringup.evaluate import as_trained
from rlif_bringup.graph_client import GraphError


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/000003"])
def test_set_up_and_cameras_are_those_of_the_run(tmp_path: Path, inside: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "launch_arguments.yaml").write_text(
        "images: 'true'\nrobot: sim_vision\nseed: '4'\nrun_directory: /elsewhere\n"
    )
    (tmp_path / "checkpoints" / "000003").mkdir(parents=True)
    assert as_trained(tmp_path / inside) == {"robot": "sim_vision", "images": "true"}


def test_a_checkpoint_of_no_run_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "000001").mkdir(parents=True)
    assert as_trained(tmp_path / "a" / "b" / "000001") == {}


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "launch_arguments.yaml").write_text("robot: [")
    with pytest.raises(GraphError, match=r"launch_arguments\.yaml cannot be read"):
        as_trained(tmp_path)
