# SPDX-License-Identifier: Apache-2.0
"""Check a live system before arming: what is there, how fast, how old, and whether it fits.

Listens only; nothing is moved, set or armed. Exit code: 0 all is well (warnings allowed), 1 something
has to be mended, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rlif_node.names import add_namespace

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_files import check_files
from rlif_bringup.doctor_findings import Finding, Verdict

STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `rlif doctor`."""
    parser.add_argument(
        "--robot", help="robot configuration whose topic names are used; default: our own names"
    )
    parser.add_argument("--config-directory", type=Path, help="folder of the robot configurations")
    add_namespace(parser)
    parser.add_argument("--domain-id", type=int, help="of DDS; default: ROS_DOMAIN_ID")
    parser.add_argument("--seconds", type=float, default=5.0, help="to listen; default 5")
    parser.add_argument("--strict", action="store_true", help="a warning is a failure too")
    parser.add_argument("--json", action="store_true", help="findings as JSON, for scripts")


def config_directory(asked: Path | None) -> Path:
    """The one asked for, or the installed one."""
    if asked is not None:
        return asked
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("rlif_bringup")) / "config"


def servo_name(path: Path) -> str:
    """Full name of servo_node as a moveit.yaml has it; empty: there is no such file."""
    if not path.is_file():
        return ""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(content["/**"]["ros__parameters"].get("servo_node_name", "/servo_node"))


def run(arguments: argparse.Namespace) -> int:
    """Listen, check, print."""
    if not arguments.seconds > 0.0:
        print(f"rlif doctor: --seconds is {arguments.seconds}; expected more", file=sys.stderr)
        return 2
    # Here, so that --help needs no ROS.
    from rlif_bringup.doctor_listen import ANSWER, Listener, remaps
    from rlif_bringup.graph_client import GraphClient

    names: dict[str, str] = {}
    moveit, servo, directory = False, "", Path()
    if arguments.robot:
        directory = config_directory(arguments.config_directory)
        moveit = (directory / arguments.robot / "moveit.yaml").is_file()
        servo = servo_name(directory / arguments.robot / "moveit.yaml")
        try:
            names = remaps(directory, arguments.robot)
        except FileNotFoundError as error:
            print(f"rlif doctor: {error}", file=sys.stderr)
            return 2
    graph = (arguments.namespace, arguments.domain_id)
    with GraphClient(*graph, answer=ANSWER, remaps=names, name="rlif_doctor") as client:
        snapshot = Listener(client).listen(arguments.seconds, moveit, servo)
    findings = check(snapshot)
    if arguments.robot:
        seen = {f.name for f in findings}  # of the running nodes, which may have been given more
        findings += [f for f in check_files(directory, arguments.robot) if f.name not in seen]
    if arguments.json:
        print(as_json(findings))
    else:
        show(findings, Console())
    return exit_code(findings, arguments.strict)


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """1 if anything failed, or warned where that counts."""
    bad = {Verdict.FAIL, Verdict.WARN} if strict else {Verdict.FAIL}
    return int(any(f.verdict in bad for f in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """One object for each finding."""
    rows = [
        {"check": f.name, "verdict": f.verdict.value, "found": f.found, "advice": f.advice}
        for f in findings
    ]
    return json.dumps(rows, indent=2)


def show(findings: Sequence[Finding], console: Console) -> None:
    """The table, and a last line that says whether to arm."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for f in findings:
        style = STYLES[f.verdict]
        table.add_row(f"[{style}]{f.verdict.value}[/]", f.name, _plain(f.found), _plain(f.advice))
    console.print(table)
    counts = Counter(f.verdict for f in findings)
    summary = ", ".join(f"{counts[v]} {v.value}" for v in Verdict)
    ready = not counts[Verdict.FAIL]
    console.print(f"{summary}. " + ("Ready to arm." if ready else "Do not arm yet."))


def _plain(text: str) -> str:
    """Brackets of messages are no markup."""
    return text.replace("[", r"\[")
