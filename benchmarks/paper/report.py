# SPDX-License-Identifier: Apache-2.0
"""Results: one file per cell, all of them in paper.json, a table in docs/paper.md, curves as PNG."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from paper.settings import ABLATIONS, METHODS, Cell
from paper.tasks import LEVELS, TASKS

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "paper.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

# Table 1 of the paper, from its project page: by task and level, in the order of PAPER_METHODS.
PAPER_METHODS = ("rlif", "rlif_random", "hg_dagger", "hg_dagger_85", "dagger", "dagger_85")
PAPER = {
    "hopper": (
        (108.99, 106.51, 53.55, 112.7, 57.94, 76.13),
        (99.66, 75.62, 44.75, 69.73, 20.49, 43.59),
        (102.85, 19.11, 11.94, 19.66, 12.37, 20.1),
    ),
    "walker2d": (
        (109.17, 93.76, 80.3, 86.93, 70.58, 61.64),
        (108.42, 103.9, 40.66, 42.65, 38.7, 19.63),
        (108.01, 75.12, 25.2, 24.37, 19.54, 10.29),
    ),
    "pen": (
        (88.47, 42.87, 73.47, 74.27, 78.13, 79.07),
        (80.87, 34.13, 60.0, 29.33, 35.73, 38.67),
        (64.04, 28.33, 28.53, 9.47, 8.93, 12.8),
    ),
}
PAPER_BC = {"hopper": 44.46, "walker2d": 64.77, "pen": 54.13}


# ---- files


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Written beside and renamed: a run that is killed leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(directory: Path) -> dict[Cell, dict[str, Any]]:
    """The results of all cells that were run."""
    contents = (
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))
    )
    return {Cell(**content["cell"]): content for content in contents}


# ---- statistics


@dataclass(frozen=True)
class Estimate:
    """Mean with a 95 % interval, of so many seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        few = "" if self.seeds > 2 else f", {self.seeds} seed{'s' * (self.seeds > 1)}"
        return f"{self.mean:.1f} ({self.low:.0f} to {self.high:.0f}){few}"


def bootstrap(runs: Sequence[Sequence[float]], draws: int = 2000) -> Estimate:
    """Mean over seeds and episodes: `runs` holds the scores of each seed's episodes.

    Percentile bootstrap in two stages (Davison and Hinkley, 1997, section 3.8): seeds are drawn with
    replacement, then the episodes of each. With three seeds the interval is a rough one.
    """
    if not runs or not all(len(run) for run in runs):
        raise ValueError(f"bootstrap: found runs of {[len(r) for r in runs]} scores, expected some")
    rng, seeds = np.random.default_rng(0), len(runs)
    resampled = np.stack(  # means of episodes, [seed, draw, place in the draw]
        [
            np.asarray(run)[rng.integers(len(run), size=(draws, seeds, len(run)))].mean(axis=-1)
            for run in runs
        ]
    )
    chosen = rng.integers(seeds, size=(1, draws, seeds))
    means = np.take_along_axis(resampled, chosen, axis=0)[0].mean(axis=-1)
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    return Estimate(float(np.mean([np.mean(run) for run in runs])), low, high, seeds)


Row = tuple[str, str, str, str]  # task, level, method, ablation


def estimates(results: dict[Cell, dict[str, Any]]) -> dict[Row, Estimate]:
    """By task, level, method and ablation, over the seeds that were run."""
    runs: dict[Row, list[list[float]]] = defaultdict(list)
    for cell, result in sorted(results.items()):
        runs[cell.task, cell.level, cell.method, cell.ablation].append(result["scores"])
    return {row: bootstrap(scores) for row, scores in runs.items()}


def summary(
    results: dict[Cell, dict[str, Any]], found: dict[Row, Estimate]
) -> list[dict[str, Any]]:
    """A row for each task, level, method and ablation, with what differs between its seeds."""
    rows = []
    for (task, level, method, ablation), estimate in found.items():
        cells = [c for c in sorted(results) if (c.task, c.level, c.method, c.ablation) ==
                 (task, level, method, ablation)]  # fmt: skip
        rows.append(
            {
                "task": task,
                "level": level,
                "method": method,
                "ablation": ablation,
                **asdict(estimate),
                "settings": results[cells[0]]["settings"],
                "runs": [
                    {
                        "seed": cell.seed,
                        "score": float(np.mean(results[cell]["scores"])),
                        **{
                            key: results[cell].get(key)
                            for key in ("counts", "seconds", "device", "machine", "commit")
                        },
                    }
                    for cell in cells
                ],
            }
        )
    return rows


# ---- table


def table(found: dict[Row, Estimate], experts: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: ours, and below it the paper's. What was not run is a dash.

    :param experts: measured scores by task, of "judge" and each level
    """
    titles = [METHODS[name].title for name in METHODS]
    lines = [
        f"| task | operator | judge | {' | '.join(titles)} |",
        "|---" * (3 + len(titles)) + "|",
    ]
    for task in TASKS:
        for i, level in enumerate(LEVELS):
            row = [found.get((task, _level(level, name), name, "")) for name in METHODS]
            if not any(row):
                continue
            measured = [f"{np.mean(experts[task][name]):.0f} %" for name in (level, "judge")]
            cells = ["–" if one is None else str(one) for one in row]
            lines.append(f"| {' | '.join([task, *measured, *cells])} |")
            if task in PAPER:
                values = dict(zip(PAPER_METHODS, PAPER[task][i], strict=True))
                values |= {"bc": PAPER_BC[task]}
                paper = [f"*{values[name]:.1f}*" for name in METHODS]
                wanted = f"*{TASKS[task].levels[i]:.0f} %*"
                lines.append(f"| {' | '.join(['*paper*', wanted, '', *paper])} |")
    return "\n".join(lines)


def _level(level: str, method: str) -> str:
    return "any" if METHODS[method].strategy == "never" else level


def ablation_table(found: dict[Row, Estimate]) -> str:
    """Markdown; empty where no ablation was run."""
    rows = [row for row in found if row[3]]
    if not rows:
        return ""
    lines = [
        "| task | operator | method | changed | score | unchanged |",
        "|---|---|---|---|---|---|",
    ]
    for task, level, method, name in rows:
        plain = found.get((task, level, method, ""), "–")
        about = f"`{name}`: {ABLATIONS[name].about}"
        score = found[task, level, method, name]
        lines.append(
            f"| {task} | {level} | {METHODS[method].title} | {about} | {score} | {plain} |"
        )
    return "\n".join(lines)


def _by_decay(result: dict[str, Any]) -> dict[str, list[float]]:
    """Scores of one run's averages of the actor, by their decay; the one of the table first."""
    others = {name: one["scores"] for name, one in result["other_averages"].items()}
    return {str(result["settings"]["average"]): result["scores"], **others}


def averages_table(results: dict[Cell, dict[str, Any]]) -> str:
    """Markdown: other averages of the same actors; empty where none was scored."""
    runs: dict[tuple[str, str], list[dict[str, list[float]]]] = defaultdict(list)
    for cell, result in sorted(results.items()):
        if cell.method == "rlif" and not cell.ablation and result.get("other_averages"):
            runs[cell.task, cell.level].append(_by_decay(result))
    decays = list(dict.fromkeys(name for found in runs.values() for one in found for name in one))
    lines = [
        f"| RLIF value, by decay of the average | {' | '.join(decays)} |",
        "|---" * (1 + len(decays)) + "|",
    ]
    for (task, level), found in runs.items():
        columns = [str(bootstrap([one[decay] for one in found])) for decay in decays]
        lines.append(f"| {task}, {level} operator | {' | '.join(columns)} |")
    return "\n".join(lines) if runs else ""


def claims(found: dict[Row, Estimate], experts: dict[str, dict[str, list[float]]]) -> list[str]:
    """What the paper claims, computed where all cells for it were run."""
    lines, ratios = [], []
    dagger = ("hg_dagger", "hg_dagger_85", "dagger", "dagger_85")
    for task in experts:
        for level in LEVELS[1:]:
            ours = found.get((task, level, "rlif", ""))
            others = [found.get((task, level, name, "")) for name in dagger]
            if ours is None or None in others:
                continue
            ratios.append(ours.mean / max(one.mean for one in others if one))
        weak = found.get((task, LEVELS[-1], "rlif", ""))
        if weak is not None:
            share = weak.mean / np.mean(experts[task]["judge"])
            lines.append(
                f"{task}, weakest operator: RLIF value has {share:.0%} of the judge's score."
            )
    if ratios:
        lines.insert(
            0,
            f"RLIF value over the best DAgger variant, mean of {len(ratios)} pairs of task and weak "
            f"operator: {np.mean(ratios):.1f}.",
        )
    return lines


def write_document(text: str, path: Path = DOCUMENT) -> None:
    """Put `text` between the marks of the document. ValueError if they are not there."""
    content = path.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path}: found no marks {BEGIN} and {END}, expected both; put them back")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


# ---- curves


def draw(
    task: str, results: dict[Cell, dict[str, Any]], experts: dict[str, list[float]], path: Path
) -> None:
    """A panel per level: each method's mean over seeds, each seed thinly; operator and judge as lines."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
    for panel, level in zip(axes, LEVELS, strict=True):
        for i, name in enumerate(METHODS):
            cells = [Cell(task, _level(level, name), name, seed) for seed in range(100)]
            curves = [
                np.array(results[cell]["curve"]) / (1_000, 1) for cell in cells if cell in results
            ]
            if not curves:
                continue
            for curve in curves:
                panel.plot(*curve.T, color=f"C{i}", alpha=0.25, linewidth=0.8)
            shortest = min(len(curve) for curve in curves)
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            panel.plot(*mean.T, color=f"C{i}", linewidth=2, label=METHODS[name].title)
        for name, style in ((level, ":"), ("judge", "--")):
            label = "operator" if name == level else name
            panel.axhline(np.mean(experts[name]), color="black", linestyle=style, label=label)
        panel.set(title=f"{task}, {level} operator", xlabel="environment steps, in 1,000")
    axes[0].set_ylabel(TASKS[task].score_name)
    handles = {
        label: handle
        for panel in axes
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    order = [method.title for method in METHODS.values()] + ["operator", "judge"]
    shown = [label for label in order if label in handles]
    figure.legend(
        [handles[label] for label in shown], shown, loc="outside right center", frameon=False
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(
    directory: Path, experts: dict[str, dict[str, list[float]]], results: Path = RESULTS
) -> Iterable[Path]:
    """paper.json, the table and the curves, out of the cells that were run."""
    contents = read_results(directory)
    if not contents:
        raise FileNotFoundError(f"{directory}: found no results, expected those of some cells")
    found = estimates(contents)
    write_json(results / "paper.json", summary(contents, found))
    claimed = "\n".join(f"- {line}" for line in claims(found, experts))
    parts = [table(found, experts), claimed, averages_table(contents), ablation_table(found)]
    yield results / "paper.json"
    for task in experts:
        if any(cell.task == task and not cell.ablation for cell in contents):
            path = results / f"paper_{task}.png"
            draw(task, contents, experts[task], path)
            parts.append(f"![Learning curves of {task}](../benchmarks/results/{path.name})")
            yield path
    write_document("\n\n".join(part for part in parts if part))
    yield DOCUMENT
