# SPDX-License-Identifier: Apache-2.0
"""Convert other formats to a bag of Steps, as prior data.

  rlif import FILE.npz... -o BAG     arrays of observations and actions; .hdf5 as D4RL has them
  rlif import DIR... -o BAG          LeRobot datasets v3.0, Minari datasets

Rewards in the data are not used: labels come from the control source. Actions must lie in [-1, 1]:
--action-scale divides them. What is read beyond these, docs/bags.md lists.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlif_bags.commands.options import print_notes, reports_errors
from rlif_bags.formats.array_file import ArrayFile
from rlif_bags.formats.arrays import ImportConfig, steps_from_arrays
from rlif_bags.formats.lerobot import ACTION, STATE
from rlif_bags.formats.lerobot_read import Differences, LeRobotReader, is_lerobot
from rlif_bags.formats.minari import MinariReader, is_minari
from rlif_bags.reading.files import BagError, refuse_inside
from rlif_bags.reading.step_reader import same_robot
from rlif_bags.step_writer import StepWriter
from rlif_learner.data.steps import Outcome, Source

SOURCES = {"operator": Source.OPERATOR, "policy": Source.POLICY}
OUTCOMES = {"success": Outcome.SUCCESS, "truncated": Outcome.TRUNCATED}
RATE = 10.0  # Hz, where the data have none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE")
    add("-o", "--output", type=Path, required=True, help="the bag, which must not exist")
    add(
        "--driver", choices=SOURCES, default="operator",
        help="the control source where the file has none",
    )  # fmt: skip
    add(
        "--outcome", choices=OUTCOMES, default="truncated",
        help="of episodes where the file has none",
    )  # fmt: skip
    add("--action-scale", type=float, default=1.0, help="what is 1 in an action")
    add(
        "--one-episode",
        action="store_true",
        help="all rows of a file are one episode; else it must separate them",
    )
    add(
        "--rate", type=float, help="Hz; steps are stamped so far apart (default: the file's, or 10)"
    )
    add(
        "--state-key", nargs="+", metavar="KEY", default=(),
        help="what makes up the state, joined in this order: features of a LeRobot dataset (default: "
        f"{STATE}), entries of a Minari dictionary",
    )  # fmt: skip
    add("--action-key", default=ACTION, help="the feature of a LeRobot dataset that is the action")
    add(
        "--differences", action="store_true",
        help="actions of a LeRobot dataset are absolute positions: take how fast they change",
    )  # fmt: skip
    add(
        "--gripper-range", nargs=2, type=float, metavar=("CLOSED", "OPEN"),
        help="with --differences: the positions of the gripper, which become -1 and 1",
    )  # fmt: skip
    add("--no-images", action="store_true", help="leave the cameras out")
    add(
        "--cameras", nargs="+", metavar="NAME", default=(),
        help="the robot's names for the dataset's cameras, in the dataset's order: a policy "
        "identifies cameras by name",
    )  # fmt: skip


@reports_errors("import")
def run(arguments: argparse.Namespace) -> int:
    if arguments.rate is not None and not arguments.rate > 0.0:
        raise ValueError(f"--rate: found {arguments.rate}, expected above 0")
    config = ImportConfig(
        SOURCES[arguments.driver], OUTCOMES[arguments.outcome], arguments.action_scale
    )
    refuse_inside(arguments.files, arguments.output)
    with StepWriter(arguments.output) as writer:
        episodes = _write_all(arguments, config, writer)
    print(f"{writer.count} steps of {episodes} episodes: {arguments.output}")
    return 0


def _differences(arguments: argparse.Namespace) -> Differences | None:
    if not arguments.differences:
        if arguments.gripper_range:
            raise ValueError("--gripper-range: expected --differences with it")
        return None
    ends = tuple(arguments.gripper_range or ())
    if ends and ends[0] == ends[1]:
        raise ValueError(f"--gripper-range: found {ends[0]} twice, expected two positions")
    return Differences(arguments.action_scale, (ends[0], ends[1]) if ends else None)


def _open(path: Path, arguments: argparse.Namespace) -> LeRobotReader | MinariReader | ArrayFile:
    """BagError where it is of no known kind."""
    if is_lerobot(path):
        state = tuple(arguments.state_key) or (STATE,)
        return LeRobotReader(path, state, arguments.action_key, _differences(arguments))
    if arguments.differences:
        raise BagError(f"{path}: --differences is for LeRobot datasets, which name their actions")
    if is_minari(path):
        return MinariReader(path, arguments.state_key)
    if path.is_dir():
        raise BagError(f"{path}: found neither a LeRobot nor a Minari dataset in this directory")
    return ArrayFile(path, arguments.one_episode)


def _renamed(own: tuple[str, ...], given: Sequence[str]) -> tuple[str, ...]:
    if given and len(given) != len(own):
        raise ValueError(
            f"--cameras: found {len(given)} names ({', '.join(given)}), expected one for each camera "
            f"of the dataset: {', '.join(own)}"
        )
    return tuple(given) or own


def _write_all(arguments: argparse.Namespace, config: ImportConfig, writer: StepWriter) -> int:
    """Number of episodes, which are counted through all files."""
    episodes, stamp, known = 0, 0, dict[str, Any]()
    if arguments.differences:  # --action-scale is applied with them
        config = replace(config, action_scale=1.0)
    for path in arguments.files:
        try:
            data = _open(path, arguments)
            print_notes(*data.notes(not arguments.no_images))
            period = round(1e9 / (arguments.rate or data.rate or RATE))
            for arrays, images in data:
                before, images = episodes, None if arguments.no_images else images
                cameras = () if images is None else _renamed(data.cameras, arguments.cameras)
                for step in steps_from_arrays(arrays, config, writer.count, images):
                    episodes, stamp = before + step.episode_id, stamp + period
                    number = episodes if step.intervention_id else 0
                    step = replace(
                        step, episode_id=episodes, intervention_id=number, cameras=cameras
                    )
                    known = same_robot(path, step, known)
                    writer.write(step, stamp)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return episodes
