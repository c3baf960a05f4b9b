# SPDX-License-Identifier: Apache-2.0
"""Node `console`: a web page that shows a graph, and an operator device driven from it.

Subscribes
    control_state  rlif_msgs/ControlState      who has control, and why (latched)
    episode        rlif_msgs/Episode           phase, outcome, counts (latched)
    decision       rlif_msgs/Decision          what was executed, and take-overs
    critic_value   rlif_msgs/CriticValue       of what was executed
    success_confidence  rlif_msgs/SuccessConfidence  of the success detector, where one runs
    learner_status rlif_msgs/LearnerStatus     learner curves (latched)
    observation    rlif_msgs/Observation       the images that the policy sees
    ee_pose, object_pose  geometry_msgs/PoseStamped  for the 3D view; with the observer's `ee_pose.tf`
                                               ee_pose from tf instead
    guide          std_msgs/String             what a person should do now, of `rlif demo` (latched)
    /diagnostics   diagnostic_msgs/DiagnosticArray  what is not OK
Publishes
    console/joy    sensor_msgs/Joy             the device `console`, while an operator sees the page; only with operate
    note           std_msgs/String             an operator's note, for the bag
Calls
    arm            std_srvs/SetBool
    start_episode, end_episode_success, end_episode_failure, discard_episode  std_srvs/Trigger
    save_checkpoint  std_srvs/Trigger

Camera topics `camera/NAME/image` are subscribed to while a page looks at them. docs/console.md.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.parameters import Param, declare
from rlif_node.running import run

from .access import Access, addresses_text, is_address, is_loopback, new_token
from .hub import Hub
from .inputs import DeadmanConfig
from .pictures import Pictures
from .robot_port import RobotPort
from .server import Server, reachable_hosts
from .status import RobotStatus

PARAMETERS = (
    Param("address", "127.0.0.1", "to listen on; any other than loopback asks for a token"),
    Param("port", 8765, "to listen on; 0: any free one", 0, 65535),
    Param("hosts", [], "names under which a browser reaches this machine", items=str),
    Param(
        "token_file",
        "",
        "with the operators' and the watchers' token, a line each; empty: new ones",
    ),
    Param("tls", False, "https with a certificate of our own"),
    Param("certificate_directory", "~/.ros/rlif_console", "of certificate.pem and key.pem"),
    Param("namespaces", [], "of the robots that are shown; empty: the console's own", items=str),
    Param("operate", True, "pages may operate the robot; false: watch and stop only"),
    Param("robot", "", "robot configuration whose topic names the checks use; empty: our own"),
    Param("config_directory", "", "folder of the robot configurations; empty: the installed one"),
    Param(
        "input_gap", 0.15, "s without input of the page while driving, until a release", 0.05, 1.0
    ),
    Param("max_picture_age", 0.3, "s; a page that is further behind does not drive", 0.05, 2.0),
)
UPDATE_PERIOD = 0.2  # s
SETTINGS_PERIOD = 3.0  # s
START_TIMEOUT = 10.0  # s


class ConsoleNode(Node):
    """Shell around `Hub` and `Server`; the server has a thread with an event loop of its own."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("console", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        access = _access(p)
        self._loop = asyncio.new_event_loop()
        own = self.get_namespace().rstrip("/")
        names = [f"/{name.strip('/')}" for name in p["namespaces"]] or [own]
        pictures = {name or "/": Pictures() for name in names}
        statuses = {name or "/": RobotStatus(started=time.monotonic()) for name in names}
        options = ("robot", "--robot"), ("config_directory", "--config-directory")
        doctor = tuple(word for name, option in options if p[name] for word in (option, p[name]))
        calls = (self._call, self._later)
        self._ports = {
            key: RobotPort(
                self, key.rstrip("/"), statuses[key], pictures[key], *calls, doctor, p["operate"]
            )
            for key in statuses
        }
        config = DeadmanConfig(gap=p["input_gap"], max_age=p["max_picture_age"])
        hub = Hub({key: (self._ports[key], statuses[key]) for key in statuses}, config, self._call)
        self._server = Server(hub, access, pictures, self._look)
        certificate = None
        if p["tls"]:
            names = reachable_hosts(p["address"], p["hosts"])
            folder = Path(p["certificate_directory"]).expanduser()
            certificate = make_certificate(folder, names)
            if unfit := certificate_problem(folder, names):
                self.get_logger().warning(unfit)
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()
        try:
            self._run(self._server.start(p["port"], certificate))
        except OSError as error:
            self._stop_loop()
            raise ValueError(
                f"port {p['port']} of {p['address']} cannot be listened on ({error.strerror}): end the other "
                "program, or set `port`"
            ) from error
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(UPDATE_PERIOD, self._update, clock=steady)
        self.create_timer(SETTINGS_PERIOD, self._ask_settings, clock=steady)
        self._ask_settings()
        self._print_addresses(access, p, "https" if certificate else "http")

    @property
    def port(self) -> int:
        """That it listens on."""
        return self._server.port

    def _print_addresses(self, access: Access, p: dict[str, Any], scheme: str) -> None:
        """On the terminal alone: /rosout is read by others."""
        hosts = reachable_hosts(p["address"], p["hosts"])
        print(
            f"operator console: {addresses_text(scheme, hosts, self.port, access.token)}",
            flush=True,
        )
        if access.watch_token:
            watch = addresses_text(scheme, hosts, self.port, access.watch_token)
            print(f"to watch only: {watch}", flush=True)

    # ---- between the two threads

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        def schedule() -> None:
            self._loop.call_later(seconds, function)

        self._call(schedule)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_TIMEOUT)

    def _look(self, robot: str, names: frozenset[str]) -> None:
        self._ports[robot].look(names)

    # ---- in the executor's thread

    def _update(self) -> None:
        for port in self._ports.values():
            port.update()

    def _ask_settings(self) -> None:
        for port in self._ports.values():
            port.ask_settings()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT)
        self._loop.close()

    def close(self) -> None:
        """End all connections: whoever drives lets go."""
        if not self._loop.is_closed():
            self._run(self._server.close())
            self._stop_loop()


def _access(p: dict[str, Any]) -> Access:
    """ValueError with what was found and what to do."""
    tokens = ("", "")
    if p["token_file"]:
        lines = Path(p["token_file"]).expanduser().read_text(encoding="utf-8").split()
        if not lines:
            raise ValueError(f"token_file {p['token_file']} is empty; expected a token")
        tokens = (lines[0], lines[1] if len(lines) > 1 else "")
    elif not is_loopback(p["address"]):
        tokens = (new_token(), new_token())
    hosts = tuple(host.lower() for host in p["hosts"])
    return Access(
        address=p["address"],
        token=tokens[0],
        watch_token=tokens[1],
        hosts=hosts,
        operate=p["operate"],
    )


def make_certificate(folder: Path, hosts: Sequence[str]) -> ssl.SSLContext:
    """The certificate of a folder, made by openssl where there is none.

    Raises ValueError: it cannot be made or read.
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not certificate.exists():
        folder.mkdir(parents=True, exist_ok=True)
        known = (*hosts, os.uname().nodename, "localhost")
        names = ",".join(f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in known)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                   "-nodes", "-days", "365", "-subj", "/CN=rlif console", "-addext",
                   f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
        previous = os.umask(0o077)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            raise ValueError(
                f"openssl could not make a certificate in {folder}: {reason}"
            ) from error
        finally:
            os.umask(previous)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def certificate_problem(folder: Path, hosts: Sequence[str]) -> str:
    """Why browsers will warn of the certificate of a folder, which may be the user's; empty: nothing."""
    path = folder / "certificate.pem"
    show = ("openssl", "x509", "-noout", "-in", str(path))
    found = ["it has expired"] * bool(
        subprocess.run([*show, "-checkend", "0"], capture_output=True).returncode
    )
    for name in hosts:
        option = "-checkip" if is_address(name) else "-checkhost"
        said = subprocess.run([*show, option, name], capture_output=True, text=True).stdout
        if "does match" not in said:
            found.append(f"it is not one of {name}")
    if not found:
        return ""
    return f"{path}: {', '.join(found)}; delete it for a new one, or put another there"


def main() -> None:
    """Console script `console`."""
    sys.exit(run("console", ConsoleNode, at_end=ConsoleNode.close))
