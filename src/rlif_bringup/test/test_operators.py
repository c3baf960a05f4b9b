# SPDX-License-Identifier: Apache-2.0
"""What a person at the console is told, and when the policy is kept from acting."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rlif_bringup.demo import person_result
from rlif_bringup.operators import PersonOperator
from rlif_bringup.summary import EpisodeRecord
from rlif_msgs.msg import ControlState, PolicyHold


class FakeNode:
    """Keeps what is published, by topic."""

    def __init__(self) -> None:
        self.published: dict[str, list[Any]] = {}

    def create_publisher(self, kind: type, topic: str, qos: object) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.setdefault(topic, []).append)

    def create_timer(self, period: float, callback: Callable[[], None]) -> None:
        self.timer = callback


def record(phase: str, success: bool) -> EpisodeRecord:
    return EpisodeRecord(phase, 1, 10, 10, 5, 1, success, 1.0)


@pytest.mark.parametrize(
    ("mode", "code"),
    [("always", PolicyHold.OTHER), ("intervene", PolicyHold.NONE), ("never", PolicyHold.NONE)],
)
def test_person_operator_holds_the_policy_only_where_the_person_drives(mode, code):
    node = FakeNode()
    PersonOperator(SimpleNamespace(node=node, control=None)).prepare("demonstrations", mode, 10)
    node.timer()
    holds = node.published["policy_hold"]
    assert len(holds) == 2 and holds[-1].reason_code == code


def test_person_operator_tells_what_to_do_next():
    node = FakeNode()
    graph = SimpleNamespace(node=node, control=ControlState(state=ControlState.DISARMED))
    operator = PersonOperator(graph)
    operator.prepare("demonstrations", "always", 2)
    texts = node.published["guide"]
    assert texts[-1].data == operator.task and "then arm" in operator.task
    graph.control.state = ControlState.HOLD
    node.timer()
    node.timer()
    assert "Episode 1 of 2, 0 of 0" in texts[-1].data and len(texts) == 2, "once each"
    operator.finished(record("demonstrations", True))
    operator.finished(record("demonstrations", False))
    assert "1 of 2 succeeded. The learner" in texts[-1].data
    operator.tell("Done.")
    node.timer()
    assert texts[-1].data == "Done."


def test_person_result_names_both_rates():
    records = [record("policy", True), record("policy", False), record("expert", True)]
    assert "The policy alone: 1 of 2. You, on the same boards: 1 of 1." in person_result(records)
