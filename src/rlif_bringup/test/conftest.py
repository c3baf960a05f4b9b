# SPDX-License-Identifier: Apache-2.0
"""A graph that is quick to drive: nodes `episode`, `policy`, `sim_operator`, `sim_robot` in a thread.

Episodes of ten steps follow each other as the parameters ask for; each start is recorded with
everything that was set at that moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rlif_node.qos import LATCHED_10
from std_srvs.srv import Trigger

from rlif_bringup.graph_client import GraphClient
from rlif_msgs.msg import ControlState, Episode, LearnerStatus

STEPS = 10
PARAMETERS = {
    "episode": {"auto_start": False, "evaluation": False, "pace": False, "max_episodes": 0},
    "policy": {"deterministic": False},
    "sim_operator": {"mode": "intervene"},
    "sim_robot": {"seed": 0},
}


class FakeGraph:
    """`starts`: the parameters with which each episode began, and the number of its board."""

    def __init__(
        self, without: str = "", slow_learner: bool = False, recorder: bool = False
    ) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
        self.nodes: dict[str, Node] = {}
        self.starts: list[dict[str, Any]] = []
        for name, parameters in PARAMETERS.items():
            if name == without:
                continue
            self.nodes[name] = rclpy.create_node(name, context=self.context)
            for parameter, value in parameters.items():
                self.nodes[name].declare_parameter(parameter, value)
        if recorder:
            self.nodes["recorder"] = rclpy.create_node("recorder", context=self.context)
            self.nodes["recorder"].declare_parameter("bag_directory", "")
        node = self.node = self.nodes["episode"]
        self.episodes = node.create_publisher(Episode, "episode", LATCHED_10)
        self.states = node.create_publisher(ControlState, "control_state", LATCHED_10)
        self.learner = node.create_publisher(LearnerStatus, "learner_status", LATCHED_10)
        node.create_service(Trigger, "reset", self.on_reset)
        node.add_on_set_parameters_callback(self.on_parameters)
        if "sim_robot" in self.nodes:
            self.nodes["sim_robot"].add_on_set_parameters_callback(self.on_seed)
        if "sim_operator" in self.nodes:
            self.nodes["sim_operator"].add_on_set_parameters_callback(self.on_mode)
        self.slow_learner = slow_learner
        self.id, self.started, self.sent, self.board = 0, 0, 0, 0
        self.ready = False
        self.states.publish(ControlState(state=ControlState.HOLD))
        self.learner.publish(LearnerStatus(caught_up=True))
        node.create_timer(0.01, self.episode)
        self.executor = SingleThreadedExecutor(context=self.context)
        for each in self.nodes.values():
            self.executor.add_node(each)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10.0)
        for each in self.nodes.values():
            each.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def value(self, node: str, name: str) -> object:
        return self.nodes[node].get_parameter(name).value

    def on_parameters(self, parameters: list) -> SetParametersResult:
        if any(p.name == "max_episodes" for p in parameters):
            self.started = 0
        return SetParametersResult(successful=True)

    def on_seed(self, parameters: list) -> SetParametersResult:
        self.board = 0
        return SetParametersResult(successful=True)

    def on_mode(self, parameters: list) -> SetParametersResult:
        known = all(p.value in ("intervene", "always", "never") for p in parameters)
        return SetParametersResult(successful=known, reason="" if known else "no such mode")

    def on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.board += 1
        response.success = True
        return response

    def episode(self) -> None:
        maximum = self.value("episode", "max_episodes")
        if not self.value("episode", "auto_start") or 0 < maximum <= self.started:
            return
        if not self.ready:
            self.id += 1
            self.publish(Episode.RESETTING)
            self.board += 1
            self.publish(Episode.READY)
            self.ready = True
            return
        self.started += 1
        self.ready = False
        now = {f"{n}.{p}": self.value(n, p) for n in self.nodes for p in PARAMETERS.get(n, {})}
        self.starts.append({**now, "board": self.board})
        self.publish(Episode.RUNNING)
        self.publish(Episode.ENDED)

    def publish(self, phase: int) -> None:
        message = Episode(id=self.id, phase=phase)
        message.evaluation = self.value("episode", "evaluation")
        if phase == Episode.ENDED:
            mode = self.value("sim_operator", "mode")
            message.steps = STEPS
            message.operator_steps = {"always": STEPS, "intervene": 4, "never": 0}[mode]
            message.interventions = int(mode == "intervene")
            succeeds = mode == "never" or self.id % 2
            message.outcome = Episode.OUTCOME_SUCCESS if succeeds else Episode.OUTCOME_TRUNCATED
            if not message.evaluation:
                self.sent += STEPS + 1
            self.learner.publish(
                LearnerStatus(steps=self.sent, updates=self.sent, caught_up=not self.slow_learner)
            )
        self.episodes.publish(message)


@pytest.fixture
def start_graph() -> Iterator[Callable[..., tuple[FakeGraph, GraphClient]]]:
    """`start_graph(without="policy", slow_learner=True)`: the graph, and a client of it."""
    opened: list[Any] = []

    def start(**options: Any) -> tuple[FakeGraph, GraphClient]:
        graph = FakeGraph(**options)
        client = GraphClient("", int(os.environ["ROS_DOMAIN_ID"]), lambda: None)
        opened.extend((graph.close, lambda: client.__exit__(None, None, None)))
        return graph, client

    yield start
    for close in reversed(opened):
        close()
