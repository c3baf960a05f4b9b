"""A graph that is quick to lead: nodes `episode`, `policy`, `sim_operator`, `sim_robot`.

Episodes of ten steps follow each other as the parameters ask for; each start prints one line of
JSON with everything that was set at that moment. Options: --without NODE, --slow-learner.
"""

from __future__ import annotations

import json
import sys

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import Trigger

from rlif_msgs.msg import ControlState, Episode, LearnerStatus

STEPS = 10
PARAMETERS = {
    "episode": {"auto_start": False, "evaluation": False, "pace": False, "max_episodes": 0},
    "policy": {"deterministic": False},
    "sim_operator": {"mode": "intervene"},
    "sim_robot": {"seed": 0},
}


class FakeGraph:
    def __init__(self, without: str, slow_learner: bool) -> None:
        self.nodes: dict[str, Node] = {}
        for name, parameters in PARAMETERS.items():
            if name == without:
                continue
            self.nodes[name] = rclpy.create_node(name)
            for parameter, value in parameters.items():
                self.nodes[name].declare_parameter(parameter, value)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node = self.node = self.nodes["episode"]
        self.episodes = node.create_publisher(Episode, "episode", latched)
        self.states = node.create_publisher(ControlState, "control_state", latched)
        self.learner = node.create_publisher(LearnerStatus, "learner_status", latched)
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
        now = {f"{n}.{p}": self.value(n, p) for n in self.nodes for p in PARAMETERS[n]}
        print(json.dumps({**now, "board": self.board}), flush=True)
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


def main() -> None:
    without = sys.argv[sys.argv.index("--without") + 1] if "--without" in sys.argv else ""
    rclpy.init()
    executor = SingleThreadedExecutor()
    graph = FakeGraph(without, "--slow-learner" in sys.argv)
    for node in graph.nodes.values():
        executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        return


if __name__ == "__main__":
    main()
