# SPDX-License-Identifier: Apache-2.0
"""Pace, window and bytes of a replay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rosbags.highlevel import AnyReader
from step_bags import assert_equal_steps, make_episodes, write_bag, write_old_bag

from rlif_bags.reading.files import BagError
from rlif_bags.reading.open import STEP_TYPE
from rlif_bags.replay import Pace, Window, recorded_steps
from rlif_bags.step_writer import step_typestore
from rlif_learner.data.step_messages import record_from_message


def test_pace_is_the_recorded_one_times_the_rate() -> None:
    pace = Pace(2.0)
    assert pace.due(10.0, 100.0) == 100.0
    pace.published(10.0, 100.0)
    assert pace.due(11.0, 100.1) == pytest.approx(100.5)
    pace.published(11.0, 130.0)  # the learner made a pause
    assert pace.due(12.0, 130.0) == pytest.approx(130.5), "it is not caught up"
    assert pace.due(9.0, 130.0) == 130.0, "time that jumps back costs no time"


def test_pace_infinite_rate_is_due_now() -> None:
    pace = Pace(math.inf)
    pace.published(0.0, 5.0)
    assert pace.due(1000.0, 5.0) == 5.0


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_pace_rate_not_above_zero_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Pace(rate)


def test_window_closes_when_the_learner_is_behind() -> None:
    window = Window(size=10)
    assert window.open and not window.known
    window.status(500)  # had learnt from something else before
    window.sent = 10
    assert not window.open and window.behind == 10
    window.status(506)
    assert window.open and window.behind == 4


def test_recorded_steps_are_the_bytes_of_the_bag(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(2))
    with AnyReader([bag]) as reader:
        recorded = [(stamp, bytes(data)) for _, stamp, data in reader.messages()]
    assert [(stamp, data) for stamp, data, _ in recorded_steps(bag)] == recorded


def test_recorded_steps_of_before_camera_names_become_the_installed_message(tmp_path: Path) -> None:
    steps, store = make_episodes(1, images=True), step_typestore()
    bag = write_old_bag(tmp_path / "bag", steps, ("wrist", "fixed"))
    messages = [store.deserialize_cdr(data, STEP_TYPE) for _, data, _ in recorded_steps(bag)]
    assert_equal_steps([record_from_message(message) for message in messages], steps)
    assert all(message.camera_names == ["wrist", "fixed"] for message in messages)


def test_recorded_steps_another_definition_is_refused(
    monkeypatch: pytest.MonkeyPatch, bag: Path
) -> None:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    def newer() -> Any:
        store = step_typestore()
        text, _ = store.generate_msgdef("rlif_msgs/msg/Step", ros_version=2)
        text = text.replace("uint64 sequence", "uint64 sequence\nuint8 something_new", 1)
        other = get_typestore(Stores.ROS2_JAZZY)
        other.register(get_types_from_msg(text, "rlif_msgs/msg/Step"))
        return other

    monkeypatch.setattr("rlif_bags.replay.step_typestore", newer)
    with pytest.raises(BagError, match="another version"):
        list(recorded_steps(bag))
