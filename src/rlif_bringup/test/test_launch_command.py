"""`rlif launch`: what it finds, and when it hands over to `ros2 launch`."""

from __future__ import annotations

from pathlib import Path

from rlif_bringup.launch_command import has_ros2_launch


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
