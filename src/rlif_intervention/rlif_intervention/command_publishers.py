# SPDX-License-Identifier: Apache-2.0
"""Who else can command the robot: publishers on the arbiter's command topic. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

WATCHDOG = "watchdog"


def foreign_publishers(found: Iterable[tuple[str, str]], namespace: str, own: str) -> str:
    """The nodes that may not publish there, for a person; empty: none.

    found: (namespace, name) of the node of each publisher. The watchdog may, and another
    arbiter of the same name has its own check (`instances`).
    """
    allowed = {(namespace, own), (namespace, WATCHDOG)}
    return ", ".join(
        sorted(
            {f"{space.rstrip('/')}/{name}" for space, name in found if (space, name) not in allowed}
        )
    )
