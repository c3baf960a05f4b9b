# SPDX-License-Identifier: Apache-2.0
"""The launch interpreter: what it understands, and that it refuses the rest by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlif_bringup.launch_file import Launch, LaunchFileError, declared_arguments, read

Follow = Callable[..., Launch]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An install prefix with a package `arm` that has an executable `node`."""
    prefix = tmp_path / "prefix"
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "arm").touch()
    (prefix / "lib/arm").mkdir(parents=True)
    (prefix / "lib/arm/node").touch()
    return prefix


@pytest.fixture
def follow(tmp_path: Path, prefix: Path) -> Follow:
    def follow(text: str, **arguments: str) -> Launch:
        path = tmp_path / "test.launch.yaml"
        path.write_text(text, encoding="utf-8")
        return read(path, arguments, {"AMENT_PREFIX_PATH": str(prefix), "HOME": "/nowhere"})

    return follow


def node(body: str) -> str:
    return "launch: [{node: {pkg: arm, exec: node, " + body + "}}]"


def test_read_of_a_node_gives_the_command_that_ros_starts(follow: Follow, prefix: Path) -> None:
    launch = follow(
        node("name: left, namespace: robots, args: '--fast 2', remap: [{from: a, to: b}]")
    )
    (process,) = launch.processes
    assert process.command == (
        *(str(prefix / "lib/arm/node"), "--fast", "2", "--ros-args"),
        *("-r", "__node:=left", "-r", "__ns:=/robots", "-r", "a:=b"),
    )
    assert process.node == "/robots/left"
    assert not process.required


def test_read_of_arguments_applies_defaults_and_choices(follow: Follow) -> None:
    text = """
launch:
- arg: {name: robot, default: sim, description: which, choice: [{value: sim}, {value: ur}]}
- node: {pkg: arm, exec: node, name: $(var robot)}
"""
    assert follow(text).processes[0].name == "sim"
    assert follow(text, robot="ur").processes[0].name == "ur"
    assert follow(text).arguments[0].description == "which"
    with pytest.raises(LaunchFileError, match="robot: found 'spot', expected one of sim, ur"):
        follow(text, robot="spot")
    with pytest.raises(LaunchFileError, match="no argument 'robto'; did you mean 'robot'"):
        follow(text, robto="ur")


def test_read_without_a_required_argument_is_refused(follow: Follow) -> None:
    with pytest.raises(LaunchFileError, match="'bag' must be given: bag:=…  where to"):
        follow("launch: [{arg: {name: bag, description: where to}}]")


def test_read_of_conditions_leaves_out_what_is_false(follow: Follow) -> None:
    text = """
launch:
- arg: {name: learner, default: 'true'}
- node: {pkg: arm, exec: node, name: a, if: $(var learner)}
- node: {pkg: arm, exec: node, name: b, unless: $(var learner)}
- node: {pkg: arm, exec: node, name: c, if: "$(and $(var learner) $(equals 'x' x))"}
"""
    assert [p.name for p in follow(text).processes] == ["a", "c"]
    assert [p.name for p in follow(text, learner="False").processes] == ["b"]
    with pytest.raises(LaunchFileError, match="found 'maybe'"):
        follow(text, learner="maybe")


def test_read_of_a_group_is_a_scope_and_of_an_include_is_not(
    follow: Follow, tmp_path: Path
) -> None:
    (tmp_path / "inner.launch.yaml").write_text(
        "launch: [{set_remap: {from: joy, to: pad}}, {let: {name: inside, value: '1'}}]"
    )
    launch = follow("""
launch:
- group:
  - push_ros_namespace: {namespace: left}
  - set_env: {name: COLOUR, value: red}
  - include: {file: $(dirname)/inner.launch.yaml}
  - node: {pkg: arm, exec: node, name: a, namespace: deep}
- node: {pkg: arm, exec: node, name: b, args: $(var inside outside)}
""")
    first, second = launch.processes
    assert first.node == "/left/deep/a"
    assert first.environment["COLOUR"] == "red"
    assert first.command[-2:] == ("-r", "joy:=pad")
    assert second.node == "/b"
    assert "COLOUR" not in second.environment
    assert "outside" in second.command


def test_read_of_an_include_passes_arguments(follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "inner.launch.yaml").write_text(
        "launch: [{arg: {name: n, default: x}}, {node: {pkg: arm, exec: node, name: $(var n)}}]"
    )
    launch = follow(
        "launch: [{include: {file: $(dirname)/inner.launch.yaml, arg: [{name: n, value: y}]}}]"
    )
    assert [p.name for p in launch.processes] == ["y"]


def test_read_of_an_include_without_a_required_argument_is_refused(
    follow: Follow, tmp_path: Path
) -> None:
    (tmp_path / "inner.launch.yaml").write_text("launch: [{arg: {name: n}}]")
    with pytest.raises(LaunchFileError, match="inner.launch.yaml needs 'n' among its arguments"):
        follow("launch: [{arg: {name: n}}, {include: {file: $(dirname)/inner.launch.yaml}}]", n="x")


def test_read_of_parameters_keeps_their_types(follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("/**: {ros__parameters: {a: 1}}")
    launch = follow("""
launch:
- arg: {name: rate, default: '10'}
- arg: {name: directory, default: ''}
- node:
    pkg: arm
    exec: node
    param:
    - from: $(dirname)/p.yaml
    - {name: rate, value: $(var rate), type: float}
    - {name: enabled, value: 'true'}
    - {name: label, value: '12', type: str}
    - {name: axes, value: [x, y]}
    - {name: directory, value: $(var directory)}
""")
    (process,) = launch.processes
    assert process.parameters == {
        "rate": 10.0,
        "enabled": True,
        "label": "12",
        "axes": ["x", "y"],
        "directory": "",
    }
    assert isinstance(process.parameters["rate"], float)
    assert process.command[-2:] == ("--params-file", str(tmp_path / "p.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("launch: [{nodes: {}}]", "unknown tag 'nodes'"),
        (node("colour: red"), "unknown attribute 'colour'"),
        (node("respawn: true"), "'respawn' is refused: a node that died"),
        (node("name: $(eval 1+1)"), r"\$\(eval …\) is refused"),
        (node("name: $(command ls)"), r"\$\(command …\) is refused"),
        (node("name: $(anon x)"), r"\$\(anon …\) is not known here"),
        (node("name: $(var nothing)"), "no such argument or let"),
        (node("name: $(env NOTHING)"), "NOTHING.*not set"),
        (node("name: $(var"), "without its '\\)'"),
        (node("on_exit: restart"), "found 'restart', expected 'shutdown'"),
        (node("param: [{from: /no/where.yaml}]"), "no parameter file /no/where.yaml"),
        (node("param: [{name: a, value: [1, x]}]"), "no value or uniform list"),
        (node("param: [{name: a, value: 1, type: double}]"), "type 'double'; known are"),
        ("launch: [{node: {pkg: leg, exec: node}}]", "package 'leg' is in none"),
        ("launch: [{node: {pkg: arm, exec: nod}}]", "no executable 'nod'; it has: node"),
        ("launch: [{node: {pkg: arm}}]", "attribute 'exec' is missing"),
        ("launch: [{include: {file: /no/x.launch.yaml}}]", "no launch file /no/x.launch.yaml"),
        ("launch: [{include: {file: $(filename)}}]", "includes itself"),
        ("nodes: []", "expected one key, 'launch'"),
        ("launch: [", "is not YAML"),
    ],
)
def test_read_of_what_is_not_understood_is_refused_by_name(
    follow: Follow, text: str, message: str
) -> None:
    with pytest.raises(LaunchFileError, match=message) as error:
        follow(text)
    assert "test.launch.yaml" in str(error.value), "the error must say which file"


def test_read_of_an_unknown_robot_names_those_that_there_are(
    follow: Follow, tmp_path: Path
) -> None:
    for name in ("sim", "ur5e"):
        (tmp_path / "config" / name).mkdir(parents=True)
        (tmp_path / "config" / name / "topics.launch.yaml").write_text("launch: []")
    with pytest.raises(LaunchFileError, match="is there for: sim, ur5e"):
        follow("launch: [{include: {file: $(dirname)/config/spot/topics.launch.yaml}}]")


def test_declared_arguments_without_values_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.launch.yaml"
    (tmp_path / "b.launch.yaml").write_text("launch: [{arg: {name: may, default: b}}]")
    path.write_text(
        "launch: [{arg: {name: must}}, {group: [{include: {file: $(dirname)/b.launch.yaml}}]},"
        "{arg: {name: env, default: $(env X)}}, {include: {file: $(var must)}}]"
    )
    found = [(a.name, a.default) for a in declared_arguments(path, {})]
    assert found == [("must", None), ("may", "b"), ("env", "$(env X)")]
