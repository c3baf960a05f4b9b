# SPDX-License-Identifier: Apache-2.0
"""Why other nodes ask for HOLD: of the policy alone, or of every control source.

No ROS and no clock. servo_adapter repeats its messages on `policy_hold` several times a second: it may
die, and its last message must not count for ever. Each source has its own reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rlif_node.states import HoldReason

# No command is carried out, so no control source may act: what the operator does would be recorded as done.
NOTHING_MOVES = frozenset({HoldReason.SERVO_PAUSED, HoldReason.NOT_CONNECTED, HoldReason.PLANNING})
FORGOTTEN = 3.0  # s without a repetition, after which a human who arms overrides a reason


def hold_reason(code: int) -> HoldReason:
    """Of the number in a message; one that this version does not know is OTHER."""
    return HoldReason(code) if code in frozenset(HoldReason) else HoldReason.OTHER


@dataclass(frozen=True)
class _Hold:
    code: HoldReason
    reason: str
    received: float


@dataclass
class PolicyHold:
    """timeout: s without a message on `policy_hold` until the policy holds; 0: none is expected"""

    timeout: float = 0.0
    _holds: dict[str, _Hold] = field(default_factory=dict)  # by source, those in force
    _received: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout >= 0.0):
            raise ValueError(f"hold_timeout is {self.timeout}; expected seconds, 0 or more")

    def update(self, source: str, code: HoldReason, reason: str, now: float) -> None:
        """One message of `source`; NONE: the policy may act."""
        self._received = now
        self._holds.pop(source, None)
        if code is not HoldReason.NONE:
            self._holds[source] = _Hold(code, reason or f"{source}: {code.name}", now)

    def forget_silent(self, now: float) -> None:
        """A human arms: what a source has said and does not repeat, it may have died over."""
        self._holds = {s: h for s, h in self._holds.items() if now - h.received <= FORGOTTEN}

    def problem(self, now: float) -> str:
        """Why the policy must not act now; empty: it may."""
        blocking = self.blocking()
        if blocking or self._holds:
            return blocking or next(iter(self._holds.values())).reason
        if not self.timeout or now - self._received <= self.timeout:
            return ""
        return (
            f"nothing on policy_hold for more than {self.timeout} s: is the monitor of the robot "
            "(servo_adapter) alive?"
        )

    def blocking(self) -> str:
        """Why no control source may act, the operator included; empty: nothing."""
        return next((h.reason for h in self._holds.values() if h.code in NOTHING_MOVES), "")

    @property
    def code(self) -> HoldReason:
        """Of the reason in force; NONE: none is."""
        codes = [h.code for h in self._holds.values()]
        return next(
            (c for c in codes if c in NOTHING_MOVES), codes[0] if codes else HoldReason.NONE
        )
