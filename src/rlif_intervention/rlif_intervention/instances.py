# SPDX-License-Identifier: Apache-2.0
"""Which of several arbiters may act: the one that was started first. No ROS, no clock.

Each publishes heartbeats with the id of its process. An id begins with the time of the start, so
that all of them agree on which is the oldest, without a word between them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

LISTEN = 1.0  # s after its start in which an arbiter only listens for others
PEER_TIMEOUT = 1.0  # s without a heartbeat until another arbiter counts as ended


def instance_id(started: int, random: bytes) -> bytes:
    """(16,) of a process that was started at `started`, in ns since 1970, with 8 random bytes."""
    return started.to_bytes(8, "big") + random[:8]


def own_instance_id() -> bytes:
    """(16,) of this process, started now."""
    return instance_id(time.time_ns(), os.urandom(8))


@dataclass
class Peers:
    """The other arbiters that are alive. `now` in s of a steady clock."""

    own: bytes
    _received: dict[bytes, float] = field(default_factory=dict)

    def heartbeat(self, instance: bytes, now: float) -> None:
        if instance != self.own:
            self._received[instance] = now

    def older(self, now: float) -> bool:
        """An arbiter that was started before this one is alive: this one must not act."""
        for instance, received in list(self._received.items()):
            if now - received > PEER_TIMEOUT:
                del self._received[instance]
        return any(instance < self.own for instance in self._received)

    @property
    def count(self) -> int:
        """How many others were alive at the last call of `older`."""
        return len(self._received)
