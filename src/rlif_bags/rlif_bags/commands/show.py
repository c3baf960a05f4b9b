# SPDX-License-Identifier: Apache-2.0
"""Draw the episodes of a bag: frames, control sources, labels, outcome.

  rlif show BAG... [-o DIR] [--episodes 1,4,10-12] [--last N] [--rerun [FILE.rrd]]

Writes BAG.png and BAG.html, a page that holds all it shows, of the last 20 episodes of each bag;
of more than 50 episodes several pictures. --rerun opens the episodes in Rerun as well, where that
is installed; with a name it writes a file for Rerun instead.
"""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path

from rlif_bags.commands.options import (
    add_bags,
    add_episodes,
    add_scheme,
    parse_parameters,
    print_errors,
    print_notes,
    reports_errors,
)
from rlif_bags.drawing.rerun_log import show_in_rerun
from rlif_bags.drawing.show import EpisodeView, draw_pngs, html_page, view_of
from rlif_bags.optional import optional
from rlif_bags.reading.files import (
    BagError,
    bag_name,
    find_bags,
    refuse_equal_names,
    refuse_inside,
)
from rlif_bags.reading.step_reader import StepReader, episodes_of
from rlif_bags.relabelling.relabel import Relabelling, Scheme


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    add_scheme(parser)
    add_episodes(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, default=Path(), help="directory")
    add(
        "--last", type=int, default=20, help="draw the last so many episodes of a bag (default: 20)"
    )
    add("--camera", type=int, default=0, help="of the Steps, from 0")
    add("--frames", type=int, default=8, help="per episode")
    add(
        "--rerun", nargs="?", const="", metavar="FILE.rrd",
        help="open the episodes in Rerun, or write them into this file",
    )  # fmt: skip


@reports_errors("show")
def run(arguments: argparse.Namespace) -> int:
    if arguments.last < 1 or arguments.frames < 1:
        raise ValueError("--last and --frames: expected at least 1")
    if arguments.rerun is not None:
        optional("rerun")  # one that is not there is reported before anything is read
    bags, problems = find_bags(arguments.bags)
    refuse_equal_names(bags, bag_name)
    if arguments.rerun and len(bags) > 1:
        raise ValueError(f"--rerun {arguments.rerun}: found {len(bags)} bags, expected one")
    scheme = Relabelling(arguments.scheme, parse_parameters(arguments.parameters)).function()
    for bag in bags:
        try:
            _show(bag, arguments, scheme)
        except (BagError, ValueError, OSError) as error:
            problems.append(str(error))
    return print_errors("show", *problems)


def _show(bag: Path, arguments: argparse.Namespace, scheme: Scheme) -> None:
    for output in (arguments.output, Path(arguments.rerun or arguments.output)):
        refuse_inside([bag], output)
    reader = StepReader(bag, arguments.topic)
    shown: deque[EpisodeView] = deque(maxlen=arguments.last)
    count = 0
    for steps in episodes_of(reader):
        if not arguments.episodes or steps[0].episode_id in arguments.episodes:
            shown.append(view_of(steps, scheme, arguments.frames, arguments.camera))
            count += 1
    if not shown:
        raise ValueError(f"{bag}: found no such episode")
    arguments.output.mkdir(parents=True, exist_ok=True)
    rerun = _rerun(bag, arguments, {view.id for view in shown}, scheme)
    name = bag_name(bag)
    pictures = draw_pngs(list(shown), arguments.output / f"{name}.png")
    page = arguments.output / f"{name}.html"
    page.write_text(html_page(list(shown), name), encoding="utf-8")
    print_notes(*reader.notes)
    which = f"the last {len(shown)} of {count} episodes (--last)"
    which = which if count > len(shown) else f"{count} episodes"
    print(f"{which}: {' '.join(map(str, pictures))} {page} {rerun}".rstrip())


def _rerun(bag: Path, arguments: argparse.Namespace, wanted: set[int], scheme: Scheme) -> str:
    """Where Rerun has the episodes; empty: it was not asked for."""
    if arguments.rerun is None:
        return ""
    file = Path(arguments.rerun) if arguments.rerun else None
    show_in_rerun(StepReader(bag, arguments.topic), wanted, scheme, bag_name(bag), file)
    return str(file or "(open in Rerun)")
