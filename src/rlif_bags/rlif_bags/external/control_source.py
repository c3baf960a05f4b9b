# SPDX-License-Identifier: Apache-2.0
"""The control source of an external recording, from its messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlif_bags.external.commands import command_values
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.readings import type_name, wrong_type
from rlif_intervention.devices import ButtonMemory, MotionGate


def kind_of(value: Any) -> str:
    """`a flag`, `a number` or `text`; empty: none of these. YAML and messages have the same kinds."""
    if isinstance(value, (bool, np.bool_)):
        return "a flag"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return "a number"
    return "text" if isinstance(value, str) else ""


class ControlSource:
    """The control source by the newest message of its topic, and for how long that is known.

    engaged: whether the operator is in control
    """

    def __init__(self, mapping: TopicMapping) -> None:
        self._mapping, self._rule = mapping, mapping.driver
        self._timeout = round(mapping.driver_timeout * 1e9)
        self._sparse = False  # a message without buttons came, as of spacenav_node
        self._buttons = 0  # the most in a message
        self._values: Counter[tuple[Any, bool]] = Counter()  # of a flag, and whether the operator's
        self._read = 0  # messages that could be used
        self.silence = 0  # ns, the longest, if nothing limits it
        self.ever_engaged = False
        self.forget()

    def forget(self) -> None:
        """Nothing was received yet, unless it is always the same."""
        always = self._rule.get("always")
        self.engaged = always == "operator"
        self._unknown = "" if always else "nothing received yet"
        self._policy: np.ndarray | None = None
        self._received = -1  # ns
        self._memory = ButtonMemory()
        on, off = self._rule.get("motion_on", 0.15), self._rule.get("motion_off", 0.05)
        self._gate = MotionGate(on, off)

    @property
    def by_command(self) -> bool:
        """Whether it is found from each command's difference to the policy's."""
        return "policy" in self._rule

    def read(self, stamp: int, message: Any) -> None:
        """One message of its topic. ValueError for one without the source."""
        if "joy" in self._rule:
            engaged = self._pressed(message)
        elif "motion" in self._rule:
            engaged = self._gate.update(self._deflections(message))
        elif "flag" in self._rule:
            engaged = self._is_operator(message)
        else:
            self._policy, engaged = command_values(message, self._mapping), self.engaged
        self.received(stamp)
        self._read += 1
        self._unknown = ""
        self._set(engaged)

    def _set(self, engaged: bool) -> None:
        self.engaged = engaged
        self.ever_engaged |= engaged

    def _pressed(self, message: Any) -> bool:
        """Whether the deadman is held; buttons that spacenav_node leaves out stay as they were."""
        if not hasattr(message, "buttons"):
            raise wrong_type(message, "a Joy")
        button, found = self._rule["button"], len(message.buttons)
        self._buttons = max(self._buttons, found)
        if not found and not self._sparse:
            self._sparse, self._memory = True, ButtonMemory(button + 1)
        known = self._memory.complete([int(b) for b in message.buttons])
        if known and button >= len(known):
            raise ValueError(f"found {found} buttons, expected button {button}, counted from 0")
        return bool(known[button]) if known else False

    def _deflections(self, message: Any) -> tuple[float, ...]:
        """Of a Joy's axes, or those that the mapping names, or of a twist."""
        twist = getattr(message, "twist", message)
        values: Sequence[float]
        if hasattr(message, "axes"):
            values = [float(v) for v in message.axes]
        elif hasattr(twist, "linear"):
            values = [float(v) for p in (twist.linear, twist.angular) for v in (p.x, p.y, p.z)]
        else:
            raise wrong_type(message, "a Joy or twist to take over by motion")
        wanted = self._rule.get("axes", range(len(values)))
        if missing := [axis for axis in wanted if axis >= len(values)]:
            raise ValueError(f"found {len(values)} axes, expected axes {missing}, counted from 0")
        chosen = tuple(values[axis] for axis in wanted)
        if not np.isfinite(chosen).all():
            raise ValueError(f"axes are not finite: {list(chosen)}")
        return chosen

    def _is_operator(self, message: Any) -> bool:
        """By a Bool, or by the values that the mapping names. ValueError for any other."""
        value = message
        for name in self._rule.get("field", "data").split("."):
            if not hasattr(value, name):
                raise ValueError(
                    f"found a {type_name(message)} without {name!r}, expected a Bool, or the `field` "
                    "of it with the source"
                )
            value = getattr(value, name)
        kind, values = kind_of(value), self._rule.get("operator_values")
        if not kind:
            raise ValueError(f"found a {type_name(message)} of {value!r}, expected a single value")
        if values is None:
            if kind != "a flag":
                raise ValueError(
                    f"found {value!r} in a {type_name(message)}, expected a Bool; for other types, "
                    "operator_values: [...] lists the values that mean the operator"
                )
            return bool(value)
        if kind != kind_of(values[0]):
            raise ValueError(
                f"found {value!r}, {kind}, expected {kind_of(values[0])} as operator_values "
                f"{list(values)} are (YAML takes on, off, yes and no for flags; quote text)"
            )
        operator, others = value in values, self._rule.get("policy_values")
        if not operator and others is not None and value not in others:
            raise ValueError(f"found {value!r}, expected one of {[*values, *others]}")
        self._values[(value, operator)] += 1
        return operator

    def received(self, stamp: int) -> None:
        """At `stamp` (ns) a silence ended."""
        if self._received >= 0 and not self._timeout:
            self.silence = max(self.silence, stamp - self._received)
        self._received = stamp

    def refuse(self, why: str) -> None:
        """The newest message cannot be used: the source is not known."""
        self._unknown = why

    def compare(self, command: np.ndarray) -> None:
        """A command that differs from the policy's is the operator's."""
        if self.by_command and self._policy is not None:
            difference = float(np.abs(command - self._policy).max())
            self._set(difference > self._rule["threshold"])

    def unknown(self, now: int) -> str:
        """Why the source is not known at `now` (ns); empty: it is."""
        if self._unknown or not self._timeout or now - self._received <= self._timeout:
            return self._unknown
        return (
            f"its newest message is {(now - self._received) / 1e9:.3f} s old, expected at most "
            f"{self._timeout / 1e9:.3f} s (timeout of the driver; 0 if it is sent only when "
            "something changes)"
        )

    def notes(self) -> list[str]:
        """Notes on the whole recording that a user should check."""
        found = []
        if self._values:
            parts = (
                f"{value!r} {count} times ({'operator' if operator else 'policy'})"
                for (value, operator), count in sorted(self._values.items(), key=str)
            )
            found.append(f"its values: {', '.join(parts)}")
        if self._read and not self.ever_engaged:
            what = {
                "joy": f"button {self._rule.get('button')} is never pressed",
                "motion": f"no axis ever moves beyond {self._rule.get('motion_on', 0.15)}",
                "flag": "it never means the operator",
            }
            kind = next((what[k] for k in what if k in self._rule), "no command ever differs")
            found.append(f"the operator is never in control: {kind}")
        if "joy" in self._rule and 0 < self._buttons <= self._rule["button"] and not self._sparse:
            found.append(
                f"no message has button {self._rule['button']}, the longest has {self._buttons}"
            )
        return found
