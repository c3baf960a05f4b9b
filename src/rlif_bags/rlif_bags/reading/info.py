# SPDX-License-Identifier: Apache-2.0
"""Topics, rates and gaps of a bag, and the episodes and take-overs in its Steps, as lines of text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlif_bags.reading.open import STEP_TYPE, open_bag
from rlif_bags.reading.step_reader import StepReader
from rlif_learner.data.steps import Outcome, Source, StepRecord, missing_before

_GAP = 5.0  # times the median period: a longer silence is called a gap


@dataclass
class StepSummary:
    """Counts over Steps, one at a time."""

    steps: int = 0
    transitions: int = 0
    missing: int = 0
    interventions: int = 0
    sources: Counter[int] = field(default_factory=Counter)
    outcomes: Counter[int] = field(default_factory=Counter)
    evaluation: int = 0
    episodes: int = 0
    _previous: StepRecord | None = None

    def add(self, step: StepRecord) -> None:
        self.steps += 1
        previous = self._previous
        if previous is not None:
            self.missing += missing_before(
                step, previous.sequence, previous.episode_id, previous.step_index
            )
        if previous is None or previous.is_last or step.episode_id != previous.episode_id:
            self.episodes += 1
        if step.is_last:
            self.outcomes[step.outcome] += 1
        else:
            self.transitions += 1
            self.sources[step.source] += 1
        self.interventions += step.onset
        self.evaluation += step.evaluation
        self._previous = step

    def lines(self) -> list[str]:
        """Three lines."""
        outcomes = ", ".join(f"{n} {Outcome(o).name.lower()}" for o, n in self.outcomes.items())
        shares = ", ".join(
            f"{100 * n / max(1, self.transitions):.0f} % {Source(s).name.lower()}"
            for s, n in sorted(self.sources.items())
        )
        return [
            f"  {self.episodes} episodes ({outcomes or 'none ended'}), {self.steps} steps, of them "
            f"{self.evaluation} in evaluation, {self.missing} missing",
            f"  control source: {shares or 'none'}",
            f"  {self.interventions} interventions",
        ]


def topic_lines(stamps: Mapping[str, Sequence[int]], types: dict[str, str]) -> list[str]:
    """One line per topic: messages, rate, longest gap."""
    lines = []
    for topic in sorted(types):
        times = np.sort(np.asarray(stamps.get(topic, []), dtype=np.int64)) / 1e9
        text = f"  {topic:<32} {types[topic]:<34} {len(times):>8}"
        if len(times) > 2:
            periods = np.diff(times)
            median = float(np.median(periods))
            text += f" {1.0 / median:>8.1f} Hz" if median > 0.0 else f" {'burst':>11}"
            worst = int(np.argmax(periods))
            if median > 0.0 and periods[worst] > max(_GAP * median, 0.05):
                text += f"  gap of {periods[worst]:.2f} s at {times[worst]:.3f} s"
        lines.append(text)
    return lines


def describe_bag(path: Path) -> list[str]:
    """Topics with counts, rates and gaps; episodes and take-overs if there are Steps."""
    notes: list[str] = []
    stamps: dict[str, array[int]] = {}
    with open_bag(path, notes) as bag:
        types = {c.topic: c.msgtype for c in bag.connections}
        jumps: dict[str, tuple[int, int]] = {}  # how often time goes back, and first where (ns)
        for connection, stamp, _ in bag.messages(bag.connections):
            times = stamps.setdefault(connection.topic, array("q"))
            if times and stamp < times[-1]:
                count, first = jumps.get(connection.topic, (0, stamp))
                jumps[connection.topic] = (count + 1, first)
            times.append(stamp)
    lines = [f"{path}: {sum(map(len, stamps.values()))} messages", *topic_lines(stamps, types)]
    lines += [
        f"  {path}: {topic}: time jumps back {count} times, first to {first} ns"
        for topic, (count, first) in jumps.items()
    ]
    for topic in sorted(t for t, kind in types.items() if kind == STEP_TYPE):
        steps = StepReader(path, topic, images=False)
        summary = StepSummary()
        for step in steps:
            summary.add(step)
        lines += summary.lines() + [f"  {note}" for note in steps.notes if note not in notes]
    return lines + [f"  note: {note}" for note in notes]
