"""Convert bags to other formats.

  rlif export BAG... -o OUT.npz     transitions as plain arrays (see rlif_learner/bags_arrays.py)

Images are left out: transitions are of the state.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from rlif_learner.bags import BagError, StepReader, bag_paths
from rlif_learner.bags_arrays import transitions, write_arrays
from rlif_learner.labels import SCHEMES

FORMATS = ("npz",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--format", choices=FORMATS, default="npz")
    parser.add_argument("--scheme", choices=SCHEMES, default="onset", help="of the rewards")
    parser.add_argument("--evaluation", action="store_true", help="episodes of evaluation as well")
    parser.add_argument("--topic", default="", help="of the Steps, where there are several")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 with one line on stderr where that is not possible."""
    try:
        parts = []
        for bag in bag_paths(arguments.bags):
            reader = StepReader(bag, arguments.topic, images=False)
            parts.append(transitions(reader, arguments.scheme, arguments.evaluation))
            if len(parts) > 1:  # episodes of several bags must not share a number
                parts[-1]["episode_ids"] += parts[-2]["episode_ids"].max()
            for note in reader.notes:
                print(f"note: {note}")
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_arrays(arrays, arguments.output)
    except (BagError, ValueError, OSError) as error:
        print(f"rlif export: {error}", file=sys.stderr)
        return 1
    episodes = len(np.unique(arrays["episode_ids"]))
    print(f"{len(arrays['rewards'])} transitions of {episodes} episodes: {arguments.output}")
    return 0
