# SPDX-License-Identifier: Apache-2.0
"""Show episodes of bags as a film: the cameras, the control source and the critic's value.

  rlif film BAG... -o FILE.gif                          the first three episodes
  rlif film BAG... -o FILE.mp4 --episodes 1,4,10-12     these ones, of each bag
  rlif film BAG... -o FILE.gif --checkpoint RUN         with the critic's value of each action

It runs in real time, at the rate of the Steps or --rate. A GIF needs nothing more, an mp4 PyAV:
`pip install --group export` in the clone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rlif_bags.commands.options import add_bags, add_episodes, print_notes, reports_errors
from rlif_bags.drawing.film import Film, Take, find_takes
from rlif_bags.drawing.film_files import write_film
from rlif_bags.reading.files import bag_paths, refuse_inside
from rlif_learner.data.checkpoint import CheckpointError
from rlif_learner.data.steps import StepRecord

COUNT = 3  # episodes, where none are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    add_episodes(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="FILE.gif or FILE.mp4; it must not exist")
    add("--checkpoint", type=Path, help="of RLPD, or the folder of a run: whose critic to ask")
    add(
        "--encoder-weights", default="torchvision",
        help="of the checkpoint's frozen encoder, as the learner's encoder_weights",
    )  # fmt: skip
    add("--rate", type=float, default=0.0, help="control_rate, Hz; default: that of the Steps")


@reports_errors("film", CheckpointError)
def run(arguments: argparse.Namespace) -> int:
    notes: list[str] = []
    values = _critic(arguments, notes)
    bags = bag_paths(arguments.bags)
    refuse_inside(bags, arguments.output)
    takes: list[Take] = []
    for bag in bags:
        count = COUNT - len(takes)
        if arguments.episodes or count > 0:
            takes += find_takes(bag, arguments.episodes, count, arguments.topic, values, notes)
    film = Film(takes, arguments.rate)
    write_film(film, arguments.output)
    print_notes(*notes)
    size = arguments.output.stat().st_size / 1e6
    print(f"{len(takes)} episodes, {film.ends()[-1]:.0f} s, {size:.1f} MB: {arguments.output}")
    return 0


def _critic(
    arguments: argparse.Namespace, notes: list[str]
) -> Callable[[Sequence[StepRecord]], np.ndarray] | None:
    if arguments.checkpoint is None:
        return None
    from rlif_bags.drawing.critic_values import NoCriticError, load_critic  # PyTorch takes long

    try:
        return load_critic(arguments.checkpoint, arguments.encoder_weights).values
    except NoCriticError as error:
        notes.append(f"no critic's value: {error}")
        return None
