"""Who drove, as the messages of a foreign bag tell it."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlif_bags.external.commands import command_values
from rlif_bags.external.mapping import TopicMapping


class Driver:
    """Who drives, by the newest message of the driver's topic, and for how long that is known."""

    def __init__(self, mapping: TopicMapping) -> None:
        self._mapping, self._rule = mapping, mapping.driver
        self._timeout = round(mapping.driver_timeout * 1e9)
        self.silence = 0  # ns, the longest, if nothing limits it
        self.forget()

    def forget(self) -> None:
        """Nothing was said yet, unless it is always the same."""
        always = self._rule.get("always")
        self.engaged = always == "operator"
        self._unknown = "" if always else "nothing received yet"
        self._policy: np.ndarray | None = None
        self._heard = -1  # ns

    @property
    def by_command(self) -> bool:
        """It is each command that tells, by its difference to the policy's."""
        return "policy" in self._rule

    def read(self, stamp: int, message: Any) -> None:
        """One message of its topic. Raises what a message raises that is not as it should be."""
        self.heard(stamp)
        self._unknown = ""
        if "joy" in self._rule:
            self.engaged = bool(message.buttons[self._rule["button"]])
        elif "flag" in self._rule:
            self.engaged = bool(message.data)
        else:
            self._policy = command_values(message, self._mapping)

    def heard(self, stamp: int) -> None:
        """At `stamp` (ns) a silence ended."""
        if self._heard >= 0 and not self._timeout:
            self.silence = max(self.silence, stamp - self._heard)
        self._heard = stamp

    def refuse(self, why: str) -> None:
        """The newest message cannot be used: nobody knows who drives."""
        self._unknown = why

    def judge(self, command: np.ndarray) -> None:
        """A command that differs from the policy's is the operator's."""
        if self.by_command and self._policy is not None:
            difference = float(np.abs(command - self._policy).max())
            self.engaged = difference > self._rule["threshold"]

    def unknown(self, now: int) -> str:
        """Why nobody knows who drives at `now` (ns); empty: it is known."""
        if self._unknown or not self._timeout or now - self._heard <= self._timeout:
            return self._unknown
        return (
            f"its newest message is {(now - self._heard) / 1e9:.3f} s old, expected at most "
            f"{self._timeout / 1e9:.3f} s (timeout of the driver; 0 if it speaks only when "
            "something changes)"
        )
