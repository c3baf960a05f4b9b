"""Convert other formats to a bag of Steps, as prior data.

  rlif import FILE.npz... -o BAG     arrays of observations and actions

Rewards in the file count for nothing: the labels come from who drove.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rlif_learner.bags import BagError
from rlif_learner.bags_arrays import ImportConfig, read_arrays, steps_from_arrays
from rlif_learner.bags_write import StepWriter
from rlif_learner.steps import Outcome, Source

DRIVERS = {"operator": Source.OPERATOR, "policy": Source.POLICY}
OUTCOMES = {"success": Outcome.SUCCESS, "truncated": Outcome.TRUNCATED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE")
    add("-o", "--output", type=Path, required=True, help="the bag, which must not exist")
    add("--driver", choices=DRIVERS, default="operator", help="where the file does not say")
    add("--outcome", choices=OUTCOMES, default="truncated", help="where the file does not say")
    add("--action-scale", type=float, default=1.0, help="what is 1 in an action")
    add("--rate", type=float, default=10.0, help="Hz; steps are stamped so far apart")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 with one line on stderr where that is not possible; then there is no bag."""
    try:
        if not arguments.rate > 0.0:
            raise ValueError(f"--rate: found {arguments.rate}, expected above 0")
        config = ImportConfig(
            DRIVERS[arguments.driver], OUTCOMES[arguments.outcome], arguments.action_scale
        )
        with StepWriter(arguments.output) as writer:
            episodes = _write(arguments.files, config, writer, round(1e9 / arguments.rate))
    except (BagError, ValueError, OSError) as error:
        print(f"rlif import: {error}", file=sys.stderr)
        return 1
    print(f"{writer.count} steps of {episodes} episodes: {arguments.output}")
    return 0


def _write(files: list[Path], config: ImportConfig, writer: StepWriter, period: int) -> int:
    """Number of episodes, which are counted through all files."""
    episodes = 0
    for file in files:
        before = episodes
        try:
            for step in steps_from_arrays(read_arrays(file), config, writer.count):
                episodes = before + step.episode_id
                writer.write(replace(step, episode_id=episodes), (1 + writer.count) * period)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return episodes
