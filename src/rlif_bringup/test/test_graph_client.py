# SPDX-License-Identifier: Apache-2.0
"""The client of a graph: every request has a deadline, and a failure names the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlif_bringup import graph_client
from rlif_bringup.graph_client import GraphError

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
