# SPDX-License-Identifier: Apache-2.0
"""What became of an external recording: counted, and the first of each kind named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ConversionReport:
    """What became of the messages of a recording.

    refused: messages by topic; other_joints: those that name none of the wanted joints, by topic
    gaps: ticks without a step, by what was missing; clipped: actions beyond [-1, 1]
    late: messages that were logged before the one ahead of them, by less than a tick
    target: the bag of Steps; resumed: it was made before, of the same source and mapping
    """

    bag: str = ""
    target: str = ""
    resumed: bool = False
    steps: int = 0
    episodes: int = 0
    clipped: int = 0
    late: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    other_joints: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, where: str, stamp: int, text: str) -> None:
        """A line that names file, topic and time."""
        self.notes.append(f"{self.bag}: {where} at {stamp} ns: {text}")

    def refuse(self, topic: str, stamp: int, text: str) -> None:
        """Count a message that cannot be used; the first of each topic is named."""
        if not self.refused[topic]:
            self.note(topic, stamp, f"the first refused: {text}")
        self.refused[topic] += 1

    def gap(self, where: str, stamp: int, why: str, text: str) -> None:
        """Count a tick that gives no step; the first of each kind is named."""
        if not self.gaps[why]:
            self.note(where, stamp, f"no step, the first time: {text}")
        self.gaps[why] += 1

    def entry(self) -> dict[str, Any]:
        """As JSON holds it. (`asdict` makes nonsense of a Counter.)"""
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(self).items()}

    def lines(self) -> list[str]:
        before = " (converted before)" if self.resumed else ""
        return [
            f"{self.bag} -> {self.target}{before}",
            f"  {self.steps} steps of {self.episodes} episodes, {self.clipped} actions clipped",
            *(f"  {n} messages of {topic} refused" for topic, n in self.refused.items()),
            *(
                f"  {n} messages of {topic} name none of the joints: of another publisher"
                for topic, n in self.other_joints.items()
            ),
            *[f"  {self.late} messages out of order by less than a tick"] * bool(self.late),
            *(f"  {n} ticks without a step: {why}" for why, n in self.gaps.items()),
            *(f"  note: {note}" for note in self.notes),
        ]
