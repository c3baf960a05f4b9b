# SPDX-License-Identifier: Apache-2.0
"""The result of a check of the doctor. No ROS."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlif_bringup.doctor_snapshot import Snapshot, Traffic
from rlif_policy.sampling import MISSED_TICK

OK_LEVEL, WARN_LEVEL = 0, 1  # of diagnostic_msgs/DiagnosticStatus
CLOCKS = 0.05  # s that clocks may differ
ONE_CLOCK = (
    "set the clocks of all machines by one source (chrony), or use_sim_time alike everywhere"
)


class Verdict(enum.Enum):
    """Of one check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """found: what was seen; advice: what to do, empty where nothing is."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


Check = Callable[[Snapshot], Iterator[Finding]]


def passed(name: str, found: str) -> Finding:
    return Finding(name, Verdict.PASS, found)


def warned(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Verdict.WARN, found, advice)


def failed(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Verdict.FAIL, found, advice)


def rate_finding(
    name: str, s: Snapshot, traffic: Traffic, least: float, advice: str
) -> Iterator[Finding]:
    """Whether `traffic` comes at `least` Hz."""
    if traffic.count == 0:
        yield failed(name, f"nothing on {traffic.name} in {s.seconds:.0f} s", advice)
    elif s.lock_step:
        yield passed(name, f"{traffic.count} messages, in lock-step")
    elif traffic.rate < least:
        yield failed(name, f"{traffic.rate:.1f} Hz, expected at least {least:.1f} Hz", advice)
    else:
        yield passed(name, f"{traffic.rate:.1f} Hz")


def one_publisher(traffic: Traffic) -> Iterator[Finding]:
    """A second one is another graph, or one that was not ended."""
    if traffic.publishers > 1:
        yield failed(
            "publishers",
            f"{traffic.publishers} publish on {traffic.name}, expected one",
            "end the other; one that was killed just now is forgotten after 20 s",
        )


def diagnostic_findings(s: Snapshot, part: str, advice: str, name: str = "{}") -> Iterator[Finding]:
    """One for each diagnostic with `part` in its name; {} in `name` stands for what follows it."""
    for d in s.diagnostics:
        _, there, own = d.name.partition(part)
        if there and d.level == OK_LEVEL:
            yield passed(name.format(own), d.message)
        elif there and d.message.startswith(MISSED_TICK):
            yield warned(name.format(own), d.message, "look again: what lasts fails here")
        elif there:
            yield failed(name.format(own), d.message, advice)


def late(name: str, what: str, ages: tuple[float, float], allowed: float) -> Finding | None:
    """A failure of the clocks: no message of `what` was of an age from 0 to `allowed` s."""
    least = ages[0]
    if least < -CLOCKS:
        return failed(name, f"{what} come {-least:.3f} s from the future", ONE_CLOCK)
    if least > allowed:
        return failed(name, f"{what} are {least:.3f} s old when they come", ONE_CLOCK)
    return None
