# SPDX-License-Identifier: Apache-2.0
"""Who else can command the robot: publishers on the arbiter's command topic. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

WATCHDOG = "watchdog"
UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of an endpoint that was discovered before its node


class CommandPublishers:
    """Names who may not publish on the command topic, over looks at it in equal intervals.

    The watchdog may, and another arbiter of the same name has its own check (`instances`). One
    without a name counts from the second look in a row on: at the first its node may be unknown yet.
    """

    def __init__(self, namespace: str, own: str) -> None:
        self._allowed = {(namespace, own), (namespace, WATCHDOG)}
        self._unknown = False  # at the last look

    def foreign(self, found: Iterable[tuple[str, str]]) -> str:
        """The foreign nodes, for a person; empty: none. found: (namespace, name) of each publisher."""
        foreign = set(found) - self._allowed
        unknown = {node for node in foreign if node[1] == UNKNOWN}
        if not self._unknown:
            foreign -= unknown
        self._unknown = bool(unknown)
        return ", ".join(sorted(f"{space.rstrip('/')}/{name}" for space, name in foreign))
