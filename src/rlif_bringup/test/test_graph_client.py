# SPDX-License-Identifier: Apache-2.0
"""The client of a graph: every request has a deadline, and a failure names the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlif_bringup import graph_client
from rlif_bringup.graph_client import GraphError
from rlif_msgs.msg import ControlState

pytestmark = pytest.mark.ros


def test_graph_client_refusals_and_silence_are_named(
    start_graph: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, client = start_graph()
    with pytest.raises(GraphError, match="/sim_operator refuses mode='sometimes': no such mode"):
        client.set_parameters("sim_operator", mode="sometimes")
    client.trigger("reset")
    assert graph.board == 1
    monkeypatch.setattr(graph_client, "ANSWER", 0.3)
    with pytest.raises(GraphError, match="timed out after 0 s waiting for the service /nothing"):
        client.trigger("nothing")


def test_graph_client_counts_a_repeated_fault_once(start_graph: Callable[..., Any]) -> None:
    """Regression: control_state comes at 1 Hz, and each message with its stamp was another fault."""
    _, client = start_graph()
    client.faults = 0
    for second, state in enumerate((ControlState.FAULT, ControlState.FAULT, ControlState.HOLD)):
        message = ControlState(state=state)
        message.header.stamp.sec = second
        client._on_control(message)
    client._on_control(ControlState(state=ControlState.FAULT))
    assert client.faults == 2
