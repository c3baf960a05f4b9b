"""Leading a graph through phases, over DDS, with a graph that is quick to lead."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlif_bringup import graph_client, session
from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.launch_file import Process
from rlif_bringup.processes import Processes
from rlif_bringup.progress import Snapshot
from rlif_bringup.session import Phase, Session
from rlif_bringup.summary import of_phase

pytestmark = pytest.mark.ros

FAKE = str(Path(__file__).with_name("fake_graph.py"))
PHASES = [
    Phase("demonstrations", "always", episodes=3),
    Phase("training", "intervene", env_steps=100),
    Phase("policy", "never", episodes=4, evaluation=True, boards=77),
    Phase("expert", "always", episodes=4, evaluation=True, boards=77),
]


class Rig:
    def __init__(self, graph: GraphClient, lines: list[str]) -> None:
        self.graph, self.lines = graph, lines
        self.snapshots: list[Snapshot] = []

    def session(self) -> Session:
        return Session(self.graph, self.snapshots.append, PHASES, learner=True)

    def started(self, episodes: int) -> list[dict[str, object]]:
        """The parameters with which each episode began; what the graph prints may come later than
        what it publishes."""

        def found() -> list[dict[str, object]]:
            return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

        self.graph.wait(lambda: len(found()) >= episodes, f"{episodes} starts", 20.0)
        return found()


@pytest.fixture
def start() -> Iterator[Callable[..., Rig]]:
    opened: list[object] = []

    def start(*options: str) -> Rig:
        lines: list[str] = []
        command = (sys.executable, "-u", FAKE, *options)
        process = Process("fake", command, os.environ)
        processes = Processes([process], lambda _, line: lines.append(line)).__enter__()
        opened.append(processes)

        def check() -> None:
            for exit_ in processes.ended():
                raise GraphError(f"{exit_}: {lines}")

        graph = GraphClient("", int(os.environ["ROS_DOMAIN_ID"]), check).__enter__()
        opened.append(graph)
        return Rig(graph, lines)

    yield start
    for one in reversed(opened):
        one.__exit__(None, None, None)  # type: ignore[attr-defined]


def test_all_phases_run_with_what_they_ask_for(start: Callable[..., Rig]) -> None:
    rig = start()
    led = rig.session()
    led.wait_until_up()
    for phase in PHASES:
        led.run(phase)
    counts = {phase.name: len(of_phase(led.records, phase.name)) for phase in PHASES}
    assert counts["demonstrations"] == 3
    assert counts["policy"] == counts["expert"] == 4
    assert counts["training"] in (7, 8), "100 steps in all, one more may have begun"
    assert [r.id for r in led.records] == list(range(1, len(led.records) + 1)), "none lost"
    started = rig.started(len(led.records))
    assert len(started) == len(led.records)
    for record, parameters in zip(led.records, started, strict=True):
        phase = next(p for p in PHASES if p.name == record.phase)
        assert parameters["sim_operator.mode"] == phase.mode
        assert parameters["episode.evaluation"] == phase.evaluation
        assert parameters["policy.deterministic"] == phase.evaluation
        assert parameters["episode.pace"] == (not phase.evaluation)
    training = of_phase(led.records, "training")
    assert training[-1].env_steps == 10 * (3 + len(training))
    assert led.records[-1].env_steps == training[-1].env_steps, "evaluation does not count"


def test_policy_and_expert_are_judged_on_the_same_boards(start: Callable[..., Rig]) -> None:
    rig = start()
    led = rig.session()
    led.wait_until_up()
    for phase in PHASES:
        led.run(phase)
    started = rig.started(len(led.records))
    judged = [s for s in started if s["episode.evaluation"]]
    assert [s["board"] for s in judged] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert {s["sim_robot.seed"] for s in judged} == {77}


def test_a_node_that_is_not_there_is_named(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "START", 3.0)
    rig = start("--without", "policy")
    with pytest.raises(GraphError, match="in vain for the parameter services of /policy"):
        rig.session().wait_until_up()


def test_a_refused_parameter_is_named(start: Callable[..., Rig]) -> None:
    rig = start()
    with pytest.raises(GraphError, match="/sim_operator refuses mode='sometimes': no such mode"):
        rig.graph.set_parameters("sim_operator", mode="sometimes")


def test_a_learner_that_does_not_catch_up_is_named(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LEARN", 1.0)
    rig = start("--slow-learner")
    led = rig.session()
    led.wait_until_up()
    with pytest.raises(GraphError, match="the learner to work through the last steps"):
        led.run(PHASES[0])


def test_a_node_that_does_not_answer_is_named(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_client, "ANSWER", 0.5)
    rig = start()
    with pytest.raises(GraphError, match="0 s in vain for the service /nothing"):
        rig.graph.trigger("nothing")


def test_a_display_gets_every_phase(start: Callable[..., Rig]) -> None:
    rig = start()
    led = rig.session()
    led.wait_until_up()
    led.run(PHASES[0])
    last = rig.snapshots[-1]
    assert (last.phase, last.phase_number, last.phases) == ("demonstrations", 1, 4)
    assert last.env_steps == 30
    assert last.operator_share == 1.0
    assert "3" in last.line()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "sometimes", "episodes": 1}, "found 'sometimes'"),
        ({"mode": "never"}, "expected a number of episodes or of env_steps"),
        ({"mode": "never", "episodes": 1, "env_steps": 1}, "found 1 and 1"),
    ],
)
def test_a_phase_that_makes_no_sense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Phase("x", **arguments)
