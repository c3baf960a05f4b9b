# SPDX-License-Identifier: Apache-2.0
"""Runs a launch file: with `ros2 launch` where there is one, with our own interpreter otherwise.

FILE is a path, or the name of a file that rlif_bringup has installed (sim.launch.yaml, or just sim).
Arguments of the launch file are given as name:=value.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rlif_bringup.image_transport import remove_abandoned
from rlif_bringup.launch_file import Launch, LaunchFileError, Process, declared_arguments, read
from rlif_bringup.processes import run as run_processes
from rlif_bringup.robot_configuration import check_launch
from rlif_bringup.substitutions import find_prefix

INTERMIXED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif launch`."""
    parser.add_argument("file", help="launch file: a path, or the name of an installed one")
    parser.add_argument("values", nargs="*", metavar="name:=value", help="arguments of the file")
    parser.add_argument("-s", "--show-args", action="store_true", help="list the file's arguments")
    parser.add_argument(
        "-p", "--print", action="store_true", help="print the commands, start nothing"
    )
    parser.add_argument(
        "--only",
        metavar="NODE,…",
        help="start these nodes of the file alone, as one that has ended; by our own interpreter",
    )
    parser.add_argument(
        "--interpreter",
        choices=("auto", "ros2", "rlif"),
        default="auto",
        help="ros2: `ros2 launch`; rlif: our own; auto: ros2 where there is one",
    )


def find_launch_file(name: str) -> Path:
    """Path of a launch file given by path or by the name of an installed one.

    Raises:
        LaunchFileError: there is none of that name.
    """
    if Path(name).is_file():
        return Path(name)
    folder = _installed()
    base = Path(name).name
    for candidate in (base, f"{base}.launch.yaml"):
        if (folder / candidate).is_file():
            return folder / candidate
    there = ", ".join(sorted(p.name for p in folder.glob("*.launch.yaml")))
    raise LaunchFileError(f"no launch file {name!r}; installed are: {there or 'none'}")


def _installed() -> Path:
    """Folder of the launch files of rlif_bringup."""
    return find_prefix("rlif_bringup", os.environ) / "share/rlif_bringup/launch"


def only(launch: Launch, names: list[str]) -> Launch:
    """The processes of these names alone.

    Raises:
        LaunchFileError: there is none of a name.
    """
    there = [process.name for process in launch.processes]
    for name in names:
        if name not in there:
            raise LaunchFileError(f"--only: no node {name!r}; there are: {', '.join(there)}")
    chosen = tuple(process for process in launch.processes if process.name in names)
    return Launch(launch.arguments, chosen)


def has_ros2_launch(environment: Mapping[str, str]) -> bool:
    """Whether `ros2 launch` can be run: `ros2` alone may be there without that verb."""
    if shutil.which("ros2", path=environment.get("PATH", "")) is None:
        return False
    try:
        find_prefix("ros2launch", environment)
    except LaunchFileError:
        return False
    return True


def parse_values(values: list[str]) -> dict[str, str]:
    """Arguments given as name:=value.

    Raises:
        LaunchFileError: one is not of that form; an empty value is not, as for `ros2 launch`.
    """
    pairs = [value.partition(":=") for value in values]
    for (name, separator, given), value in zip(pairs, values, strict=True):
        if not separator or not name or not given:
            empty = "; an empty value is refused: leave the argument out, or give none for no bag"
            hint = empty if separator and name else ""
            raise LaunchFileError(f"expected name:=value, found {value!r}{hint}")
    return {name: value for name, _, value in pairs}


def _show_arguments(path: Path) -> None:
    for argument in declared_arguments(path, os.environ):
        default = "must be given" if argument.default is None else repr(argument.default)
        choices = f" [{', '.join(argument.choices)}]" if argument.choices else ""
        print(f"  {argument.name}{choices}  (default: {default})\n      {argument.description}")


def _print_commands(launch: Launch) -> None:
    for process in launch.processes:
        print(f"{process.name}: {shlex.join(process.command)}{_inline(process)}")


def _inline(process: Process) -> str:
    return "".join(f" -p {name}:={value!r}" for name, value in process.parameters.items())


def _run_ros2(path: Path, values: list[str]) -> int:
    """Become `ros2 launch`, so that signals reach it and nothing stands in between."""
    command = ["ros2", "launch", str(path), *values]
    sys.stdout.flush()
    os.execvp(command[0], command)


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif launch`."""
    try:
        path = find_launch_file(arguments.file)
        values = parse_values(arguments.values)
        if arguments.show_args:
            _show_arguments(path)
            return 0
        ros2 = has_ros2_launch(os.environ)
        if arguments.interpreter == "ros2" and not ros2:
            raise LaunchFileError(
                "there is no `ros2 launch` here: source a ROS 2 that has it, or leave the option out"
            )
        own = arguments.interpreter == "rlif" or arguments.print or arguments.only or not ros2
        if own or path.parent == _installed():
            launch = read(path, values, os.environ)
            check_launch(launch)
        if not arguments.print:
            remove_abandoned()
        if not own:
            return _run_ros2(path, arguments.values)
        if arguments.only:
            launch = only(launch, arguments.only.split(","))
    except LaunchFileError as error:
        print(f"rlif launch: {error}", file=sys.stderr)
        return 2
    if arguments.print:
        _print_commands(launch)
        return 0
    return run_processes(
        launch.processes,
        output=lambda name, line: print(f"[{name}] {line}", flush=True),
        say=lambda text: print(f"[launch] {text}", flush=True),
    )
