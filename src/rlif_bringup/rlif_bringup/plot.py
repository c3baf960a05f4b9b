# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run over its environment steps: a PNG at the end, and curves for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rlif_bringup.summary import (
    WINDOW,
    EpisodeRecord,
    moving_average,
    of_phase,
    success_rate,
    trials,
    wilson_interval,
)

POLICY, OPERATOR, GREY = "#1f6f8b", "#e07a3f", "#6b7280"


def draw(records: Sequence[EpisodeRecord], title: str, path: Path) -> None:
    """Write a PNG of two panels. Works with whatever phases took place."""
    figure = Figure(figsize=(9, 6.2), dpi=130, layout="constrained")
    success, share = figure.subplots(2, 1, sharex=True)
    training = of_phase(records, "training")
    steps = [record.env_steps for record in training]
    _success_panel(success, records, steps, training)
    _share_panel(share, steps, training)
    for axes in (success, share):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    share.set_xlabel("environment steps")
    share.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.savefig(path)


def _success_panel(
    axes: Axes,
    records: Sequence[EpisodeRecord],
    steps: Sequence[int],
    training: Sequence[EpisodeRecord],
) -> None:
    axes.set_ylabel("success rate")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if training:
        rates = moving_average([float(r.success) for r in training])
        axes.plot(
            steps, rates, color=POLICY, linewidth=2,
            label=f"training, with take-overs (last {WINDOW} episodes)",
        )  # fmt: skip
    end = steps[-1] if steps else 1
    expert, policy = of_phase(records, "expert"), of_phase(records, "policy")
    rate = success_rate(expert)
    if rate is not None:
        low, high = wilson_interval(sum(r.success for r in expert), len(expert))
        axes.axhspan(low, high, color=OPERATOR, alpha=0.12, linewidth=0)
        axes.axhline(
            rate, color=OPERATOR, linewidth=1.6, linestyle="--",
            label=f"the operator's actor alone: {rate:.0%} of {len(expert)}",
        )  # fmt: skip
    _trials(axes, records)
    rate = success_rate(policy)
    if rate is not None:
        low, high = wilson_interval(sum(r.success for r in policy), len(policy))
        axes.errorbar(
            [end], [rate], yerr=[[rate - low], [high - rate]], color="black", fmt="o",
            markersize=7, capsize=5, clip_on=False, zorder=5,
            label=f"the policy alone: {rate:.0%} of {len(policy)}",
        )  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        # Above the axes: a curve may be anywhere in them.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _trials(axes: Axes, records: Sequence[EpisodeRecord]) -> None:
    """The policy alone, in between."""
    tried = trials(records)
    if not tried:
        return
    intervals = [wilson_interval(t.successes, t.episodes) for t in tried]
    below = [t.rate - low for t, (low, _) in zip(tried, intervals, strict=True)]
    above = [high - t.rate for t, (_, high) in zip(tried, intervals, strict=True)]
    axes.errorbar(
        [t.env_steps for t in tried], [t.rate for t in tried], yerr=[below, above],
        color="black", fmt="o--", linewidth=1.2, markersize=4, capsize=2.5, alpha=0.75,
        label=f"the policy alone, {tried[0].episodes} episodes each",
    )  # fmt: skip


def _share_panel(axes: Axes, steps: Sequence[int], training: Sequence[EpisodeRecord]) -> None:
    axes.set_ylabel("operator's share of steps", color=OPERATOR)
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if not training:
        return
    operator = moving_average([float(r.operator_steps) for r in training])
    driven = moving_average([float(r.steps) for r in training])
    shares = [part / whole if whole else 0.0 for part, whole in zip(operator, driven, strict=True)]
    axes.fill_between(steps, shares, color=OPERATOR, alpha=0.2, linewidth=0)
    axes.plot(steps, shares, color=OPERATOR, linewidth=2)
    counts = axes.twinx()
    takeovers = moving_average([float(r.interventions) for r in training])
    counts.plot(steps, takeovers, color=GREY, linewidth=1.3)
    counts.set_ylabel("take-overs per episode", color=GREY)
    counts.set_ylim(bottom=0)
    counts.spines["top"].set_visible(False)


class Curves:
    """Scalars for TensorBoard, without torch in the process that shows the run."""

    def __init__(self, directory: Path) -> None:
        self._writer = EventFileWriter(str(directory))

    def add(self, step: int, **values: float | None) -> None:
        """One point per named curve; None is left out."""
        scalars = [
            Summary.Value(tag=name.replace("__", "/"), simple_value=float(value))
            for name, value in values.items()
            if value is not None
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._writer.add_event(event)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
