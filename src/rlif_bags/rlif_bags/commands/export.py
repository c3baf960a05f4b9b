# SPDX-License-Identifier: Apache-2.0
"""Convert bags to other formats: each episode with its labels, images and control sources.

  rlif export BAG... -o OUT.npz                        plain arrays of transitions
  rlif export BAG... -o DIR --format lerobot           LeRobot dataset v3.0: parquet and mp4
  rlif export BAG... -o DIR/NAME-v0 --format minari    Minari dataset, for offline RL

The format is that of the output's name where --format is not given: npz for .npz. The columns are
listed in docs/bags.md. The bags stay as they are; discarded episodes are left out, those of
evaluation too unless asked for. Beyond npz, libraries are needed: `pip install --group export`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlif_bags.commands.options import (
    add_bags,
    add_scheme,
    parse_parameters,
    reports_errors,
)
from rlif_bags.formats.export import ExportReader
from rlif_bags.formats.lerobot import LeRobotConfig, write_lerobot
from rlif_bags.formats.minari import write_minari
from rlif_bags.formats.npz import write_npz
from rlif_bags.formats.video import CODECS
from rlif_bags.reading.files import bag_paths, refuse_inside
from rlif_bags.relabelling.relabel import Relabelling

FORMATS = ("npz", "lerobot", "minari")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    add_scheme(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="file or directory; it must not exist")
    add("--format", choices=FORMATS, help="default: npz for a name that ends in .npz")
    add("--evaluation", action="store_true", help="episodes of evaluation as well")
    add("--no-images", action="store_true", help="leave the cameras out")
    lerobot = parser.add_argument_group("lerobot")
    lerobot.add_argument("--task", default=LeRobotConfig.task, help="the task as text")
    lerobot.add_argument("--fps", type=float, default=0.0, help="default: the rate of the Steps")
    lerobot.add_argument("--robot", default=LeRobotConfig.robot, help="its type, for the metadata")
    lerobot.add_argument(
        "--codec", choices=CODECS, default="h264",
        help="of the videos; lossless: the same pixels, and larger files",
    )  # fmt: skip
    minari = parser.add_argument_group("minari")
    minari.add_argument("--author", default="", help="for the metadata")


@reports_errors("export")
def run(arguments: argparse.Namespace) -> int:
    parameters = parse_parameters(arguments.parameters)
    work = Relabelling(arguments.scheme, parameters, topic=arguments.topic)
    bags = bag_paths(arguments.bags)
    refuse_inside(bags, arguments.output)
    reader = ExportReader(bags, work, arguments.evaluation, not arguments.no_images)
    _write(reader, arguments)
    for line in reader.lines():
        print(line)
    print(f"{reader.transitions} transitions of {reader.runs} episodes: {arguments.output}")
    return 0


def _write(reader: ExportReader, arguments: argparse.Namespace) -> None:
    kind = arguments.format or ("npz" if arguments.output.suffix == ".npz" else "")
    if kind == "npz":
        write_npz(reader, arguments.output)
    elif kind == "lerobot":
        config = LeRobotConfig(arguments.task, arguments.fps, arguments.codec, arguments.robot)
        write_lerobot(reader, arguments.output, config)
    elif kind == "minari":
        write_minari(reader, arguments.output, arguments.author)
    else:
        raise ValueError(f"--format: found none, expected one of {list(FORMATS)}")
