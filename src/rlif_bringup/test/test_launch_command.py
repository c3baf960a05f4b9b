# SPDX-License-Identifier: Apache-2.0
"""`rlif launch`: what it finds, and when it hands over to `ros2 launch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlif_bringup import cli
from rlif_bringup.launch_command import has_ros2_launch, only, parse_values
from rlif_bringup.launch_file import Launch, LaunchFileError, Process


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


def test_only_of_a_launch_keeps_the_named_nodes() -> None:
    launch = Launch((), tuple(Process(name, (name,), {}) for name in ("a", "b", "c")))
    assert [process.name for process in only(launch, ["c", "a"]).processes] == ["a", "c"]
    with pytest.raises(LaunchFileError, match="no node 'd'; there are: a, b, c"):
        only(launch, ["d"])


def test_launch_with_only_prints_the_command_of_that_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["launch", "robot", "robot:=sim", "run_directory:=run", "--print"]
    assert cli.main([*words, "--only", "recorder"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("recorder: ") and "bag_directory:='run/bag'" in line
    assert cli.main([*words, "--only", "recoder"]) == 2
    assert "no node 'recoder'" in capsys.readouterr().err
