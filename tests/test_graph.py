"""The whole simulated graph over DDS, in lock-step: what is sent, labelled, stopped, learned."""

import itertools
import signal
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile

from rlif_learner.data.labels import label_rewards
from rlif_learner.data.step_messages import record_from_message
from rlif_msgs.msg import ControlState, Decision, Episode, LearnerStatus, PolicyAction, Step

pytestmark = pytest.mark.ros

CONFIG = Path(__file__).parents[1] / "config"
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# package, executable, parameters that the launch file would pass
NODES = {
    "robot": ("rlif_sim", "robot", {"lock_step": True}),
    "operator": ("rlif_sim", "operator", {"lock_step": True}),
    "observer": ("rlif_policy", "observer", {"lock_step": True}),
    "policy": ("rlif_policy", "policy", {}),
    "arbiter": ("rlif_intervention", "arbiter", {"lock_step": True, "lock_step_timeout": 1.0}),
    "episode": ("rlif_intervention", "episode", {"auto_start": True, "pace": True}),
    "recorder": ("rlif_intervention", "recorder", {}),
    "learner": ("rlif_learner", "learner", {}),
}
FILES = {"robot": "sim_robot", "operator": "sim_operator"}


class Graph:
    """The running nodes, and all that was heard of them."""

    def __init__(self, node, start_node, run_directory, changes):
        self.steps, self.decisions, self.commands = [], [], []
        self.actions, self.states, self.episodes, self.status = [], [], [], []
        for kind, topic, heard, qos in (
            (Step, "replay", self.steps, 1000),
            (Decision, "decision", self.decisions, 100),
            (TwistStamped, "command", self.commands, 100),
            (PolicyAction, "policy_action", self.actions, 100),
            (ControlState, "control_state", self.states, LATCHED),
            (Episode, "episode", self.episodes, LATCHED),
            (LearnerStatus, "learner_status", self.status, LATCHED),
        ):
            node.create_subscription(kind, topic, heard.append, qos)
        self.processes = {}
        for name, (package, executable, parameters) in NODES.items():
            values = {"use_sim_time": name != "robot", **parameters, **changes.get(name, {})}
            if name in ("recorder", "learner"):
                values["run_directory"] = run_directory
            self.processes[name] = start_node(
                package,
                executable,
                files=[CONFIG / f"{FILES.get(name, name)}.yaml", CONFIG / "sim" / "robot.yaml"],
                remap={"servo_node/delta_twist_cmds": "command"} if name == "robot" else None,
                **values,
            )

    @property
    def ended(self):
        """Ids of the episodes whose last Step has arrived."""
        return [step.episode_id for step in self.steps if step.is_last]


@pytest.fixture
def graph(ros_node, start_node, tmp_path):
    return lambda **changes: Graph(ros_node, start_node, tmp_path, changes)


def complete_episodes(steps):
    """The Steps of each episode that has ended, in the order of their arrival."""
    groups = [list(group) for _, group in itertools.groupby(steps, key=lambda s: s.episode_id)]
    return [group for group in groups if group[-1].is_last]


def test_every_step_arrives_once_and_in_order_and_is_labelled_where_it_should(graph, spin_until):
    running = graph(episode={"pace": False, "max_steps": 15})
    spin_until(lambda: len(running.ended) >= 4, "four episodes", 60.0)
    steps = list(running.steps)
    first = steps[0].sequence
    assert [step.sequence for step in steps] == list(range(first, first + len(steps)))
    episodes = complete_episodes(steps)
    decisions = {(d.episode_id, d.step_index): d for d in running.decisions}
    # `replay` keeps what came before it was discovered, `decision` does not.
    heard = min(decisions)
    labelled = compared = 0
    for episode in episodes:
        assert [s.step_index for s in episode] == list(range(len(episode)))
        assert [s.is_first for s in episode] == [True] + [False] * (len(episode) - 1)
        assert episode[-1].outcome in (Episode.OUTCOME_SUCCESS, Episode.OUTCOME_TRUNCATED)
        assert not episode[-1].executed_action
        rewards, _ = label_rewards([record_from_message(step) for step in episode])
        for step, following, reward in zip(episode[:-1], episode[1:], rewards, strict=False):
            if (step.episode_id, step.step_index) >= heard:
                decision = decisions[step.episode_id, step.step_index]
                assert list(step.executed_action) == list(decision.executed_action)
                assert step.onset == decision.onset
                compared += 1
            expected = -1.0 if following.onset and step.source == Decision.POLICY else 0.0
            assert reward == expected, f"step {step.step_index} of episode {step.episode_id}"
            labelled += reward < 0.0
    assert labelled, "nobody took over after a step of the policy"
    assert compared > len(steps) / 2, "too few decisions were heard"


def test_a_killed_policy_leads_to_zeros_and_a_reason(graph, spin_until):
    running = graph(operator={"mode": "never"})
    spin_until(lambda: len(running.decisions) > 5, "the policy to drive", 60.0)
    running.processes["policy"].send_signal(signal.SIGKILL)
    spin_until(
        lambda: running.states and running.states[-1].state == ControlState.HOLD, "HOLD", 10.0
    )
    assert "policy" in running.states[-1].reason
    heard = len(running.commands)
    spin_until(lambda: len(running.commands) > heard + 3, "commands after the death")
    for command in running.commands[heard + 1 :]:
        linear = command.twist.linear
        assert (linear.x, linear.y, linear.z) == (0.0, 0.0, 0.0)


def test_a_weight_update_is_applied_while_everything_runs(graph, spin_until):
    running = graph(
        learner={"prior_episodes": 1, "warmup_steps": 10},
        episode={"pace": True, "max_steps": 20},
    )
    spin_until(
        lambda: running.actions and running.actions[-1].policy_version >= 3,
        "actions with learned weights", 90.0,
    )  # fmt: skip
    spin_until(  # topics are discovered one by one: the weights may act before the first status
        lambda: running.status and running.status[-1].updates > 0, "a status with updates", 30.0
    )
    assert running.status[-1].lost_steps == 0
    versions = [action.policy_version for action in running.actions]
    assert versions == sorted(versions)
