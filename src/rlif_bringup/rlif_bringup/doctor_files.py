# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of a robot configuration's files, whether or not anything runs. No ROS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlif_node.parameter_files import check_file

from rlif_bringup.doctor_findings import Finding, failed, passed
from rlif_bringup.doctor_robot import check_limits, check_stall_timeout
from rlif_bringup.doctor_snapshot import Snapshot
from rlif_bringup.robot_configuration import blind_policy, parameters_of


def check_files(directory: Path, robot: str) -> Iterator[Finding]:
    """All findings on the parameter files that the nodes of `robot` are given."""
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
    given = parameters_of(own)
    blind = blind_policy(given)
    if blind:
        yield failed("encoder", blind, f"change {own}")
    nodes = {n: parameters_of(directory / f"{n}.yaml") | given for n in ("arbiter", "watchdog")}
    would_be = Snapshot(seconds=0.0, parameters=nodes)
    yield from check_limits(would_be)
    yield from check_stall_timeout(would_be)
