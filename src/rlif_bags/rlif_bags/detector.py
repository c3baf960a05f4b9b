# SPDX-License-Identifier: Apache-2.0
"""Episodes of bags for the success detector, with what the operator said against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlif_node.states import Phase

from rlif_bags.reading.files import BagError, bag_name
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.step_reader import StepReader, episodes_of, step_connections
from rlif_learner.data.steps import StepRecord
from rlif_policy.detector import ObservationLayout
from rlif_policy.success import SOURCE

DISAGREEMENT_TYPE = "rlif_msgs/msg/SuccessDisagreement"
EPISODE_TYPE = "rlif_msgs/msg/Episode"


@dataclass
class Episodes:
    """Name and Steps of each episode; by its index, what the bag's other topics say of it.

    corrections: whether the operator called it a success, where the detector did not agree
    detected: those that a detector ended
    """

    named: list[tuple[str, list[StepRecord]]] = field(default_factory=list)
    corrections: dict[int, bool] = field(default_factory=dict)
    detected: set[int] = field(default_factory=set)


def read_episodes(bags: Sequence[Path], topic: str, notes: list[str]) -> Episodes:
    """All of the bags. BagError where there is none."""
    episodes = Episodes()
    for bag in bags:
        reader = StepReader(bag, topic)
        said, ended = read_judgements(bag, topic)
        for steps in episodes_of(reader):
            number, index = steps[0].episode_id, len(episodes.named)
            if number in said:
                episodes.corrections[index] = said[number]
            if number in ended:
                episodes.detected.add(index)
            episodes.named.append((f"{bag_name(bag)}, episode {number}", steps))
        notes += reader.notes
    if not episodes.named:
        raise BagError(f"{', '.join(map(str, bags))}: found no episode")
    return episodes


def read_judgements(bag: Path, topic: str) -> tuple[dict[int, bool], set[int]]:
    """By the id of an episode whether the operator called it a success, where the detector did not agree;
    and ids of those that the detector ended. topic: of the Steps, in whose namespace these are."""
    said: dict[int, bool] = {}
    ended: set[int] = set()
    with open_bag(bag) as opened:
        namespace = step_connections(opened, topic)[0].topic.rpartition("/")[0]
        found = [
            c for c in opened.connections
            if c.msgtype in (DISAGREEMENT_TYPE, EPISODE_TYPE)
            and c.topic.rpartition("/")[0] == namespace
        ]  # fmt: skip
        opened.require_types(found)
        for connection, _, message in opened.decoded(found, lambda *_: None) if found else ():
            if connection.msgtype == DISAGREEMENT_TYPE:
                said[message.episode_id] = bool(message.operator_success)
            elif message.phase == Phase.ENDED and message.reason == SOURCE:
                ended.add(message.id)
    return said, ended


def layout_of(
    step: StepRecord, state: bool, features: Sequence[str], cameras: Sequence[str]
) -> ObservationLayout:
    """Of the observations in `step`. state: use it besides the images; without images it is used anyway.

    cameras: to use, in this order; none: all
    """
    names = tuple(cameras) or step.cameras
    unknown = [name for name in names if name not in step.cameras] if step.cameras else []
    if unknown:
        raise BagError(
            f"cameras: found {', '.join(unknown)}, expected some of {', '.join(step.cameras)}"
        )
    shown = [step.cameras.index(n) for n in names] if step.cameras else range(len(step.images))
    images = tuple(step.images[i].shape for i in shown)
    used = state or not images
    return ObservationLayout(
        len(step.state) if used else 0, tuple(features) if used else (), names, images
    )
