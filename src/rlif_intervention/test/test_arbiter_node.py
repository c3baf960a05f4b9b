"""The arbiter as a node, over DDS, with a stand-in world."""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.stamps import to_msg, to_ns
from std_msgs.msg import Bool

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_msgs.msg import ControlState, Decision, InterventionEvent

pytestmark = pytest.mark.ros


def params(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


def lock_step(**values):
    defaults = {"use_sim_time": True, "lock_step": True, "release_dwell": 0.0}
    return params(**(defaults | values))


def state(graph):
    seen = graph.world.seen["control_state"]
    return seen[-1].state if seen else None


def start(graph, **values):
    """A lock-step graph, armed, its world going."""
    node = graph.add(ArbiterNode(lock_step(**values)))
    graph.world.publish_set()
    graph.until(lambda: state(graph) == ControlState.DISARMED, what="DISARMED at start")
    graph.until(lambda: graph.world.seen["command"], what="idle zeros")
    assert graph.arm().success
    return node


def decisions(graph, count, seconds=15.0):
    graph.until(lambda: len(graph.world.seen["decision"]) >= count, seconds, f"{count} decisions")
    return graph.world.seen["decision"]


def test_every_tick_of_an_episode_is_one_decision_and_one_command_of_its_stamp(make_graph):
    graph = make_graph()
    start(graph)
    graph.world.run_episode(1, max_steps=20)
    found = decisions(graph, 20)
    assert [d.step_index for d in found] == list(range(20))
    stamps = [to_ns(d.header.stamp) for d in found]
    assert {b - a for a, b in itertools.pairwise(stamps)} == {100_000_000}
    assert {d.source for d in found} == {Decision.POLICY}
    assert found[5].policy_action[0] == 0.5 and found[5].executed_action[0] == 0.5
    commands = {to_ns(c.header.stamp): c for c in graph.world.seen["command"]}
    assert [commands[s].twist.linear.x for s in stamps] == pytest.approx([0.05] * 20)
    assert commands[stamps[0]].header.frame_id == "base"
    # Not one step beyond max_steps, and zeros from there on.
    count = len(graph.world.seen["command"])
    graph.until(lambda: len(graph.world.seen["command"]) >= count + 3, what="idle zeros")
    assert len(graph.world.seen["decision"]) == 20
    assert all(c.twist.linear.x == 0.0 for c in graph.world.seen["command"][-2:])


def test_a_take_over_is_onset_once_and_its_action_is_executed_in_the_same_tick(make_graph):
    graph = make_graph()

    def hand(tick):
        seen = len(graph.world.seen["decision"])
        return (3 <= seen < 6, [0.0, 1.0, 0.0])

    graph.world.operator = hand
    start(graph)
    graph.world.run_episode(1, max_steps=12)
    found = decisions(graph, 12)
    driven = [d.step_index for d in found if d.source == Decision.OPERATOR]
    assert len(driven) >= 3 and driven == list(range(driven[0], driven[-1] + 1))
    assert [d.step_index for d in found if d.onset] == driven[:1]
    assert list(found[driven[0]].executed_action) == [0.0, 1.0, 0.0]
    assert list(found[driven[0]].policy_action) == [0.5, 0.0, 0.0]
    assert {d.intervention_id for d in found} == {0, 1}
    graph.until(lambda: len(graph.world.seen["intervention"]) >= 2, what="STARTED and ENDED")
    events = graph.world.seen["intervention"]
    assert [e.event for e in events] == [InterventionEvent.STARTED, InterventionEvent.ENDED]
    assert events[0].step_index == driven[0] and events[1].duration > 0.0
    assert events[0].device == "joy"


def test_a_policy_that_dies_leads_to_zeros_and_a_reason_and_goes_on_when_it_is_back(make_graph):
    graph = make_graph()
    start(graph, lock_step_timeout=0.3)
    graph.world.run_episode(1)
    decisions(graph, 5)
    graph.world.policy = lambda tick: None
    graph.world.operator = lambda tick: None
    graph.until(lambda: state(graph) == ControlState.HOLD, what="HOLD")
    words = graph.world.seen["control_state"][-1].reason
    assert "policy_action" in words and "joy" in words
    assert graph.world.seen["command"][-1].twist.linear.x == 0.0
    graph.world.policy = lambda tick: [0.5, 0.0, 0.0]
    graph.world.operator = lambda tick: (False, [0.0, 0.0, 0.0])
    graph.until(lambda: state(graph) == ControlState.POLICY, what="POLICY again")
    found = decisions(graph, len(graph.world.seen["decision"]) + 3)
    assert [d.step_index for d in found] == list(range(len(found)))
    held = [d for d in found if d.source == Decision.NONE]
    assert held and all(not any(d.executed_action) for d in held)


def test_not_a_number_from_the_policy_is_a_fault_until_a_human_re_arms(make_graph):
    graph = make_graph()
    start(graph)
    graph.world.run_episode(1)
    decisions(graph, 3)
    graph.world.policy = lambda tick: [math.nan, 0.0, 0.0]
    graph.until(lambda: state(graph) == ControlState.FAULT, what="FAULT")
    assert "not finite" in graph.world.seen["control_state"][-1].reason
    assert not graph.world.seen["control_state"][-1].by_human
    assert graph.world.seen["command"][-1].twist.linear.x == 0.0
    assert all(math.isfinite(c.twist.linear.x) for c in graph.world.seen["command"])


def test_lock_step_without_sim_time_is_refused(make_graph):
    graph = make_graph()
    with pytest.raises(ValueError, match="use_sim_time"):
        graph.add(ArbiterNode(params(lock_step=True)))


class RealTime:
    """Real time: a timer plays the rest of the graph at 10 Hz ticks, as fast as a robot."""

    def __init__(self, graph, **values):
        self.graph, self.world = graph, graph.world
        # Patient, since a loaded machine may let a test stand still for a while.
        defaults = {"release_dwell": 0.2, "device_timeout": 1.0, "policy_timeout": 0.5}
        defaults |= {"stall_timeout": 10.0, "observation_timeout": 1.0, "arm_dwell": 0.0}
        self.node = graph.add(ArbiterNode(params(**(defaults | values))))
        self.timer = self.world.create_timer(0.1, self.tick)
        graph.until(lambda: state(graph) == ControlState.DISARMED, what="DISARMED at start")
        graph.until(lambda: graph.world.seen["command"], what="zeros while disarmed")

    def tick(self):
        self.world.stamp = self.world.get_clock().now().nanoseconds
        self.world.publish_set()

    def drive(self):
        assert self.graph.arm().success
        self.world.run_episode(1, start=self.world.get_clock().now().nanoseconds)
        self.graph.until(lambda: state(self.graph) == ControlState.POLICY, what="POLICY")


def test_real_time_commands_come_at_the_command_rate_freshly_stamped(make_graph):
    graph = make_graph(lock_step=False)
    real = RealTime(graph, command_rate=50.0)
    real.drive()
    decisions(graph, 5)
    graph.world.seen["command"].clear()
    graph.until(lambda: len(graph.world.seen["command"]) >= 50, what="50 commands")
    stamps = [to_ns(c.header.stamp) for c in graph.world.seen["command"]]
    assert (stamps[-1] - stamps[0]) / 1e9 == pytest.approx(len(stamps) / 50.0, rel=0.5)
    assert all(b > a for a, b in itertools.pairwise(stamps))
    found = graph.world.seen["decision"]
    assert [d.step_index for d in found] == list(range(len(found)))
    assert found[3].executed_action[0] == pytest.approx(0.5)


def test_real_time_a_policy_that_dies_leads_to_zeros(make_graph):
    graph = make_graph(lock_step=False)
    real = RealTime(graph)
    real.drive()
    graph.world.policy = lambda tick: None
    graph.until(lambda: state(graph) == ControlState.HOLD, what="HOLD")
    assert "policy" in graph.world.seen["control_state"][-1].reason
    graph.world.seen["command"].clear()
    graph.until(lambda: len(graph.world.seen["command"]) >= 5, what="5 commands")
    assert all(c.twist.linear.x == 0.0 for c in graph.world.seen["command"])


def test_real_time_take_over_and_dwell(make_graph):
    graph = make_graph(lock_step=False)
    real = RealTime(graph)
    real.drive()
    graph.world.operator = lambda tick: (True, [0.0, 1.0, 0.0])
    graph.until(lambda: state(graph) == ControlState.OPERATOR, what="OPERATOR")
    assert graph.world.seen["control_state"][-1].device == "joy"
    decisions(graph, len(graph.world.seen["decision"]) + 3)
    graph.world.operator = lambda tick: (False, [0.0, 0.0, 0.0])
    graph.until(lambda: state(graph) == ControlState.POLICY, what="POLICY again")
    found = decisions(graph, len(graph.world.seen["decision"]) + 2)
    assert sum(d.onset for d in found) == 1
    none = [d for d in found if d.source == Decision.NONE]
    assert none and all(not any(d.executed_action) for d in none[:-1])


@pytest.mark.parametrize("qos", [LATCHED, RELIABLE, qos_profile_sensor_data])
def test_the_stop_signal_of_any_quality_is_a_fault_and_blocks_arming(make_graph, qos):
    graph = make_graph(lock_step=False)
    stop = graph.world.create_publisher(Bool, "stop", qos)
    real = RealTime(graph)
    real.drive()
    graph.until(lambda: stop.get_subscription_count() >= 1, what="a subscription of stop")
    stop.publish(Bool(data=True))
    graph.until(lambda: state(graph) == ControlState.FAULT, what="FAULT")
    answer = graph.arm()
    assert not answer.success and "stop signal" in answer.message
    stop.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, what="armed again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_zeros_are_the_last_words_of_the_process(make_graph, number):
    """Ctrl-C at any moment: zeros to the robot, no process left, a clean exit."""
    graph = make_graph(lock_step=False)
    world = graph.world
    timer = world.create_timer(
        0.1, lambda: (setattr(world, "stamp", world.get_clock().now().nanoseconds), world.move())
    )
    process = arbiter_process()
    try:
        graph.until(lambda: state(graph) is not None, what="the arbiter's process")
        assert graph.arm().success
        world.run_episode(1, start=world.get_clock().now().nanoseconds)
        graph.until(
            lambda: world.seen["command"] and world.seen["command"][-1].twist.linear.x > 0.0,
            what="motion",
        )
        process.send_signal(number)
        graph.until(lambda: process.poll() is not None, what="end of the process")
        graph.until(lambda: state(graph) == ControlState.DISARMED, what="its last state")
        assert not world.seen["control_state"][-1].by_human, "no abort, and no label"
        assert process.returncode == 0
        assert world.seen["command"][-1].twist.linear.x == 0.0
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(10)


def arbiter_process():
    code = "from rlif_intervention.arbiter_node import main; raise SystemExit(main())"
    arguments = ["--ros-args", "-p", "stall_timeout:=10.0", "-p", "policy_timeout:=1.0"]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def test_an_arbiter_that_was_killed_while_armed_comes_back_disarmed(make_graph):
    """Whatever is latched on the topics, an episode that runs and its own last state among it."""
    graph = make_graph(lock_step=False)
    world = graph.world
    seen = world.seen

    def move():
        world.stamp = world.get_clock().now().nanoseconds
        world.move()

    def moving():
        return seen["command"] and seen["command"][-1].twist.linear.x > 0.0

    timer = world.create_timer(0.1, move)
    processes = [arbiter_process()]
    try:
        graph.until(lambda: state(graph) is not None, what="the arbiter's process")
        assert graph.arm().success
        world.run_episode(1, start=world.get_clock().now().nanoseconds)
        graph.until(moving, what="motion")
        processes[0].kill()
        graph.until(lambda: processes[0].poll() == -signal.SIGKILL, what="its end")
        graph.until(lambda: world.count_publishers("command") == 0, 40.0, what="the graph to know")
        seen["control_state"].clear()
        seen["command"].clear()
        processes.append(arbiter_process())
        graph.until(lambda: len(seen["command"]) >= 100, what="a second of commands")
        assert {s.state for s in seen["control_state"]} == {ControlState.DISARMED}
        assert not any(c.twist.linear.x for c in seen["command"])
        assert graph.arm().success, "a human arms: the episode of before runs on"
        graph.until(moving, what="motion again")
    finally:
        timer.cancel()
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def test_diagnostics_have_a_status_per_concern_once_a_second(make_graph):
    graph = make_graph(lock_step=False)
    arrays, times = [], []

    def collect(message):
        arrays.append(message)
        times.append(time.monotonic())

    graph.world.create_subscription(DiagnosticArray, "/diagnostics", collect, RELIABLE)
    RealTime(graph, workspace_min=[-1.0] * 3, workspace_max=[1.0] * 3)
    graph.until(lambda: len(arrays) >= 4, what="four reports")
    concerns = ("control", "limits", "observation", "policy", "ee_pose", "device joy", "commands")
    for array in arrays:
        assert [s.name for s in array.status] == [f"arbiter: {c}" for c in concerns]
    found = {s.name.removeprefix("arbiter: "): s for s in arrays[-1].status}
    assert found["control"].message.startswith("DISARMED")
    assert found["ee_pose"].level == DiagnosticStatus.STALE
    assert found["observation"].level == DiagnosticStatus.OK
    stamps = [to_ns(a.header.stamp) for a in arrays]
    periods = [(b - a) / 1e9 for a, b in itertools.pairwise(stamps)]
    assert sum(periods) / len(periods) == pytest.approx(1.0, abs=0.3)


def test_a_pose_in_another_frame_is_none_and_its_frame_is_named(make_graph):
    graph = make_graph(lock_step=False)
    poses = graph.world.create_publisher(PoseStamped, "ee_pose", RELIABLE)
    frame = ["base"]

    def publish_pose():
        message = PoseStamped()
        message.header.frame_id = frame[0]
        poses.publish(message)

    timer = graph.world.create_timer(0.02, publish_pose)
    box = {"workspace_min": [-1.0] * 3, "workspace_max": [1.0] * 3, "pose_timeout": 1.0}
    RealTime(graph, **box).drive()
    frame[0] = "world"
    graph.until(lambda: state(graph) == ControlState.HOLD, what="HOLD")
    words = graph.world.seen["control_state"][-1].reason
    assert "'world'" in words and "'base'" in words and "command_frame" in words
    frame[0] = "base"
    graph.until(lambda: state(graph) == ControlState.POLICY, what="POLICY again")
    timer.cancel()


def test_arming_in_a_running_episode_leads_to_zeros_for_the_dwell(make_graph):
    graph = make_graph(lock_step=False)
    RealTime(graph, arm_dwell=1.0)
    graph.world.run_episode(1, start=graph.world.get_clock().now().nanoseconds)
    graph.until(lambda: len(graph.world.seen["command"]) >= 20, what="commands")
    assert graph.arm().success
    armed = graph.world.get_clock().now().nanoseconds
    graph.until(lambda: state(graph) == ControlState.POLICY, what="POLICY")
    driven = [c for c in graph.world.seen["command"] if c.twist.linear.x]
    assert all(to_ns(c.header.stamp) > armed + 800_000_000 for c in driven)


def test_a_second_publisher_of_stop_does_not_take_back_what_the_first_has_said(make_graph):
    graph = make_graph(lock_step=False)
    world = graph.world
    first, second = (world.create_publisher(Bool, "stop", LATCHED) for _ in range(2))
    real = RealTime(graph)
    real.drive()
    graph.until(
        lambda: real.node.count_publishers("stop") == 2 and second.get_subscription_count() == 2,
        what="both publishers",
    )
    first.publish(Bool(data=True))
    graph.until(lambda: state(graph) == ControlState.FAULT, what="FAULT")
    second.publish(Bool(data=False))
    graph.until(lambda: "2 publish there" in graph.arm().message, what="a refusal that says why")
    world.destroy_publisher(first)
    graph.until(lambda: real.node.count_publishers("stop") == 1, what="the first to be gone")
    assert not graph.arm().success, "nobody has said since that it is safe"
    second.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, what="armed again")


def test_each_stop_topic_stops_and_must_be_off_before_arming(make_graph):
    graph = make_graph(lock_step=False)
    door, belt = (graph.world.create_publisher(Bool, t, LATCHED) for t in ("door", "belt"))
    real = RealTime(graph, stop_topics=["stop", "door", "belt"])
    real.drive()
    graph.until(lambda: belt.get_subscription_count() == 2, what="subscriptions")
    door.publish(Bool(data=True))
    belt.publish(Bool(data=False))
    graph.until(lambda: state(graph) == ControlState.FAULT, what="FAULT")
    assert "door" in graph.arm().message
    door.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, what="armed again")


def test_a_stop_that_was_latched_before_the_arbiter_started_counts(make_graph):
    graph = make_graph(lock_step=False)
    graph.world.create_publisher(Bool, "stop", LATCHED).publish(Bool(data=True))
    graph.add(ArbiterNode())
    graph.until(lambda: state(graph) == ControlState.FAULT, what="FAULT")


def test_speed_scale_changes_while_it_runs_and_is_recorded(make_graph):
    graph = make_graph()
    node = start(graph)
    graph.world.run_episode(1)
    decisions(graph, 3)
    assert node.set_parameters([Parameter("speed_scale", value=0.5)])[0].successful
    assert not node.set_parameters([Parameter("speed_scale", value=2.0)])[0].successful
    found = decisions(graph, len(graph.world.seen["decision"]) + 3)[-1]
    assert found.executed_action[0] == pytest.approx(0.25) and found.limits == "speed_scale"
    assert found.policy_action[0] == 0.5 and found.speed_scale == pytest.approx(0.5)
    assert graph.world.seen["decision"][0].speed_scale == 1.0


def test_the_workspace_box_stops_the_arm_before_its_face(make_graph):
    graph = make_graph()
    world, x = graph.world, [0.0]
    poses = world.create_publisher(PoseStamped, "ee_pose", RELIABLE)

    def publish_pose():
        moved = world.seen["command"][-1].twist.linear.x * 0.1 if world.seen["command"] else 0.0
        x[0] += moved
        message = PoseStamped()
        message.header.stamp = to_msg(world.stamp)
        message.header.frame_id = "base"
        message.pose.position.x = x[0]
        poses.publish(message)

    world.on_samples = publish_pose
    start(graph, workspace_min=[-1.0] * 3, workspace_max=[0.02, 1.0, 1.0])
    world.run_episode(1)
    found = decisions(graph, 40)
    assert 0.0199 < x[0] <= 0.02 + 1e-6
    assert found[-1].limits == "workspace" and found[-1].executed_action[0] < 0.01
