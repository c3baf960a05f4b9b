# SPDX-License-Identifier: Apache-2.0
"""Labels before and after, as one picture for each episode.

OUT/<bag>.plots/episode_<id>.png
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rlif_bags.drawing.colours import NEGATIVE, SOURCE_COLOURS
from rlif_bags.reading.files import new_directory
from rlif_bags.reading.step_reader import StepReader, episodes_of
from rlif_bags.relabelling.relabel import Relabelling, labels_path, read_labels
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord


def plot_episodes(bag: Path, output: Path, work: Relabelling, redraw: bool) -> Path:
    """Draw the labels that lie in `output`. Returns the directory.

    redraw: what is there already was drawn from other labels; else it stays
    """
    labels = labels_path(bag, output)
    target = labels.with_name(labels.name.replace(".labels.npz", ".plots"))
    if redraw:
        shutil.rmtree(target, ignore_errors=True)
    if target.exists():
        return target
    rewards, start = read_labels(labels).columns["reward"], 0
    with new_directory(target) as partial:
        for steps in episodes_of(StepReader(bag, work.topic, images=False)):
            new = rewards[start : start + len(steps)]
            name = f"episode_{steps[0].episode_id:06d}"
            path = partial / f"{name}.png"
            if path.exists():  # recorded by two recorders: the number is not unique
                path = partial / f"{name}_from_{start}.png"
            draw_labels(steps, label_rewards(steps, "onset")[0], new, path)
            start += len(steps)
    return target


def draw_labels(
    steps: Sequence[StepRecord], before: np.ndarray, after: np.ndarray, path: Path
) -> None:
    """Rewards of `onset` and the new ones over the steps, above the control source."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    at = np.arange(len(steps)) + 0.5
    top.step(at, before, where="mid", color="#888888", linewidth=3, alpha=0.6, label="onset")
    top.step(at, after, where="mid", color=NEGATIVE, linewidth=1.2, label="new")
    top.set(ylabel="reward", ylim=(min(-1.1, 1.1 * float(after.min())), max(0.1, float(after.max()) + 0.1)))  # fmt: skip
    top.legend(loc="lower right", fontsize=8)
    changed = int((before != after).sum())
    outcome = Outcome(steps[-1].outcome).name.lower() if steps[-1].is_last else "no end recorded"
    top.set_title(
        f"episode {steps[0].episode_id}, {outcome}, {changed} labels changed",
        fontsize=9,
        loc="left",
    )
    with_action = [s for s in steps if not s.is_last]
    colours = [SOURCE_COLOURS[Source(s.source)] for s in with_action]
    bottom.bar(
        np.arange(len(with_action)), 1.0, width=1.0, align="edge", color=colours, linewidth=0
    )
    bottom.set(yticks=[], xlabel="step", xlim=(0, len(steps)))
    figure.savefig(path, dpi=80, metadata={"Software": None})
