# SPDX-License-Identifier: Apache-2.0
"""Servo's services as one call that never blocks."""

from __future__ import annotations

import pytest

from rlif_moveit.interfaces import COMMAND_TYPES, ServoInterfaces
from rlif_moveit.servo_client import ServoClient
from rlif_moveit.servo_status import Dialect
from rlif_moveit.supervision import Request

pytestmark = pytest.mark.ros
TWIST = COMMAND_TYPES["twist"]


@pytest.mark.parametrize(
    ("dialect", "requests", "asked"),
    [
        (
            Dialect.JAZZY,
            (Request.SELECT, Request.PAUSE, Request.UNPAUSE),
            ["select 1", "pause", "unpause"],
        ),
        (Dialect.HUMBLE, (Request.PAUSE, Request.UNPAUSE), ["pause", "unpause"]),
    ],
)
def test_ask_of_each_request_reaches_servo(
    bench, stand_in_servo, interfaces_of, dialect, requests, asked
):
    servo = bench.add(stand_in_servo(dialect))
    client = ServoClient(bench.node, "servo_node", dialect, interfaces_of(dialect), TWIST)
    bench.until(lambda: client.ready, "Servo's services")
    problems = []
    for count, request in enumerate(requests, 1):
        client.ask(request, problems.append)
        bench.until(lambda count=count: len(problems) == count, "the answer")
    assert problems == [""] * len(requests) and servo.asked == asked


def test_ask_that_is_refused_passes_the_reason(bench, stand_in_servo, interfaces_of):
    servo = bench.add(stand_in_servo())
    servo.refuses = True
    interfaces = interfaces_of(Dialect.JAZZY)
    client = ServoClient(bench.node, "servo_node", Dialect.JAZZY, interfaces, TWIST)
    bench.until(lambda: client.ready, "Servo's services")
    problems = []
    client.ask(Request.SELECT, problems.append)
    bench.until(lambda: problems, "the answer")
    assert problems == ["refused without a reason"]


def test_client_for_jazzy_without_the_selecting_service_is_refused(bench, interfaces_of):
    interfaces = interfaces_of(Dialect.HUMBLE)
    assert isinstance(interfaces, ServoInterfaces)
    with pytest.raises(ValueError, match="switch_command_type"):
        ServoClient(bench.node, "servo_node", Dialect.JAZZY, interfaces, TWIST)
