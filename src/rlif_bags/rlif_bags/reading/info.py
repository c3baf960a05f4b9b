# SPDX-License-Identifier: Apache-2.0
"""Topics, rates and gaps of a bag, and the episodes and take-overs in its Steps, as lines of text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from rlif_bags.reading.open import STEP_TYPE, open_bag
from rlif_bags.reading.step_reader import StepReader, episodes_of
from rlif_learner.data.steps import Outcome, Source, StepRecord, missing_before

_GAP = 5.0  # times the median period: a longer silence is called a gap


def missing_in(steps: Iterable[StepRecord]) -> int:
    """Steps that must have been between these."""
    return sum(
        missing_before(step, last.sequence, last.episode_id, last.step_index)
        for last, step in pairwise(steps)
    )


def step_lines(steps: Sequence[StepRecord]) -> list[str]:
    """Three lines on the Steps of a bag: episodes, control sources, take-overs."""
    ends = Counter(step.outcome for step in steps if step.is_last)
    sources = Counter(step.source for step in steps if not step.is_last)
    outcomes = ", ".join(f"{n} {Outcome(o).name.lower()}" for o, n in ends.items())
    shares = ", ".join(
        f"{100 * n / sources.total():.0f} % {Source(s).name.lower()}"
        for s, n in sorted(sources.items())
    )
    return [
        f"  {len(list(episodes_of(steps)))} episodes ({outcomes or 'none ended'}), {len(steps)} steps, "
        f"of them {sum(s.evaluation for s in steps)} in evaluation, {missing_in(steps)} missing",
        f"  control source: {shares or 'none'}",
        f"  {sum(step.onset for step in steps)} interventions",
    ]


def topic_lines(
    path: Path, stamps: Mapping[str, Sequence[int]], types: dict[str, str]
) -> list[str]:
    """One line per topic: messages, rate, longest gap; and one for each whose time goes back."""
    lines, jumps = [], []
    for topic in sorted(types):
        recorded = np.asarray(stamps.get(topic, []), dtype=np.int64)
        back = np.flatnonzero(np.diff(recorded) < 0)
        if len(back):
            first = recorded[back[0] + 1]
            jumps.append(
                f"  {path}: {topic}: time jumps back {len(back)} times, first to {first} ns"
            )
        times = np.sort(recorded) / 1e9
        text = f"  {topic:<32} {types[topic]:<34} {len(times):>8}"
        if len(times) > 2:
            periods = np.diff(times)
            median = float(np.median(periods))
            text += f" {1.0 / median:>8.1f} Hz" if median > 0.0 else f" {'burst':>11}"
            worst = int(np.argmax(periods))
            if median > 0.0 and periods[worst] > max(_GAP * median, 0.05):
                text += f"  gap of {periods[worst]:.2f} s at {times[worst]:.3f} s"
        lines.append(text)
    return lines + jumps


def describe_bag(path: Path) -> list[str]:
    """Topics with counts, rates and gaps; episodes and take-overs if there are Steps."""
    notes: list[str] = []
    stamps: dict[str, array[int]] = {}
    with open_bag(path, notes) as bag:
        types = {c.topic: c.msgtype for c in bag.connections}
        for connection, stamp, _ in bag.messages(bag.connections):
            stamps.setdefault(connection.topic, array("q")).append(stamp)
    count = sum(map(len, stamps.values()))
    lines = [f"{path}: {count} messages", *topic_lines(path, stamps, types)]
    for topic in sorted(t for t, kind in types.items() if kind == STEP_TYPE):
        reader = StepReader(path, topic, images=False)
        lines += step_lines(list(reader))
        lines += [f"  {note}" for note in reader.notes if note not in notes]
    return lines + [f"  note: {note}" for note in notes]
