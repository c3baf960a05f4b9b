# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a graph of nodes in this process, and the clock that they measure time-outs with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ros_graph import Graph, SteadyClock


@pytest.fixture
def make_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Graph]]:
    """A function that makes a Graph; closed after the test. Its arbiter acts at once."""
    from ros_graph import Graph

    monkeypatch.setattr("rlif_intervention.arbiter_node.LISTEN_BEATS", 0)
    made: list[Graph] = []

    def make(lock_step: bool = True) -> Graph:
        made.append(Graph(lock_step))
        return made[-1]

    yield make
    for graph in made:
        graph.close()


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> SteadyClock:
    """The steady clock of all nodes of this package in this process."""
    from ros_graph import SteadyClock

    clock = SteadyClock()
    for name in ("arbiter", "episode", "gripper", "recorder", "watchdog"):
        module = importlib.import_module(f"rlif_intervention.{name}_node")
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("rlif_node.stamps.time", clock)
    return clock


@pytest.fixture
def real_time(make_graph: Callable[..., Graph], steady: SteadyClock) -> Callable[..., Graph]:
    """`real_time(policy_timeout=0.5)`: an arbiter on timers, with all that it needs, disarmed."""

    def make(**values: Any) -> Graph:
        graph = make_graph(lock_step=False)
        graph.add_arbiter(**values)
        graph.world.run_in_real_time(steady)
        return graph

    return make
