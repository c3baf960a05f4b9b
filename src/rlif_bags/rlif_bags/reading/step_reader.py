# SPDX-License-Identifier: Apache-2.0
"""Steps out of bags, with nothing but the bag: definitions come from the bag itself, no ROS.

What cannot be used of a bag is left out, named with file, topic and time, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rosbags.interfaces import Connection

from rlif_bags.reading.bag import OpenBag
from rlif_bags.reading.files import BagError, bag_paths
from rlif_bags.reading.open import STEP_TYPE, open_bag
from rlif_learner.data.step_messages import record_from_message
from rlif_learner.data.steps import Outcome, StepRecord

EPISODE_TYPE = "rlif_msgs/msg/Episode"
_SOON = 5_000_000_000  # ns
MAX_NOTES = 20  # of one kind; the others are counted


def step_connections(bag: OpenBag, topic: str = "") -> list[Connection]:
    """The connections of the Steps. BagError lists what is there instead."""
    steps = [c for c in bag.connections if c.msgtype == STEP_TYPE]
    topics = sorted({c.topic for c in steps})
    if topic:
        steps = [c for c in steps if c.topic == topic]
    if not steps:
        there = sorted({f"{c.topic} ({c.msgtype})" for c in bag.connections})
        raise BagError(
            f"{bag.path}: found no Steps{f' on {topic}' if topic else ''}, only {there}. A bag of "
            "something else becomes one of Steps with `rlif relabel --mapping`"
        )
    bag.require_types(steps)
    if not topic and len(topics) > 1:
        raise BagError(f"{bag.path}: found Steps on {topics}; name one of them with --topic")
    return steps


def episode_connections(bag: OpenBag, steps: str) -> list[Connection]:
    """The connections of the Episodes that go with the Steps on the topic `steps`."""
    namespace = steps.rpartition("/")[0]
    episodes = [c for c in bag.connections if c.msgtype == EPISODE_TYPE]
    known = EPISODE_TYPE in bag.typestore.fielddefs
    return [c for c in episodes if known and c.topic.rpartition("/")[0] == namespace]


@dataclass
class StepReader:
    """Steps of one bag, in order. Steps that cannot be used are left out, named and counted.

    An episode that the Episode topic calls discarded, and whose last Step is not in the bag, ends
    with a DISCARDED one: nothing of it is learned from.

    topic: of the Steps; empty: the only one there is
    images: False leaves the images out of the records
    """

    path: Path
    topic: str = ""
    images: bool = True
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    _noted: Counter[str] = field(default_factory=Counter)
    _topic: str = ""
    _left: dict[int, int] = field(default_factory=dict)  # see `_refuse_two_in_one`
    _doubtful: dict[int, int] = field(default_factory=dict)
    _discarded: set[int] = field(default_factory=set)  # episodes, by the newest message on each

    def messages(self) -> Iterator[tuple[int, Any]]:
        """Log time in ns and the deserialised message (of the rosbags library)."""
        with open_bag(self.path, self.notes) as bag:
            connections = step_connections(bag, self.topic)
            self._topic = connections[0].topic
            connections += episode_connections(bag, self._topic)
            for connection, stamp, message in bag.decoded(connections, self._skip_unreadable):
                if connection.msgtype == STEP_TYPE:
                    yield stamp, message
                elif message.outcome == Outcome.DISCARDED:
                    self._discarded.add(message.id)
                else:  # episode numbers restart with their node: the newest message counts
                    self._discarded.discard(message.id)

    def _skip_unreadable(self, topic: str, stamp: int, reason: str) -> None:
        self._skip("not readable", stamp, reason, topic)

    def __iter__(self) -> Iterator[StepRecord]:
        for record, _ in self.with_messages():
            yield record

    def with_messages(self) -> Iterator[tuple[StepRecord, Any]]:
        """Each Step with its message, for what a record does not hold."""
        previous: StepRecord | None = None
        stamp, message = 0, None
        for stamp, message in self.messages():
            if not self.images:
                message.images = []
            try:
                record = record_from_message(message)
            except ValueError as error:
                self._skip("not valid", stamp, str(error))
                continue
            except AttributeError as error:  # a Step of before the field was added
                self._skip("not valid", stamp, f"has no {error.name}")
                continue
            if not (np.isfinite(record.state).all() and np.isfinite(record.action).all()):
                where = f"step {record.step_index} of episode {record.episode_id}"
                self._skip("not finite", stamp, where)
                continue
            if record.is_first or previous is None or record.episode_id != previous.episode_id:
                yield from self._lost_end(previous, stamp, message)
            self._check_order(record, previous, stamp)
            previous = record
            yield record, message
        yield from self._lost_end(previous, stamp, message)

    def _lost_end(
        self, last: StepRecord | None, stamp: int, message: Any
    ) -> Iterator[tuple[StepRecord, Any]]:
        """The last Step of a discarded episode, if it is missing after `last`."""
        if last is None or last.is_last or last.episode_id not in self._discarded:
            return
        self._note(
            "discarded", stamp,
            f"episode {last.episode_id} was discarded by the Episode topic; its last Step is "
            "missing",
        )  # fmt: skip
        yield replace(
            last, sequence=last.sequence + 1, step_index=last.step_index + 1, is_first=False,
            is_last=True, outcome=Outcome.DISCARDED, source=0, onset=False, intervention_id=0,
            action=np.zeros(0, np.float32), stamp=0,
        ), message  # fmt: skip

    def _check_order(self, record: StepRecord, previous: StepRecord | None, stamp: int) -> None:
        """Note a Step that is used but unusual."""
        if previous is not None:
            self._refuse_two_in_one(record, previous, stamp)
        if previous is not None and record.sequence <= previous.sequence:
            self._note(
                "order", stamp,
                f"the sequence goes from {previous.sequence} to {record.sequence}: the clock was "
                "set back while it was recorded, or by more than one recorder; nothing is learned "
                "across",
            )  # fmt: skip
        begins = record.is_first or previous is None or record.episode_id != previous.episode_id
        if record.is_last and begins:
            self._note("empty", stamp, f"episode {record.episode_id} is empty: nothing but its end")

    def _refuse_two_in_one(self, record: StepRecord, previous: StepRecord, stamp: int) -> None:
        """BagError where the Steps of two recordings lie between each other.

        Their numbers tell the order, and are the same in both. Where the sequence
        goes back, the one before was left: a Step that soon comes as the next one of both may be
        either's. If it comes a second time, both go on.
        """
        for numbers in (self._left, self._doubtful):
            for number in [n for n, since in numbers.items() if stamp - since >= _SOON]:
                del numbers[number]
        if record.sequence == previous.sequence + 1 and record.sequence in self._left:
            self._doubtful[record.sequence] = stamp
        elif record.sequence in self._doubtful:
            raise BagError(
                f"{self.path}: {self._topic} at {stamp} ns: Step {record.sequence} came twice, with "
                "others between: two recordings in one, whose order is not known. Name their "
                "files one by one"
            )
        if record.sequence <= previous.sequence:
            self._left[previous.sequence + 1] = stamp

    def _skip(self, why: str, stamp: int, detail: str, topic: str = "") -> None:
        self.skipped[why] += 1
        self._note(why, stamp, f"left out, {why}: {detail}", topic)

    def _note(self, kind: str, stamp: int, text: str, topic: str = "") -> None:
        """A note, unless there are many of its kind already: a bag may be full of them."""
        self._noted[kind] += 1
        if self._noted[kind] <= MAX_NOTES:
            self.notes.append(f"{self.path}: {topic or self._topic} at {stamp} ns: {text}")
        if self._noted[kind] == MAX_NOTES:
            self.notes.append(f"{self.path}: more of this kind ({kind}) are counted, not named")


AnyStep = TypeVar("AnyStep", bound=StepRecord)


def episodes_of(steps: Iterable[AnyStep]) -> Iterator[list[AnyStep]]:
    """Steps in groups of one episode each."""
    group: list[AnyStep] = []
    for step in steps:
        if group and (
            group[-1].is_last or step.is_first or step.episode_id != group[-1].episode_id
        ):
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def camera_names(step: StepRecord) -> tuple[str, ...]:
    """The observer's names of the cameras; camera_0 and so on where a bag has none."""
    names = tuple(name.replace("/", "_").replace(".", "_") for name in step.cameras)
    if len(set(names)) == len(step.images):
        return names
    return tuple(f"camera_{number}" for number in range(len(step.images)))


def same_robot(of: Path, step: StepRecord, known: dict[str, Any]) -> dict[str, Any]:
    """Sizes and cameras of the Steps so far, `known`, or of this one if it is the first.

    BagError where this one, read from `of`, has others. The end of an episode has no action.
    """
    images = dict(zip(camera_names(step), (i.shape for i in step.images), strict=True))
    action = len(step.action) or known.get("action", 0)
    found = {"state": len(step.state), "action": action, "images": images}
    if known and found != known:
        raise BagError(f"{of}: found Steps of {found}, expected {known}: all of one robot")
    return known or found


def open_prior(paths: Sequence[str], images: bool) -> Iterator[StepReader]:
    """A reader for each bag at `paths`, for the learner node (rlif_learner.data.prior).

    BagError names a path at which there is no bag.
    """
    for bag in bag_paths(paths):
        yield StepReader(bag, images=images)
