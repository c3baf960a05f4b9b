# SPDX-License-Identifier: Apache-2.0
"""Driving a graph through phases, over DDS, with a graph that is quick to drive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from waiting import scaled

from rlif_bringup import session
from rlif_bringup.graph_client import GraphError
from rlif_bringup.progress import Snapshot
from rlif_bringup.session import Phase, Session
from rlif_bringup.summary import of_phase

PHASES = [
    Phase("demonstrations", "always", episodes=3),
    Phase("training", "intervene", env_steps=100),
    Phase("policy", "never", episodes=4, evaluation=True, boards=77),
    Phase("expert", "always", episodes=4, evaluation=True, boards=77),
]
StartGraph = Callable[..., Any]


@pytest.mark.ros
def test_session_runs_all_phases_with_what_they_ask_for(start_graph: StartGraph) -> None:
    graph, client = start_graph()
    snapshots: list[Snapshot] = []
    run = Session(client, snapshots.append, PHASES, learner=True)
    run.wait_until_up()
    for phase in PHASES:
        run.run(phase)
        if phase is PHASES[0]:
            demonstrated = snapshots[-1]
    records = run.records
    client.wait(lambda: len(graph.starts) >= len(records), "all starts", scaled(20.0))
    starts = list(graph.starts)

    counts = {phase.name: len(of_phase(records, phase.name)) for phase in PHASES}
    assert counts["demonstrations"] == 3
    assert counts["policy"] == counts["expert"] == 4
    assert counts["training"] in (7, 8), "100 steps in all, one more may have begun"
    assert [r.id for r in records] == list(range(1, len(records) + 1)), "none lost"
    for record, parameters in zip(records, starts, strict=True):
        phase = next(p for p in PHASES if p.name == record.phase)
        assert parameters["sim_operator.mode"] == phase.mode
        assert parameters["episode.evaluation"] == phase.evaluation
        assert parameters["policy.deterministic"] == phase.evaluation
        assert parameters["episode.pace"] == (not phase.evaluation)
    training = of_phase(records, "training")
    assert training[-1].env_steps == 10 * (3 + len(training))
    assert records[-1].env_steps == training[-1].env_steps, "evaluation does not count"

    judged = [s for s in starts if s["episode.evaluation"]]
    assert [s["board"] for s in judged] == [1, 2, 3, 4, 1, 2, 3, 4], "both on the same boards"
    assert {s["sim_robot.seed"] for s in judged} == {77}

    shown = demonstrated
    assert (shown.phase, shown.phase_number, shown.phases) == ("demonstrations", 1, 4)
    assert shown.env_steps == 30 and shown.operator_share == 1.0
    assert "3" in shown.line()


@pytest.mark.ros
def test_session_without_a_node_names_it(
    start_graph: StartGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = start_graph(without="policy")
    client.parameters("episode", scaled(20.0))  # discovered, so that only the policy is missing
    monkeypatch.setattr(session, "START", 0.3)
    with pytest.raises(GraphError, match="waiting for the parameter services of /policy"):
        Session(client, lambda _: None, PHASES, learner=True).wait_until_up()


@pytest.mark.ros
def test_session_with_a_learner_that_does_not_catch_up_names_it(
    start_graph: StartGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = start_graph(slow_learner=True)
    run = Session(client, lambda _: None, PHASES, learner=True)
    run.wait_until_up()
    monkeypatch.setattr(session, "LEARN", 0.3)
    with pytest.raises(GraphError, match="the learner to work through the last steps"):
        run.run(PHASES[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "sometimes", "episodes": 1}, "found 'sometimes'"),
        ({"mode": "never"}, "expected a number of episodes or of env_steps"),
        ({"mode": "never", "episodes": 1, "env_steps": 1}, "found 1 and 1"),
    ],
)
def test_phase_that_makes_no_sense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Phase("x", **arguments)
