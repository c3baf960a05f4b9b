# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does: nodes, topics, types, parameters, launch arguments."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rlif_bringup.launch_file import Launch, declared_arguments, read

ROOT = Path(__file__).parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.yaml"))
CONFIG_FILES = sorted((ROOT / "config").glob("*.yaml"))
SET_UPS = sorted(path.parent for path in (ROOT / "config").glob("*/robot.yaml"))
# Declared by rclpy for every node.
ALWAYS = {"use_sim_time"}
ROBOT = {"robot": "sim", "run_directory": "/nowhere"}  # what robot.launch.yaml must be given


@pytest.fixture(scope="module")
def parameters(reference: ModuleType) -> dict[str, set[str]]:
    """Declared parameters by node."""
    return {n.name: {p.name for p in n.parameters} | ALWAYS for n in reference.node_references()}


def launch(name: str, **arguments: str) -> Launch:
    return read(ROOT / "launch" / f"{name}.launch.yaml", arguments, os.environ)


def test_reference_is_up_to_date(reference: ModuleType) -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == reference.content(), "run: make docs"
    assert reference.KNOWN.read_text(encoding="utf-8") == reference.known_parameters(), "make docs"
    packages = {path.parent.name for path in reference.readmes()}
    assert packages == {path.parent.name for path in (ROOT / "src").glob("*/package.xml")}
    for path, text in reference.readmes().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run: make docs"


def test_parameters_of_one_name_have_one_type_and_range(reference: ModuleType) -> None:
    """A robot's file of `/**` sets them in all nodes at once."""
    differing = {"control_rate"}  # one value for all, which each node bounds by its own use
    found: dict[str, set[tuple[object, ...]]] = {}
    for node in reference.node_references():
        for p in node.parameters:
            found.setdefault(p.name, set()).add((type(p.default), p.limits))
    assert {name for name, kinds in found.items() if len(kinds) > 1} == differing


def test_architecture_names_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    found = 0
    for package, cores in re.findall(r"^\| (rlif_\w+) \| (.+?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([\w/]+)`", cores):
            path = ROOT / "src" / package / package / name
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{package}: {name}"
            found += 1
    assert found > 20


def test_architecture_names_topics_that_exist(reference: ModuleType) -> None:
    known = {
        (name, endpoint.type.rpartition("/")[2])
        for node in reference.node_references()
        for endpoint in node.endpoints
        for name in endpoint.names
    }
    names = {name for name, _ in known} | {"command"}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z_, ]+?) \| (?:\w+_msgs/)?(\w+) \|", text, re.MULTILINE)
    assert len(rows) > 10, "the table of topics was not found"
    for topics, kind in rows[1:]:
        for topic in topics.split(", "):
            assert topic in names, f"docs/architecture.md has {topic}, no node has"
            if "," not in topics and topic != "command":
                assert (topic, kind) in known, f"{topic} is a {kind} in docs/architecture.md only"


def test_values_in_the_documentation_are_those_of_config(reference: ModuleType) -> None:
    """Such as `follow_timeout` (1.5 s)."""
    values: dict[str, list[object]] = {}
    for node in reference.node_references():
        path = ROOT / "config" / f"{node.name}.yaml"
        given = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
        for p in node.parameters:
            values.setdefault(p.name, []).append(given.get(p.name, p.default))
    found = {
        (path.name, name, float(value) / (1000.0 if unit == "ms" else 1.0))
        for path in (ROOT / "docs").glob("*.md")
        for name, value, unit in re.findall(
            r"`([a-z_.]+)` \(([\d.]+) (\w+)", path.read_text(encoding="utf-8")
        )
    }
    assert len(found) > 20, "the table of time-outs in docs/arbiter.md was not found"
    ours = [f for f in found if f[1] in values]  # the others are parameters of other software
    assert not [f for f in ours if f[2] not in values[f[1]]]


@pytest.mark.parametrize("path", CONFIG_FILES + [s / "robot.yaml" for s in SET_UPS], ids=str)
def test_parameter_files_have_no_bare_truth_values(path: Path) -> None:
    """A bare y is text for some parsers of YAML and true for others, ROS's among them."""
    bare = re.findall(r"[:\[,]\s*(y|n|yes|no|on|off)\s*[,\]\n#]", path.read_text(encoding="utf-8"))
    assert not bare, f"{path}: quote {bare}"


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_arguments_are_described(path: Path) -> None:
    for argument in declared_arguments(path, os.environ):
        assert argument.description, f"{path.name}: {argument.name}"


def test_launch_files_set_only_parameters_that_nodes_declare(
    parameters: dict[str, set[str]],
) -> None:
    processes = [*launch("robot", **ROBOT).processes, *launch("learner").processes]
    processes += launch("sim").processes
    for process in processes:
        unknown = set(process.parameters) - parameters[process.name]
        assert not unknown, f"{process.name} does not declare {unknown}"


def test_robot_launch_starts_the_graph_of_sim_launch_with_a_watchdog() -> None:
    simulated = {process.name for process in launch("sim").processes}
    robot = {process.name for process in launch("robot", **ROBOT).processes}
    assert robot == simulated - {"sim_robot", "sim_operator"} | {"watchdog"}


def test_robot_launch_requires_no_process() -> None:
    """The arbiter's zeros must outlive every other node."""
    assert not [p.name for p in launch("robot", **ROBOT).processes if p.required]
    assert [p.name for p in launch("sim").processes if p.required] == ["sim_robot"]


def test_sim_launch_arguments_reach_the_nodes(tmp_path: Path) -> None:
    values = {"namespace": "left", "lock_step": "false", "seed": "7", "learner": "false"}
    processes = {p.name: p for p in launch("sim", **values).processes}
    assert "learner" not in processes
    assert processes["arbiter"].node == "/left/arbiter"
    names = [
        {p.name: p.node for p in launch("sim", **v).processes} for v in ({}, {"namespace": "none"})
    ]
    assert [found["arbiter"] for found in names] == ["/rlif/arbiter", "/arbiter"]
    assert processes["arbiter"].parameters["lock_step"] is False
    assert processes["sim_operator"].parameters["seed"] == 7
