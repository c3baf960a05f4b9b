# SPDX-License-Identifier: Apache-2.0
"""The main job over five seeds: a table, and benchmarks/results/demo.json.

make bench-demo                       seeds 0 to 4, one after the other
make bench-demo ARGS="--seeds 0 1"    options of this script; more go to `rlif demo` after --
make bench-demo ARGS="--name demo_vision --seeds 0 1 -- --images --eval-every 1000 robot:=sim_vision"
                                      what make demo-vision runs, into results/demo_vision.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
COLUMNS = [  # heading, key, format
    ("seed", "seed", "{}"),
    ("policy", "policy_success", "{:.0%}"),
    ("operator's actor", "expert_success", "{:.0%}"),
    ("operator share, first 20", "operator_share_first20", "{:.0%}"),
    ("last 20", "operator_share_last20", "{:.0%}"),
    ("interventions", "interventions", "{:,}"),
    ("env steps", "env_steps", "{:,}"),
    ("gradient steps", "gradient_steps", "{:,}"),
    ("minutes", "wall_seconds", "{:.1f}"),  # shown in minutes, kept in seconds
]


def run_seed(seed: int, directory: Path, options: list[str]) -> dict[str, Any]:
    """One demo; its summary. Its display is ours."""
    command = ["rlif", "demo", "--seed", str(seed), "--run-directory", str(directory), *options]
    subprocess.run(command, check=True)
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return summary


def cell(summary: dict[str, Any], key: str, text: str) -> str:
    value = summary[key]
    if value is None:
        return "–"
    return text.format(value / 60 if key == "wall_seconds" else value)


def table(summaries: list[dict[str, Any]]) -> str:
    """Markdown, one line per seed and one of medians."""
    keys = [key for _, key, _ in COLUMNS if key != "seed"]
    known = {key: [s[key] for s in summaries if s[key] is not None] for key in keys}
    median: dict[str, Any] = {
        key: statistics.median(values) if values else None for key, values in known.items()
    }
    rows = [*summaries, {**median, "seed": "median"}]
    lines = [" | ".join(heading for heading, _, _ in COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(cell(row, key, text) for _, key, text in COLUMNS) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0))}


def main() -> int:
    """Run all seeds and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--name", default="demo", help="of the file of results")
    parser.add_argument("--directory", type=Path, help="for the runs (a temporary one)")
    parser.add_argument("options", nargs="*", help="of `rlif demo`")
    arguments = parser.parse_args()
    results = RESULTS / f"{arguments.name}.json"
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="rlif_bench_demo_"))
    summaries = []
    for seed in arguments.seeds:
        try:
            summaries.append(run_seed(seed, directory / f"seed{seed}", arguments.options))
        except subprocess.CalledProcessError as error:
            print(f"seed {seed}: rlif demo ended with {error.returncode}", file=sys.stderr)
            return 1
        RESULTS.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "runs": summaries}
        results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(table(summaries), flush=True)
    print(f"\nruns in {directory}; results in {results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
