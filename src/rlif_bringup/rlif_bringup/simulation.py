# SPDX-License-Identifier: Apache-2.0
"""Starts the simulated graph as child processes and hands out a client to it."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml
from rlif_node.names import NAMESPACE, launch_namespace

from rlif_bringup.graph_client import GraphClient, GraphError, InterruptedByUserError
from rlif_bringup.launch_command import find_launch_file
from rlif_bringup.launch_file import read
from rlif_bringup.processes import Interrupt, Processes
from rlif_bringup.progress import Progress
from rlif_bringup.robot_configuration import check_launch

_LOUD = re.compile(r"\[(ERROR|FATAL)\]")
_LAST_LINES = 15


class NodeLogs:
    """Keeps what the nodes print: one file per node; errors are shown at once."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._progress = progress
        self._files: dict[str, TextIO] = {}
        self._last: dict[str, deque[str]] = {}

    def write(self, name: str, line: str) -> None:
        """Take one line of a node."""
        if name not in self._files:
            path = self.directory / f"{name}.log"
            self._files[name] = path.open("a", encoding="utf-8", buffering=1)
        self._files[name].write(line + "\n")
        self._last.setdefault(name, deque(maxlen=_LAST_LINES)).append(line)
        if _LOUD.search(line):
            self._progress.print_line(f"{name}: {line}")

    def last(self, name: str) -> str:
        """The last lines of a node."""
        return "\n".join(self._last.get(name, ()))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def make_run_directory(asked: str | None) -> Path:
    """The directory of a run, new: the one asked for, or runs/<time>.

    Raises:
        GraphError: it holds something already.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = Path(asked) if asked else Path("runs") / now
    if path.exists() and any(path.iterdir()):
        raise GraphError(f"{path} is not empty: name a new directory with --run-directory")
    path.mkdir(parents=True, exist_ok=True)
    return path.absolute()


def graph_environment(run_directory: Path, domain_id: int) -> dict[str, str]:
    """Environment of the nodes: a DDS domain of their own on this host, logs in the run."""
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(domain_id)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setdefault("MUJOCO_GL", "egl")
    environment["ROS_LOG_DIR"] = str(run_directory / "log" / "ros")
    return environment


def launch_values(values: Mapping[str, object]) -> dict[str, str]:
    """Values as launch arguments: booleans in lower case, the rest as text."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


def is_domain_free(domain_id: int) -> bool:
    """Whether no DDS participant of this host is in the domain: its first port can be bound."""
    port = 7400 + 250 * domain_id + 10  # the RTPS specification, 9.6.1.1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


class ReservedDomain:
    """A DDS domain that no process on this host uses: two runs must not command one arm.

    No other run reserves it while this object is open. Without that, two runs that start at the
    same moment would choose the same domain, since neither is in it yet.
    """

    def __init__(self, domain_id: int) -> None:
        self.id = domain_id
        self._mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # A name in the abstract namespace of Linux: no file, and gone with the process.
            self._mark.bind(f"\0rlif-domain-{domain_id}")
        except OSError:
            self._mark.close()
            raise

    def close(self) -> None:
        """Let others reserve it."""
        self._mark.close()

    def __enter__(self) -> ReservedDomain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve_domain() -> ReservedDomain:
    """A free DDS domain from 1 to 101.

    Domains above 101 are left out: their ports may collide with ephemeral ones.

    Raises:
        GraphError: all are in use.
    """
    first = os.getpid() % 101
    for domain_id in (1 + (first + i) % 101 for i in range(101)):
        if not is_domain_free(domain_id):
            continue
        try:
            return ReservedDomain(domain_id)
        except OSError:
            continue  # reserved by a run that is about to start
    raise GraphError("all DDS domains from 1 to 101 are in use on this host: end something")


@contextlib.contextmanager
def chosen_domain(asked: int | None) -> Iterator[int]:
    """The DDS domain asked for, 0 included; None: a free one (`reserve_domain`)."""
    if asked is not None:
        yield asked
        return
    with reserve_domain() as domain:
        yield domain.id


@contextlib.contextmanager
def simulation(
    values: Mapping[str, object],
    run_directory: Path,
    progress: Progress,
    domain_id: int,
    check_more: Interrupt,
    launch_file: str = "sim.launch.yaml",
) -> Iterator[GraphClient]:
    """The graph of a launch file, from here to the end of the `with`.

    Args:
        values: launch arguments.
        run_directory: for logs.
        progress: where errors of nodes are shown.
        domain_id: of DDS.
        check_more: ends the run when a person asks for it.
        launch_file: sim.launch.yaml, or robot_sim.launch.yaml for real time.

    Raises:
        GraphError: a node has ended.
        InterruptedByUserError: a person has asked to stop.
    """
    environment = graph_environment(run_directory, domain_id)
    launch = read(find_launch_file(launch_file), launch_values(values), environment)
    check_launch(launch)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    logs = NodeLogs(run_directory / "log", progress)
    processes = Processes(launch.processes, logs.write)

    def check() -> None:
        if check_more.wait(0.0):
            raise InterruptedByUserError
        for exit_ in processes.ended():
            name = exit_.process.name
            raise GraphError(
                f"{exit_}, so the run ends here. Its last lines (more in {logs.directory}):\n"
                f"{logs.last(name)}"
            )

    try:
        with processes:
            namespace = launch_values(values).get("namespace", NAMESPACE)
            with GraphClient(launch_namespace(namespace), domain_id, check) as graph:
                graph.cpu_seconds = processes.cpu_seconds
                yield graph
            for line in processes.stop():
                progress.print_line(line)
    finally:
        logs.close()


def write_configuration(
    graph: GraphClient, values: Mapping[str, Any], nodes: list[str], directory: Path
) -> None:
    """Write down what the run really ran with: launch arguments and every node's parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "launch_arguments.yaml").write_text(
        yaml.safe_dump(launch_values(values)), encoding="utf-8"
    )
    for node in nodes:
        content = {"/**": {"ros__parameters": graph.parameters(node)}}
        (directory / f"{node}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
