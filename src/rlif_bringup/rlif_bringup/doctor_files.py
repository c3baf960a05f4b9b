# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of a robot configuration's files, whether or not anything runs. No ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlif_node.parameter_files import check_file

from rlif_bringup.doctor_findings import Finding, failed, passed
from rlif_bringup.robot_configuration import blind_policy, parameters_of

LIMITS = tuple(f"max_linear_{name}" for name in ("speed", "acceleration", "deceleration"))
TURNING = tuple(f"max_angular_{name}" for name in ("speed", "acceleration", "deceleration"))
TURNS = frozenset({"roll", "pitch", "yaw"})


def check_files(directory: Path, robot: str, simulated: bool = False) -> Iterator[Finding]:
    """All findings on the parameter files that the nodes of `robot` are given.

    simulated: nothing breaks, so limits and time-outs are not judged
    """
    own = directory / robot / "robot.yaml"
    files = [*sorted(directory.glob("*.yaml")), own, directory / robot / "moveit.yaml"]
    faults = [
        fault for file in files if file.is_file() or file == own for fault in check_file(file)
    ]
    for fault in faults:
        yield failed("parameter files", str(fault), "correct it: the node refuses to start")
    if not faults:
        yield passed("parameter files", f"those of {robot} have known names and values")
    if any(fault.file == str(own) for fault in faults):
        return  # it may not be readable
    values = {name: _merged(directory, own, name) for name in ("arbiter", "watchdog")}
    blind = blind_policy(parameters_of(own))
    if blind:
        yield failed("encoder", blind, f"change {own}")
    if not simulated:
        yield from _limits_off(values["arbiter"], own)
        yield from _stall(values["arbiter"], values["watchdog"], own)


def _merged(directory: Path, own: Path, node: str) -> dict[str, Any]:
    path = directory / f"{node}.yaml"
    return (parameters_of(path) if path.is_file() else {}) | parameters_of(own)


def _limits_off(arbiter: Mapping[str, Any], own: Path) -> Iterator[Finding]:
    if arbiter.get("output", "twist") != "twist":
        return  # a joint output does not start without its limits
    wanted = LIMITS + (TURNING if TURNS & set(arbiter.get("axes", ())) else ())
    off = [name for name in wanted if arbiter.get(name) == 0.0]
    if off:
        yield failed(
            "limits", f"{', '.join(off)} off", f"set them in {own}, or leave the lines out"
        )


def _stall(arbiter: Mapping[str, Any], watchdog: Mapping[str, Any], own: Path) -> Iterator[Finding]:
    stall, timeout = arbiter.get("stall_timeout"), watchdog.get("timeout")
    if stall is not None and timeout is not None and stall >= timeout:
        yield failed(
            "stall_timeout",
            f"{stall:g} s, the watchdog's timeout is {timeout:g} s: the watchdog acts before the arbiter "
            "knows that it stood still",
            f"set stall_timeout below it in {own}",
        )
