"""`rlif launch`: what it finds, and when it hands over to `ros2 launch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlif_bringup.launch_command import has_ros2_launch, parse_values
from rlif_bringup.launch_file import LaunchFileError


def test_has_ros2_launch_without_the_verb_is_false(tmp_path: Path) -> None:
    program = tmp_path / "bin/ros2"
    program.parent.mkdir()
    program.touch(mode=0o755)
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    environment = {"PATH": str(program.parent), "AMENT_PREFIX_PATH": str(tmp_path)}
    assert not has_ros2_launch(environment)
    (index / "ros2launch").touch()
    assert has_ros2_launch(environment)
    assert not has_ros2_launch({**environment, "PATH": ""})


def test_parse_values_of_pairs_splits_at_the_first_sign() -> None:
    assert parse_values(["a:=1", "b:=x:=y"]) == {"a": "1", "b": "x:=y"}


@pytest.mark.parametrize("value", ["a", ":=1", "bag_directory:="])
def test_parse_values_of_anything_else_is_refused(value: str) -> None:
    """`ros2 launch` refuses an empty value too: "malformed launch argument"."""
    with pytest.raises(LaunchFileError, match="expected name:=value"):
        parse_values([value])
