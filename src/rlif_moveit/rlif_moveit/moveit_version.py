# SPDX-License-Identifier: Apache-2.0
"""The version of the installed MoveIt, where it can be read, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

Version = tuple[int, ...]
# moveit2#3378: after a planned motion while Servo was paused, earlier ones jump back on unpausing.
LEAST: Version = (2, 12, 2)
JUMPS = ((2, 10, 0), LEAST)  # from Jazzy's first development releases on
PACKAGE = "moveit_core"


def installed_version() -> Version | None:
    """Of the MoveIt in this environment; None: there is none, or its package.xml has no version."""
    try:
        path = Path(get_package_share_directory(PACKAGE)) / "package.xml"
        text = path.read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError):
        return None
    found = re.search(r"<version>\s*(\d+)\.(\d+)\.(\d+)\s*</version>", text)
    return tuple(int(part) for part in found.groups()) if found else None


def version_problem(version: Version | None) -> str:
    """Empty: the version is fine, or unknown."""
    if version is None or not JUMPS[0] <= version < JUMPS[1]:
        return ""
    return (
        f"MoveIt {_text(version)} is installed, expected {_text(LEAST)} or newer: after a planned reset "
        "Servo jumps back to where it was paused (moveit2#3378); upgrade ros-$ROS_DISTRO-moveit"
    )


def _text(version: Version) -> str:
    return ".".join(map(str, version))
