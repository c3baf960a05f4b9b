# SPDX-License-Identifier: Apache-2.0
"""The watchdog over DDS, and an arbiter that is hung, killed or ended as a process of its own."""

from __future__ import annotations

import signal

import pytest
from rclpy.node import Node
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_1
from rlif_node.stamps import to_ns
from ros_graph import JOINT_LIMITS, JOINTS, params
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from rlif_intervention import watchdog_node
from rlif_intervention.diagnostics import Level
from rlif_intervention.watchdog_node import WatchdogNode
from rlif_msgs.msg import ControlState, Heartbeat, PolicyHold

pytestmark = pytest.mark.ros

# Above what a loaded machine lets a process stand still; the arbiter's stall is the shorter one.
STALL, SILENCE = 1.0, 1.5  # s
PROCESS = {"stall_timeout": STALL, "arm_dwell": 0.0} | dict.fromkeys(
    ("policy_timeout", "observation_timeout", "device_timeout", "pose_timeout"), 10.0
)


def pause_service(graph, *answers):
    """A service that pauses the robot, or refuses to; the requests that it has got."""
    requests, left = [], list(answers) or [True]

    def answer(request, response):
        requests.append(request.data)
        response.success = left.pop(0) if len(left) > 1 else left[0]
        response.message = "" if response.success else "not now"
        return response

    graph.world.create_service(SetBool, "pause_servo", answer)
    return requests


@pytest.mark.parametrize("adapter", [False, True])
def test_watchdog_without_an_arbiter_pauses_and_the_pause_stays_visible_until_a_human_arms(
    make_graph, steady, monkeypatch, adapter
):
    monkeypatch.setattr(watchdog_node, "REPORT_PERIOD", 0.05)
    graph = make_graph(lock_step=False)
    requests = pause_service(graph, False, True)
    graph.add(WatchdogNode(params(pause_service="pause_servo", start_timeout=10.0)))
    graph.until(lambda: graph.world.statuses, "a report")
    assert not requests
    steady.now += 10.1
    assert graph.status("pause", "not now").level == bytes([Level.ERROR])
    steady.now += 1.1  # until the next try
    assert graph.status("pause", "was paused").level == bytes([Level.WARN])
    assert requests == [True, True]
    assert graph.status("arbiter", "no arbiter").level == bytes([Level.ERROR])
    assert not graph.seen["command"], "the topic may be somebody else's"
    if adapter:
        other = graph.add(Node("servo_adapter"))
        other.create_publisher(PolicyHold, "policy_hold", LATCHED)
        graph.until(lambda: graph.world.count_publishers("policy_hold") == 2, "the adapter")
    holds = []
    graph.world.create_subscription(PolicyHold, "policy_hold", holds.append, LATCHED)
    heartbeat = graph.world.create_publisher(Heartbeat, "arbiter_heartbeat", RELIABLE_1)
    graph.until(heartbeat.get_subscription_count, "the watchdog")
    heartbeat.publish(Heartbeat(state=ControlState.DISARMED))
    graph.status("arbiter", "is alive")
    assert graph.status("pause", "was paused").level == bytes([Level.WARN])
    graph.until(lambda: holds, "the hold")
    assert holds[-1].reason_code == PolicyHold.SERVO_PAUSED and "undone" in holds[-1].reason
    heartbeat.publish(Heartbeat(state=ControlState.HOLD))
    assert graph.status("pause", "ready").level == bytes([Level.OK])
    assert requests == [True, True] + [False] * (not adapter), "an adapter undoes it by itself"
    graph.until(lambda: holds[-1].reason_code == PolicyHold.NONE, "the end of the hold")


def test_watchdog_that_was_starved_itself_judges_a_turn_later(make_graph, steady):
    make_graph(lock_step=False)
    watchdog = WatchdogNode(params())
    try:
        watchdog._on_heartbeat(Heartbeat(state=ControlState.HOLD))
        steady.now += 1.0
        watchdog._on_timer()
        assert not watchdog._core.tripped
        watchdog._on_heartbeat(Heartbeat(state=ControlState.HOLD))  # it was in the queue
        watchdog._on_timer()
        assert not watchdog._core.tripped
        for _ in range(2):  # always late: it acts all the same
            steady.now += 1.0
            watchdog._on_timer()
        assert watchdog._core.tripped
    finally:
        watchdog.destroy_node()


def test_watchdog_that_is_started_again_withdraws_its_hold(make_graph):
    graph = make_graph(lock_step=False)
    holds = []
    graph.world.create_subscription(PolicyHold, "policy_hold", holds.append, LATCHED)
    graph.add(WatchdogNode(params()))
    graph.until(lambda: holds, "a message of the new process")
    assert (holds[0].source, holds[0].reason_code) == ("/watchdog", PolicyHold.NONE)


def test_watchdog_of_an_unknown_output_is_refused(make_graph):
    make_graph(lock_step=False)
    with pytest.raises(ValueError, match="found 'joints', expected one of twist"):
        WatchdogNode(params(output="joints"))


class Process:
    """An arbiter in a process of its own, what it sends, and the watchdog in this one."""

    def __init__(self, graph, start_node, values):
        self.graph, self._values = graph, values
        self._start = lambda: start_node("rlif_intervention", "arbiter", **(PROCESS | values))
        self.requests = pause_service(graph)
        watchdog = {"pause_service": "pause_servo", "timeout": SILENCE, "rate": 200.0} | values
        names = {row.name for row in watchdog_node.PARAMETERS}
        self.watchdog = graph.add(
            WatchdogNode(params(**{k: v for k, v in watchdog.items() if k in names}))
        )
        graph.world.run_in_real_time()

    def start(self):
        """A new process; what was received before, and of one that was killed, is left out."""
        before = self.graph.world.now()
        self.process = self._start()
        self.graph.until(
            lambda: self.graph.control.reason and to_ns(self.graph.control.header.stamp) > before,
            "the arbiter's process",
        )
        self.graph.seen["control_state"][:-1] = []

    @property
    def speed(self):
        if "joint_command" in self.graph.seen:
            received = self.graph.seen["joint_command"]
            return max(map(abs, received[-1].data)) if received else 0.0
        received = self.graph.seen["command"]
        return abs(received[-1].twist.linear.x) if received else 0.0

    def silence(self, number):
        """Stop or kill it: the watchdog pauses the robot and sends zeros, and goes on with it."""
        self.requests.clear()
        self.process.send_signal(number)
        self.graph.until(lambda: self.requests and self.speed == 0.0, "zeros and a pause")
        topic = "joint_command" if "joint_command" in self.graph.seen else "command"
        for message in self.graph.more(topic, 75):
            values = message.data if topic == "joint_command" else [message.twist.linear.x]
            assert not any(values)

    def go_on(self):
        """Let it go on after a stop: it has noticed, and moves only after a human has armed it."""
        self.process.send_signal(signal.SIGCONT)
        assert "stood still" in self.graph.until_state(ControlState.FAULT).reason
        self.graph.until(lambda: self.speed == 0.0, "zeros of its own")
        self.graph.drive(lambda: self.speed > 0.0)

    def end(self, number):
        """Ctrl-C at any moment: zeros to the robot, no process left, a clean exit."""
        self.graph.remove(self.watchdog)  # what follows is the arbiter's own
        self.process.send_signal(number)
        self.graph.until(lambda: self.process.poll() is not None, "the end of the process")
        control = self.graph.until_state(ControlState.DISARMED)
        assert not control.by_human, "no abort, and no label"
        self.graph.until(lambda: self.speed == 0.0, "zeros")
        assert self.process.returncode == 0


def test_arbiter_process_hung_killed_started_again_and_ended_leads_to_zeros(make_graph, start_node):
    """Pitfalls: the sender died, the robot kept moving; the last command repeated for ever."""
    graph = make_graph(lock_step=False)
    arbiter = Process(graph, start_node, {})
    arbiter.start()
    graph.drive(lambda: arbiter.speed > 0.0)
    arbiter.silence(signal.SIGSTOP)
    arbiter.go_on()
    arbiter.silence(signal.SIGKILL)
    # Whatever is latched on the topics, a running episode and its own last state among it.
    arbiter.start()
    assert not any(c.twist.linear.x for c in graph.more("command", 100))
    assert {s.state for s in graph.seen["control_state"]} == {ControlState.DISARMED}
    assert graph.arm().success, "a human arms: the episode of before runs on"
    graph.until(lambda: arbiter.speed > 0.0, "motion again")
    arbiter.end(signal.SIGINT)


def test_arbiter_process_with_joints_hung_and_ended_leads_to_zeros(make_graph, start_node):
    """Pitfall: the last command repeated for ever by a controller with no time-out."""
    graph = make_graph(lock_step=False)
    world = graph.world
    world.seen["joint_command"] = []
    received = world.seen["joint_command"].append
    world.create_subscription(Float64MultiArray, "joint_command", received, RELIABLE)
    states = world.create_publisher(JointState, "joint_states", RELIABLE)
    world.on_samples = lambda: states.publish(JointState(name=JOINTS, position=[0.0, 0.0]))
    world.policy = lambda tick: [0.5, -0.25]
    world.operator = lambda tick: None
    values = JOINT_LIMITS | {"output": "joint_velocity", "require_operator": False}
    arbiter = Process(graph, start_node, values)
    arbiter.start()
    graph.drive(lambda: arbiter.speed > 0.0)
    arbiter.silence(signal.SIGSTOP)
    arbiter.go_on()
    arbiter.end(signal.SIGTERM)
    assert not graph.seen["command"]
