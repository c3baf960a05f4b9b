# SPDX-License-Identifier: Apache-2.0
"""Episodes of bags for the success detector, with what the operator said against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlif_bags.reading.files import BagError, bag_name
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.step_reader import StepReader, episodes_of
from rlif_learner.data.steps import StepRecord
from rlif_policy.detector import ObservationLayout

DISAGREEMENT_TYPE = "rlif_msgs/msg/SuccessDisagreement"
Episodes = list[tuple[str, list[StepRecord]]]


def read_episodes(
    bags: Sequence[Path], topic: str, notes: list[str]
) -> tuple[Episodes, dict[int, bool]]:
    """Name and Steps of each episode; by its index, whether the operator called it a success where the
    detector did not agree."""
    episodes: Episodes = []
    corrections: dict[int, bool] = {}
    for bag in bags:
        reader = StepReader(bag, topic)
        said = read_disagreements(bag)
        for steps in episodes_of(reader):
            number = steps[0].episode_id
            if number in said:
                corrections[len(episodes)] = said[number]
            episodes.append((f"{bag_name(bag)}, episode {number}", steps))
        notes += reader.notes
    if not episodes:
        raise BagError(f"{', '.join(map(str, bags))}: found no episode")
    return episodes, corrections


def read_disagreements(bag: Path) -> dict[int, bool]:
    """Whether the operator called an episode a success, by its id, where the detector did not agree."""
    with open_bag(bag) as opened:
        found = [c for c in opened.connections if c.msgtype == DISAGREEMENT_TYPE]
        opened.require_types(found)
        return {
            message.episode_id: bool(message.operator_success)
            for _, _, message in (opened.decoded(found, lambda *_: None) if found else ())
        }


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
