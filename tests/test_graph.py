# SPDX-License-Identifier: Apache-2.0
"""The simulated graph over DDS, in lock-step, started once from its launch file and driven to its end.

`graph` runs it; each test checks one thing of what it left: the interfaces of the nodes, the Steps,
their labels, the images to the last bit, learned weights, and the reaction to a killed policy.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import TwistStamped
from rclpy.qos import QoSProfile
from rlif_node.qos import LATCHED_10, REPLAY
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Image
from waiting import scaled

from rlif_bags.reading.step_reader import StepReader
from rlif_bringup.graph_client import GraphClient
from rlif_bringup.launch_file import read
from rlif_bringup.processes import Processes
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.step_messages import record_from_message
from rlif_learner.data.steps import StepRecord
from rlif_msgs.msg import ControlState, Decision, Episode, LearnerStatus, PolicyAction, Step
from rlif_policy.images import CameraSpec, RawImage, to_rgb

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
ROS_TOPICS = {"/rosout", "/parameter_events", "/clock"}
COMMAND = "servo_node/delta_twist_cmds"
# As it comes, and a region of it that is resized.
SPECS = (
    CameraSpec("wrist", 64, 48, 64, 48, ()),
    CameraSpec("fixed", 64, 48, 64, 48, (8, 4, 50, 40)),
)
SMALL = {  # what the robot's file says otherwise
    "max_steps": 15, "lock_step_timeout": 3.0, "camera_width": 64, "camera_height": 48,
    "image_width": 64, "image_height": 48, "warmup_steps": 10, "hidden": [16],
}  # fmt: skip


@dataclass
class Graph:
    """What the nodes did.

    received: messages by topic; images: by stamp and camera, as an observation has them
    declared: parameters by node; topics: (node, Publishes or Subscribes) to names
    at_hold: number of commands received until HOLD was reported; exits: codes by node
    """

    bag: Path
    names: set[str]
    received: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    images: dict[int, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    declared: dict[str, set[str]] = field(default_factory=dict)
    topics: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    at_hold: int = 0
    exits: dict[str, int] = field(default_factory=dict)

    @property
    def episodes(self) -> list[list[Step]]:
        """The Steps of each episode that has ended, in the order of their arrival."""
        by_id = itertools.groupby(self.received["replay"], key=lambda step: step.episode_id)
        return [episode for _, steps in by_id if (episode := list(steps))[-1].is_last]

    def listen(self, client: GraphClient) -> None:
        for kind, topic, qos in (
            (Step, "replay", REPLAY),
            (Decision, "decision", 1000),
            (TwistStamped, COMMAND, 1000),
            (PolicyAction, "policy_action", 1000),
            (ControlState, "control_state", LATCHED_10),
            (LearnerStatus, "learner_status", LATCHED_10),
        ):
            client.node.create_subscription(kind, topic, self.received[topic].append, qos)
        for spec in SPECS:

            def keep(m: Image, spec: CameraSpec = spec) -> None:
                raw = RawImage(
                    m.width, m.height, m.encoding, m.step, np.frombuffer(m.data, np.uint8)
                )
                self.images[to_ns(m.header.stamp)][spec.name] = to_rgb(raw, spec)

            client.node.create_subscription(
                Image, f"camera/{spec.name}/image", keep, QoSProfile(depth=2000)
            )


def write_config(directory: Path) -> Path:
    """The shipped configuration, with small images, networks and episodes for the robot `sim`."""
    shutil.copytree(ROOT / "config", directory)
    path = directory / "sim" / "robot.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = content["/**"]["ros__parameters"]
    values |= SMALL
    values["rlpd"] |= {"hidden": [16], "ensemble_size": 2, "batch_size": 16}
    for spec in SPECS:
        values |= {f"camera.{spec.name}.width": 64, f"camera.{spec.name}.height": 48}
        values |= {f"camera.{spec.name}.roi": list(spec.roi)} if spec.roi else {}
    path.write_text(json.dumps(content), encoding="utf-8")  # YAML too, and quotes the axis y
    return directory


def read_interfaces(graph: Graph, client: GraphClient) -> None:
    """Parameters and topics that the running nodes really have."""
    node = client.node
    ask: dict[str, Callable[..., Any]] = {
        "Publishes": node.get_publisher_names_and_types_by_node,
        "Subscribes": node.get_subscriber_names_and_types_by_node,
    }
    what = f"the nodes {sorted(graph.names)}"
    client.wait(lambda: graph.names <= set(node.get_node_names()), what, scaled(120.0))
    for name in sorted(graph.names):
        graph.declared[name] = set(client.parameters(name, scaled(60.0)))
        for kind in ask:

            def found(kind: str = kind, name: str = name) -> set[str]:
                return {topic for topic, _ in ask[kind](name, "/rlif")} - ROS_TOPICS

            client.wait(found, f"{kind} of {name}", scaled(60.0))
            graph.topics[name, kind] = {
                topic.removeprefix("/rlif").lstrip("/") for topic in found()
            }


def drive(graph: Graph, client: GraphClient, processes: Processes) -> None:
    """Learn until weights have been used, then kill the policy, then end the recorder."""
    received = graph.received
    states, commands = received["control_state"], received[COMMAND]

    def learned() -> bool:
        actions, status = received["policy_action"], received["learner_status"]
        used = actions and actions[-1].policy_version >= 3 and status and status[-1].updates > 0
        return bool(used) and len(graph.episodes) >= 4

    def held() -> bool:
        return states[-1].state == ControlState.HOLD and "policy" in states[-1].reason

    client.wait(learned, "four episodes, and actions with learned weights", scaled(90.0))
    client.set_parameters("sim_operator", mode="never")
    driving = lambda: states[-1].state == ControlState.POLICY  # noqa: E731
    client.wait(driving, "the policy to drive", scaled(60.0))
    os.kill(processes.pids["policy"], signal.SIGKILL)
    client.wait(held, "HOLD with the reason", scaled(30.0))
    graph.at_hold = len(commands)
    client.wait(lambda: len(commands) > graph.at_hold + 3, "commands in HOLD", scaled(20.0))
    os.kill(processes.pids["recorder"], signal.SIGINT)
    client.wait(lambda: "recorder" in graph.exits, "the end of the recorder", scaled(30.0))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    directory = tmp_path_factory.mktemp("graph")
    values = {
        "config_directory": str(write_config(directory / "config")), "images": "true",
        "run_directory": str(directory / "run"), "bag_directory": str(directory / "bag"),
        "prior_episodes": "1",
    }  # fmt: skip
    nodes = read(ROOT / "launch" / "sim.launch.yaml", values, os.environ).processes
    graph = Graph(directory / "bag", {process.name for process in nodes})
    lines: list[str] = []
    running: list[Processes] = []

    def check() -> None:
        for end in (end for started in running for end in started.ended()):
            graph.exits[end.process.name] = end.code
            assert end.process.name in ("policy", "recorder"), f"{end}: {lines[-20:]}"

    def start(names: set[str]) -> Processes:
        chosen = [process for process in nodes if process.name in names]
        running.append(Processes(chosen, lambda name, line: lines.append(f"{name}: {line}")))
        return running[-1]

    with GraphClient("rlif", int(os.environ["ROS_DOMAIN_ID"]), check) as client:
        graph.listen(client)
        with start({"sim_robot"}):
            # What the cameras send before this test is discovered would be missing below.
            images = graph.images
            both = lambda: any(len(pair) == 2 for pair in images.values())  # noqa: E731
            client.wait(both, "images of both cameras", scaled(60.0))
            with start(graph.names - {"sim_robot"}) as others:
                read_interfaces(graph, client)
                drive(graph, client, others)
    return graph


def keys(path: Path) -> set[str]:
    """Names of the parameters that a file sets; nested ones with dots."""

    def flat(prefix: str, values: dict[str, object]) -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(f"{prefix}{key}.", value)
            else:
                yield prefix + key

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key for node in content.values() for key in flat("", node["ros__parameters"])}


def test_graph_topics_are_those_of_the_docstrings(graph: Graph, reference: ModuleType) -> None:
    recorder = yaml.safe_load((ROOT / "config" / "recorder.yaml").read_text(encoding="utf-8"))
    recorded = set(recorder["/**"]["ros__parameters"]["topics"])
    checked = 0
    for node in reference.node_references():
        for kind in ("Publishes", "Subscribes") if node.name in graph.names else ():
            claimed = {
                name.lstrip("/") for e in node.endpoints if e.kind == kind for name in e.names
            }
            claimed |= {COMMAND} if node.name == "arbiter" else set()
            claimed |= recorded if (node.name, kind) == ("recorder", "Subscribes") else set()
            found = {t for t in graph.topics[node.name, kind] if not t.startswith("camera/")}
            assert found <= claimed, f"{node.name} {kind.lower()} what its docstring does not list"
            checked += len(found)
    assert checked > 20


def test_graph_parameter_files_set_only_what_nodes_declare(graph: Graph) -> None:
    """A name with a slip would do nothing."""
    for name, declared in graph.declared.items():
        unknown = keys(ROOT / "config" / f"{name}.yaml") - declared
        assert not unknown, f"config/{name}.yaml sets what the node does not declare"
    unknown = keys(ROOT / "config" / "sim" / "robot.yaml") - set().union(*graph.declared.values())
    assert not unknown, "config/sim/robot.yaml sets what no node declares"


def test_graph_steps_arrive_once_in_order_and_labelled(graph: Graph) -> None:
    """The onset label end to end; its rules have unit tests in rlif_learner/test/test_labels.py."""
    steps = graph.received["replay"]
    first = steps[0].sequence
    assert [step.sequence for step in steps] == list(range(first, first + len(steps)))
    decisions = {(d.episode_id, d.step_index): d for d in graph.received["decision"]}
    discovered = min(decisions)  # `replay` keeps what came before a discovery, `decision` does not
    labelled = compared = 0
    for episode in graph.episodes:
        assert [s.step_index for s in episode] == list(range(len(episode)))
        assert [s.is_first for s in episode] == [True] + [False] * (len(episode) - 1)
        outcomes = (Episode.OUTCOME_SUCCESS, Episode.OUTCOME_TRUNCATED)
        assert episode[-1].outcome in outcomes and not episode[-1].executed_action
        rewards, _ = label_rewards([record_from_message(step) for step in episode])
        for step, following, reward in zip(episode[:-1], episode[1:], rewards, strict=False):
            if (step.episode_id, step.step_index) >= discovered:
                decision = decisions[step.episode_id, step.step_index]
                assert list(step.executed_action) == list(decision.executed_action)
                assert step.onset == decision.onset
                compared += 1
            expected = -1.0 if following.onset and step.source == Decision.POLICY else 0.0
            assert reward == expected, f"step {step.step_index} of episode {step.episode_id}"
            labelled += reward < 0.0
    assert labelled, "nobody took over after a step of the policy"
    assert compared > len(steps) / 2, "too few decisions were received"


def test_graph_steps_of_the_operator_tell_what_the_policy_asked_for(graph: Graph) -> None:
    asked = {answer.tick: answer.action for answer in graph.received["policy_action"]}
    driven = [s for s in graph.received["replay"] if s.source == Decision.OPERATOR]
    compared = 0
    for step in driven:
        refused = record_from_message(step).refused_action.tolist()
        if step.tick in asked:
            assert refused == list(asked[step.tick]), f"tick {step.tick}"
            compared += 1
    assert compared > len(driven) / 2, "too few answers of the policy were received"


def test_graph_weights_are_applied_in_order_and_nothing_is_lost(graph: Graph) -> None:
    status = graph.received["learner_status"][-1]
    assert status.updates > 0 and status.lost_steps == 0
    versions = [action.policy_version for action in graph.received["policy_action"]]
    assert versions == sorted(versions) and versions[-1] >= 3


def test_graph_with_a_killed_policy_sends_zeros(graph: Graph) -> None:
    assert graph.exits == {"policy": -signal.SIGKILL, "recorder": 0}
    after = graph.received[COMMAND][graph.at_hold + 1 :]
    assert after
    for command in after:
        linear = command.twist.linear
        assert (linear.x, linear.y, linear.z) == (0.0, 0.0, 0.0)


def transitions(records: Iterable[StepRecord]) -> ReplayBuffer:
    records = list(records)
    state, action = len(records[0].state), len(records[0].action)
    buffer = ReplayBuffer(len(records) + 2, state, action, ((48, 64, 3),) * len(SPECS))
    for record in records:
        buffer.add_step(record)
    return buffer


def check_batch(buffer: ReplayBuffer, expected: dict[bytes, tuple[np.ndarray, ...]]) -> int:
    """Transitions of a batch have the images of their two states; returns how many states differ."""
    batch = buffer.sample(512, np.random.default_rng(0))
    found = set()
    for row in range(512):
        pairs = ((batch.states, batch.images), (batch.next_states, batch.next_images))
        for states, images in pairs:
            state = states[row].numpy().tobytes()
            found.add(state)
            for image, wanted in zip(images, expected[state], strict=True):
                assert image[row].numpy().tobytes() == wanted.tobytes()
    return len(found)


def test_graph_images_in_a_batch_are_the_cameras_to_the_last_bit(graph: Graph) -> None:
    live = {step.sequence: step for step in graph.received["replay"]}
    stored = {r.sequence: r for r in StepReader(graph.bag) if r.sequence in live}
    assert set(stored) == set(live)
    names = [spec.name for spec in SPECS]
    sent = {n: graph.images[to_ns(step.header.stamp)] for n, step in live.items()}
    # A machine that stood still for a moment may have lost an image on its way to this test.
    lost = {live[n].episode_id for n, images in sent.items() if set(images) != set(names)}
    checked = [n for n in sorted(live) if live[n].episode_id not in lost]
    assert len(checked) > len(live) / 2 and len(checked) > 20
    expected = {}
    for sequence in checked:
        images, record = sent[sequence], stored[sequence]
        expected[record.state.tobytes()] = tuple(images[name] for name in names)
        assert list(live[sequence].camera_names) == names
        assert [i.header.frame_id for i in live[sequence].images] == [f"{n}_camera" for n in names]
        for name, image in zip(names, record.images, strict=True):
            assert image.tobytes() == images[name].tobytes(), f"{name}, step {sequence}"
    assert len(expected) == len(checked), "two states are the same: a pair would not be checked"
    distinct = {images[0].tobytes() for images in expected.values()}
    assert len(distinct) > 10, "the images must differ, or any would do"
    for records in (
        [record_from_message(live[sequence]) for sequence in checked],
        [stored[sequence] for sequence in checked],
    ):
        assert check_batch(transitions(records), expected) > 15
