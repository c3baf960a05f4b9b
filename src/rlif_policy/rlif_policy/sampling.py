# SPDX-License-Identifier: Apache-2.0
"""Latest samples of several sources, with their ages. No ROS, no clock: times are passed in, in ns.

Each source keeps its newest sample only: for control, the latest sample with a maximum age is
safer than messages matched by time, which stop altogether when one source slows down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# How the reason of a problem begins that one tick had and that is over when it is reported.
MISSED_TICK = "a tick without an observation"


@dataclass(frozen=True)
class Sample:
    """stamp: when it was measured, ROS time in ns; received: when it came, steady time in ns.

    part: what in it is that old, where it was put together out of several messages
    """

    value: Any
    stamp: int
    received: int
    part: str = ""


@dataclass(frozen=True)
class Problem:
    """Why a source cannot be used now. age: ns; None: nothing has come yet."""

    source: str
    reason: str
    age: int | None = None


class LatestSamples:
    """The newest sample of each source.

    max_age: for each source, the ns that its newest sample may be old
    steady: also limit the time since reception, by a clock that never jumps (on a robot)
    """

    def __init__(self, max_age: Mapping[str, int], steady: bool = True) -> None:
        if not max_age:
            raise ValueError("sources: found none, expected at least one topic to observe")
        for name, age in max_age.items():
            if age <= 0:
                raise ValueError(f"max_age of {name}: found {age} ns, expected more than 0")
        self._max_age, self._steady = dict(max_age), steady
        self._samples: dict[str, Sample] = {}
        self._broken: dict[str, Problem] = {}

    def put(self, source: str, value: Any, stamp: int, received: int, part: str = "") -> None:
        """A newer sample, as `Sample` has it. A stamp of 0 means that the sender set none."""
        self._samples[source] = Sample(value, stamp, received, part)
        self._broken.pop(source, None)

    def refuse(self, source: str, reason: str) -> None:
        """What came from `source` cannot be used; the last good sample must not be used either."""
        self._samples.pop(source, None)
        self._broken[source] = Problem(source, reason)

    @property
    def values(self) -> dict[str, Any]:
        """The newest value of each source that has one."""
        return {name: sample.value for name, sample in self._samples.items()}

    @property
    def never_received(self) -> tuple[str, ...]:
        """Sources without a sample, none of whose messages was refused either."""
        return tuple(
            name for name in self._max_age if name not in self._samples and name not in self._broken
        )

    def stamp(self, source: str) -> int:
        """Of the newest sample, ROS time in ns; 0: there is none, or its sender set none."""
        return self._samples[source].stamp if source in self._samples else 0

    def age(self, source: str, now: int, steady_now: int) -> int | None:
        """ns since the newest sample was measured; None: there is none.

        Negative for a stamp in the future: the clocks of two machines differ.
        """
        sample = self._samples.get(source)
        if sample is None:
            return None
        waited = steady_now - sample.received
        if not sample.stamp:
            return waited
        age = now - sample.stamp
        return max(age, waited) if self._steady and age >= 0 else age

    def problems(self, now: int, steady_now: int) -> list[Problem]:
        """What is missing, stale or broken; empty: every source can be used."""
        found = []
        for name, limit in self._max_age.items():
            age = self.age(name, now, steady_now)
            if name in self._broken:
                found.append(self._broken[name])
            elif age is None:
                found.append(Problem(name, "nothing received yet"))
            elif age > limit:
                part = self._samples[name].part
                reason = f"{age / 1e9:.3f} s old, expected at most {limit / 1e9:.3f} s"
                found.append(Problem(name, f"{part}: {reason}" if part else reason, age))
            elif age < -limit:
                found.append(
                    Problem(
                        name,
                        f"stamped {-age / 1e9:.3f} s in the future: are the clocks of the machines "
                        "the same, and use_sim_time of all nodes?",
                        age,
                    )
                )
        return found

    def absent(self) -> list[Problem]:
        """What is missing or broken, whatever its age: for lock-step, where time stands still."""
        return [
            self._broken.get(name, Problem(name, "nothing received yet"))
            for name in self._max_age
            if name not in self._samples
        ]

    def oldest_stamp(self) -> int:
        """Of the stamps that were set; 0: none was."""
        return min((s.stamp for s in self._samples.values() if s.stamp), default=0)

    def common_stamp(self) -> int | None:
        """The stamp that the newest samples of all sources share; None: they do not (yet)."""
        if len(self._samples) != len(self._max_age):
            return None
        stamps = {sample.stamp for sample in self._samples.values()}
        return stamps.pop() if len(stamps) == 1 else None


class Ticks:
    """Counts control ticks; in lock-step there is one for each new stamp that all sources share.

    A stamp other than the last one, not only a later one: time restarts with the simulation.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last_stamp: int | None = None

    def advance(self) -> int:
        """The number of the next tick, from 1: never repeats."""
        self.count += 1
        return self.count

    def due(self, stamp: int | None) -> bool:
        """Whether a set of samples of `stamp` (None: incomplete) has not had its tick."""
        if stamp is None or stamp == self.last_stamp:
            return False
        self.last_stamp = stamp
        return True


def seconds(values: Iterable[float]) -> list[int]:
    """s to ns."""
    return [round(value * 1e9) for value in values]


def text(problems: Sequence[Problem]) -> str:
    """All of them in one line."""
    return "; ".join(f"{p.source}: {p.reason}" for p in problems)


def merged(problems: list[Problem]) -> list[Problem]:
    """One for each source, with all its reasons; the first one's age."""
    by_source: dict[str, list[Problem]] = {}
    for problem in problems:
        by_source.setdefault(problem.source, []).append(problem)
    return [
        Problem(source, "; ".join(p.reason for p in several), several[0].age)
        for source, several in by_source.items()
    ]
