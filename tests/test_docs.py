"""The documentation says what the code does: nodes, topics, types, parameters, launch arguments."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from rclpy.node import Node
from rclpy.parameter_client import AsyncParameterClient

from rlif_bringup.launch_file import Launch, Process, declared_arguments, read
from rlif_bringup.processes import Processes

ROOT = Path(__file__).parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.yaml"))
CONFIG_FILES = sorted((ROOT / "config").glob("*.yaml"))
SET_UPS = sorted(path.parent for path in (ROOT / "config").glob("*/robot.yaml"))
# Declared by rclpy for every node.
ALWAYS = {"use_sim_time"}
Wait = Callable[..., None]
RECORDED = yaml.safe_load((ROOT / "config" / "recorder.yaml").read_text(encoding="utf-8"))
RECORDED = RECORDED["/**"]["ros__parameters"]["topics"]
ROBOT = {"robot": "sim", "run_directory": "/nowhere"}  # what robot.launch.yaml must be given
ROS_TOPICS = {"/rosout", "/parameter_events", "/clock"}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load(ROOT / "docs" / "make_reference.py")


@pytest.fixture(scope="module")
def parameters(reference: ModuleType) -> dict[str, set[str]]:
    """Declared parameters by node."""
    return {n.name: {p.name for p in n.parameters} | ALWAYS for n in reference.node_references()}


def launch(name: str, **arguments: str) -> Launch:
    return read(ROOT / "launch" / f"{name}.launch.yaml", arguments, os.environ)


def keys(path: Path) -> set[str]:
    """Names of the parameters that a file sets; nested ones with dots."""

    def flat(prefix: str, values: dict[str, object]) -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(f"{prefix}{key}.", value)
            else:
                yield prefix + key

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key for node in content.values() for key in flat("", node["ros__parameters"])}


def test_the_reference_is_up_to_date(reference: ModuleType) -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == reference.content(), "run: make docs"
    packages = {path.parent.name for path in reference.readmes()}
    assert packages == {path.parent.name for path in (ROOT / "src").glob("*/package.xml")}
    for path, text in reference.readmes().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run: make docs"


def test_where_things_are_is_where_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    found = 0
    for package, cores in re.findall(r"^\| (rlif_\w+) \| (.+?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([\w/]+)`", cores):
            path = ROOT / "src" / package / package / name
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{package}: {name}"
            found += 1
    assert found > 20


def test_every_topic_of_the_architecture_is_some_nodes(reference: ModuleType) -> None:
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


@pytest.mark.parametrize("path", CONFIG_FILES + [s / "robot.yaml" for s in SET_UPS], ids=str)
def test_parameter_files_are_read_the_same_by_ros(path: Path) -> None:
    """A bare y is text for some parsers of YAML and true for others, ROS's among them."""
    bare = re.findall(r"[:\[,]\s*(y|n|yes|no|on|off)\s*[,\]\n#]", path.read_text(encoding="utf-8"))
    assert not bare, f"{path}: quote {bare}"


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_is_described(path: Path) -> None:
    for argument in declared_arguments(path, os.environ):
        assert argument.description, f"{path.name}: {argument.name}"


def test_launch_files_set_only_parameters_that_the_nodes_have(
    parameters: dict[str, set[str]],
) -> None:
    processes = [*launch("robot", **ROBOT).processes, *launch("learner").processes]
    processes += launch("sim").processes
    for process in processes:
        unknown = set(process.parameters) - parameters[process.name]
        assert not unknown, f"{process.name} does not declare {unknown}"


def test_a_robot_gets_the_same_graph_without_the_simulation() -> None:
    simulated = {process.name for process in launch("sim").processes}
    robot = {process.name for process in launch("robot", **ROBOT).processes}
    assert robot == simulated - {"sim_robot", "sim_operator"} | {"watchdog"}


def test_nothing_restarts_and_ends_what_holds_the_robot_still() -> None:
    """The arbiter's zeros must outlive every other node."""
    assert not [p.name for p in launch("robot", **ROBOT).processes if p.required]
    assert [p.name for p in launch("sim").processes if p.required] == ["sim_robot"]


def test_arguments_reach_the_nodes(tmp_path: Path) -> None:
    values = {"namespace": "left", "lock_step": "false", "seed": "7", "learner": "false"}
    processes = {p.name: p for p in launch("sim", **values).processes}
    assert "learner" not in processes
    assert processes["arbiter"].node == "/left/arbiter"
    assert processes["arbiter"].parameters["lock_step"] is False
    assert processes["sim_operator"].parameters["seed"] == 7


class Running:
    """The whole graph, started from its launch file, and what it really has."""

    def __init__(self, processes: list[Process], node: Node) -> None:
        self.processes, self.node = processes, node
        self.names = {process.name for process in processes}
        self.declared: set[str] = set()

    def topics(self, kind: str, name: str) -> set[str]:
        ask = {
            "Publishes": self.node.get_publisher_names_and_types_by_node,
            "Subscribes": self.node.get_subscriber_names_and_types_by_node,
        }[kind]
        return {topic for topic, _ in ask(name, "/")} - ROS_TOPICS


@pytest.fixture
def running(tmp_path: Path, ros_node: Node, spin_until: Wait) -> Iterator[Running]:
    values = {"run_directory": str(tmp_path), "auto_start": "false", "images": "true"}
    processes = list(launch("sim", **values).processes)
    with Processes(processes, lambda *_: None) as started:
        graph = Running(processes, ros_node)

        def up() -> bool:
            assert not started.ended(), "a node ended"
            return graph.names <= set(ros_node.get_node_names())

        spin_until(up, f"the nodes {sorted(graph.names)}", 120.0)
        yield graph


@pytest.mark.ros
@pytest.mark.timeout(240)
def test_running_nodes_have_what_files_and_documents_claim(
    reference: ModuleType, running: Running, spin_until: Wait
) -> None:
    for node in reference.node_references():
        if node.name in running.names:
            check_topics(node, running, spin_until)
            check_parameters(node.name, running, spin_until)
    unknown = keys(ROOT / "config" / "sim" / "robot.yaml") - running.declared
    assert not unknown, "config/sim/robot.yaml sets what no node declares"


def check_topics(node: Any, running: Running, spin_until: Wait) -> None:
    """Nothing but what the top of the node's file says; and what it says, but for options."""
    for kind in ("Publishes", "Subscribes"):
        claimed = {name for e in node.endpoints if e.kind == kind for name in e.names}
        claimed = {name.lstrip("/") for name in claimed}
        if node.name == "arbiter" and kind == "Publishes":
            claimed = claimed - {"command"} | {"servo_node/delta_twist_cmds"}
        spin_until(
            lambda kind=kind: running.topics(kind, node.name), f"{kind} of {node.name}", 60.0
        )
        found = {topic.lstrip("/") for topic in running.topics(kind, node.name)}
        extra = {topic for topic in found - claimed if not topic.startswith("camera/")}
        if node.name == "recorder" and kind == "Subscribes":
            extra -= set(RECORDED)
        assert not extra, f"{node.name} {kind.lower()} what the top of its file does not say"


def check_parameters(name: str, running: Running, spin_until: Wait) -> None:
    """Files set nothing that the node does not declare: a name with a slip would do nothing."""
    client = AsyncParameterClient(running.node, name)
    spin_until(client.services_are_ready, f"the parameter services of {name}", 60.0)
    future = client.list_parameters([], 0)
    spin_until(future.done, f"the parameters of {name}", 30.0)
    declared = set(future.result().result.names)
    unknown = keys(ROOT / "config" / f"{name}.yaml") - declared
    assert not unknown, f"config/{name}.yaml sets what the node does not declare"
    running.declared |= declared
