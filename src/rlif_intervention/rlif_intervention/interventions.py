# SPDX-License-Identifier: Apache-2.0
"""What counts as one intervention: begin, flicker, dwell, minimum length.

Each take-over becomes one label, so this decides what is learned:

release_dwell   letting go for less than this does not end the intervention. Larger: a trembling
                thumb gives one label, not many; too large: two real corrections become one label.
                While the device is let go inside the dwell zeros are output, and the steps
                have the source NONE.
minimum_length  the policy does not get control back sooner than this after the take-over.
                Larger: a tap on the deadman still marks a moment long enough to be seen in the
                data; 0: a single message can be an intervention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

EPSILON = 1e-6  # s: stamps as float seconds are good to this


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    release_dwell: float = 0.2
    minimum_length: float = 0.0

    def __post_init__(self) -> None:
        for name in ("release_dwell", "minimum_length"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0.0:
                raise ValueError(f"{name} is {value}; expected seconds, 0 or more")


@dataclass(frozen=True)
class Intervention:
    id: int
    device: str  # that drives, or drove last: another may take over from it
    started: float  # s


class InterventionTracker:
    """Counts interventions from 1; knows whether one is going on. Fed at every output."""

    def __init__(self, config: InterventionConfig) -> None:
        self._config = config
        self._count = 0
        self._current: Intervention | None = None
        self._released: float | None = None

    @property
    def current(self) -> Intervention | None:
        return self._current

    def engage(self, device: str, now: float) -> Intervention:
        """The device asks for control: begin an intervention, or go on with the current one."""
        self._released = None
        if self._current is None:
            self._count += 1
            self._current = Intervention(self._count, device, now)
        elif self._current.device != device:
            self._current = replace(self._current, device=device)
        return self._current

    def skip(self, last: int) -> None:
        """Ids up to `last` have been used before."""
        self._count = max(self._count, last)

    def release(self, now: float) -> bool:
        """The device is let go. Returns True when that ends the intervention: call `end` then."""
        if self._current is None:
            return False
        if self._released is None:
            self._released = now
        dwelt = now - self._released >= self._config.release_dwell - EPSILON
        long_enough = now - self._current.started >= self._config.minimum_length - EPSILON
        return dwelt and long_enough

    def end(self) -> Intervention | None:
        """End it now, whatever the reason. Returns what has ended."""
        ended, self._current, self._released = self._current, None, None
        return ended
