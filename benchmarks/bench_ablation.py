# SPDX-License-Identifier: Apache-2.0
"""What learning from cameras owes to what: state or pixels, random shifts, a frozen trunk or one's own.

make bench-ablation                              all rows, one after the other, 4,000 steps each
make bench-ablation ARGS="--rows state no_shift" some of them; results of others stay in the file
make bench-ablation ARGS="--weights torchvision" the frozen trunk with ImageNet's weights

Each row is a run of `rlif demo` on a changed copy of config/. The table and
benchmarks/results/ablation.json have the success of the policy alone on boards that it never met.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_demo import machine
from torchvision.models import resnet18

RESULTS = Path(__file__).parent / "results" / "ablation.json"
CONFIG = Path(__file__).parent.parent / "config"


@dataclass(frozen=True)
class Row:
    """A run. changes: parameters over those of the set-up's robot.yaml; rlpd.* under `rlpd`."""

    about: str
    robot: str = "sim_vision"
    changes: dict[str, Any] = field(default_factory=dict)
    rlpd: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> bool:
        return self.robot != "sim"


ROWS = {
    "state": Row("the hole's position in the state, no cameras", "sim"),
    "pixels": Row("two cameras, small network from scratch, random shifts"),
    "no_shift": Row("the same without random shifts", rlpd={"random_shift": 0}),
    "same_shift": Row("the same, both images of a pair shifted alike", rlpd={"same_shift": True}),
    "frozen": Row(
        "two cameras at 128x128, ResNet-18 with a frozen trunk",
        changes={
            "encoder": "resnet18",
            "encoder_frozen": True,
            "image_width": 128,
            "image_height": 128,
            "camera.fixed.roi": [32, 48, 64, 64],
        },
    ),
}
DEFAULT = ("state", "pixels", "no_shift", "frozen")


def configuration(row: Row, directory: Path, weights: str) -> Path:
    """A copy of config/ with the row's changes."""
    shutil.copytree(CONFIG, directory)
    file = directory / row.robot / "robot.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    parameters = content["/**"]["ros__parameters"]
    parameters.update(row.changes)
    if row.changes.get("encoder_frozen"):
        parameters["encoder_weights"] = weights
    parameters["rlpd"].update(row.rlpd)
    # JSON is YAML whose strings are quoted: ROS takes a bare y for a truth value.
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return directory


def random_weights(file: Path) -> str:
    """A ResNet-18 that was never trained, the same each time."""
    torch.manual_seed(0)
    torch.save(resnet18(weights=None).state_dict(), file)
    return str(file)


def run(row: Row, directory: Path, steps: int, seed: int, weights: str) -> dict[str, Any]:
    """One demo; what came of it."""
    config = configuration(row, directory / "config", weights)
    options = ["--images"] if row.images else []
    command = [
        *("rlif", "demo", *options, "--seed", str(seed), "--steps", str(steps)),
        *("--eval-every", str(steps // 2), "--run-directory", str(directory / "run")),
        *(f"robot:={row.robot}", f"config_directory:={config}"),
    ]
    subprocess.run(command, check=True)
    summary = json.loads((directory / "run" / "summary.json").read_text(encoding="utf-8"))
    keys = (
        "policy_success",
        "policy_success_interval",
        "policy_episodes",
        "expert_success",
        "trials",
        "operator_share_last20",
        "env_steps",
        "interventions",
        "wall_seconds",
        "seed",
    )
    return {"about": row.about, **{key: summary[key] for key in keys}}


def table(results: dict[str, Any]) -> str:
    """Markdown, one line per row."""
    lines = [
        "| row | what | half way | at the end | operator's share, last 20 | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        half = result["trials"][-1]["success"]
        cells = [
            name,
            result["about"],
            f"{half:.0%}",
            "–" if result["policy_success"] is None else f"{result['policy_success']:.0%}",
            f"{result['operator_share_last20']:.0%}",
            f"{result['wall_seconds'] / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the rows and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=DEFAULT)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", default="random", help="of the frozen trunk: encoder_weights")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="rlif_ablation_"))
    weights = arguments.weights
    if weights == "random":
        weights = random_weights(root / "random_resnet18.pth")
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": {}}
    for name in arguments.rows:
        try:
            result = run(ROWS[name], root / name, arguments.steps, arguments.seed, weights)
        except subprocess.CalledProcessError as error:
            print(f"{name}: rlif demo ended with {error.returncode}", file=sys.stderr)
            return 1
        if name == "frozen":
            result["weights"] = arguments.weights
        content["rows"][name] = result
        content["machine"] = machine()
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(table(content["rows"]), flush=True)
    print(f"\nruns in {root}; results in {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
