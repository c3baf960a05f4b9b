# SPDX-License-Identifier: Apache-2.0
"""The arbiter as a node, over DDS, with a stand-in world. As a process: test_watchdog_node.py."""

from __future__ import annotations

import itertools
import math

import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_1
from rlif_node.stamps import to_msg, to_ns
from ros_graph import PATIENT, params
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.diagnostics import Level, arbiter_statuses
from rlif_msgs.msg import (
    ControlState,
    Decision,
    Heartbeat,
    InterventionEvent,
    OperatorButtons,
    PolicyHold,
)

pytestmark = pytest.mark.ros

BOX = {"workspace_min": [-1.0] * 3, "workspace_max": [1.0] * 3}
STARTED, ENDED = InterventionEvent.STARTED, InterventionEvent.ENDED


def start(graph, **values):
    """A lock-step graph, armed, its world going."""
    node = graph.add_arbiter(**values)
    assert graph.arm().success
    return node


# ---- lock-step


def test_lock_step_episode_gives_one_decision_and_one_command_for_each_tick(make_graph):
    graph = make_graph()
    start(graph)
    graph.world.run_episode(1, max_steps=20)
    found = graph.decisions(20)
    assert [d.step_index for d in found] == list(range(20))
    stamps = [to_ns(d.header.stamp) for d in found]
    assert {b - a for a, b in itertools.pairwise(stamps)} == {100_000_000}
    assert {d.source for d in found} == {Decision.POLICY}
    assert found[5].policy_action[0] == 0.5 and found[5].executed_action[0] == 0.5
    commands = {to_ns(c.header.stamp): c for c in graph.seen["command"]}
    assert [commands[s].twist.linear.x for s in stamps] == pytest.approx([0.05] * 20)
    assert commands[stamps[0]].header.frame_id == "base"
    # Not one step beyond max_steps, and zeros from there on.
    idle = graph.more("command", 3)
    assert len(graph.seen["decision"]) == 20
    assert all(c.twist.linear.x == 0.0 for c in idle[-2:])


def test_lock_step_take_over_is_one_onset_and_its_action_is_executed_in_the_same_tick(make_graph):
    graph = make_graph()

    def operator(_):
        engaged = 3 <= len(graph.seen["decision"]) < 6
        return engaged, [0.0, float(engaged), 0.0]

    graph.world.operator = operator
    start(graph)
    graph.world.run_episode(1, max_steps=12)
    found = graph.decisions(12)
    driven = [d.step_index for d in found if d.source == Decision.OPERATOR]
    assert len(driven) >= 3 and driven == list(range(driven[0], driven[-1] + 1))
    assert [d.step_index for d in found if d.onset] == driven[:1]
    assert list(found[driven[0]].executed_action) == [0.0, 1.0, 0.0]
    assert list(found[driven[0]].policy_action) == [0.5, 0.0, 0.0]
    assert {d.intervention_id for d in found} == {0, 1}
    graph.until(lambda: len(graph.seen["intervention"]) >= 2, "STARTED and ENDED")
    events = graph.seen["intervention"]
    assert [e.event for e in events] == [STARTED, ENDED]
    assert events[0].step_index == driven[0] and events[1].duration > 0.0
    assert events[0].device == "joy"


def test_lock_step_policy_that_dies_leads_to_hold_with_zeros_until_it_is_back(make_graph):
    graph = make_graph()
    start(graph, lock_step_timeout=0.3)
    graph.world.run_episode(1)
    graph.decisions(5)
    policy, operator = graph.world.policy, graph.world.operator
    graph.world.policy = graph.world.operator = lambda tick: None
    reason = graph.until_state(ControlState.HOLD).reason
    assert "policy_action" in reason and "joy" in reason
    assert graph.seen["command"][-1].twist.linear.x == 0.0
    graph.world.policy, graph.world.operator = policy, operator
    graph.until_state(ControlState.POLICY)
    found = graph.decisions(len(graph.seen["decision"]) + 3)
    assert [d.step_index for d in found] == list(range(len(found)))
    held = [d for d in found if d.source == Decision.NONE]
    assert held and all(not any(d.executed_action) for d in held)


def test_lock_step_policy_action_that_is_not_finite_is_a_fault(make_graph):
    graph = make_graph()
    start(graph)
    graph.world.run_episode(1)
    graph.decisions(3)
    graph.world.policy = lambda tick: [math.nan, 0.0, 0.0]
    control = graph.until_state(ControlState.FAULT)
    assert "not finite" in control.reason and not control.by_human
    assert graph.seen["command"][-1].twist.linear.x == 0.0
    assert all(math.isfinite(c.twist.linear.x) for c in graph.seen["command"])


def test_lock_step_without_sim_time_is_refused(make_graph):
    make_graph()
    with pytest.raises(ValueError, match="use_sim_time"):
        ArbiterNode(params(lock_step=True))


def test_lock_step_speed_scale_changes_while_it_runs_and_is_recorded(make_graph):
    graph = make_graph()
    node = start(graph)
    graph.world.run_episode(1)
    graph.decisions(3)
    assert node.set_parameters(params(speed_scale=0.5))[0].successful
    assert not node.set_parameters(params(speed_scale=2.0))[0].successful
    found = graph.decisions(len(graph.seen["decision"]) + 3)[-1]
    assert found.executed_action[0] == pytest.approx(0.25) and list(found.limits) == ["speed_scale"]
    assert found.policy_action[0] == 0.5 and found.speed_scale == pytest.approx(0.5)
    assert graph.seen["decision"][0].speed_scale == 1.0


def test_lock_step_workspace_box_stops_the_arm_before_its_face(make_graph):
    graph = make_graph()
    world, x = graph.world, [0.0]
    poses = world.create_publisher(PoseStamped, "ee_pose", RELIABLE)

    def publish_pose():
        x[0] += graph.seen["command"][-1].twist.linear.x * 0.1 if graph.seen["command"] else 0.0
        message = PoseStamped()
        message.header.stamp = to_msg(world.stamp)
        message.header.frame_id = "base"
        message.pose.position.x = x[0]
        poses.publish(message)

    world.on_samples = publish_pose
    start(graph, workspace_min=[-1.0] * 3, workspace_max=[0.02, 1.0, 1.0])
    world.run_episode(1)
    found = graph.decisions(40)
    assert 0.0199 < x[0] <= 0.02 + 1e-6
    assert list(found[-1].limits) == ["workspace"] and found[-1].executed_action[0] < 0.01


# ---- real time


def timers(node):
    """Periods in ns by the name of what is called."""
    return {t.callback.__name__: t.timer_period_ns for t in node.timers}


def test_real_time_commands_come_at_the_command_rate_freshly_stamped(real_time):
    graph = real_time(command_rate=50.0)
    graph.drive()
    graph.decisions(5)
    begin = graph.world.now()
    graph.more("command", 10)  # what was on its way
    stamps = [to_ns(c.header.stamp) for c in graph.more("command", 20)]
    # The period of the timer, since a machine under load skips some: by the phase of the actions.
    assert timers(graph.nodes[-1])["_on_timer"] == pytest.approx(20e6, rel=0.02)
    assert begin < stamps[0] and stamps[-1] <= graph.world.now()
    assert all(b > a for a, b in itertools.pairwise(stamps))
    found = graph.seen["decision"]
    assert [d.step_index for d in found] == list(range(len(found)))
    assert found[3].executed_action[0] == pytest.approx(0.5)


def test_real_time_policy_that_dies_leads_to_hold_with_zeros(real_time):
    graph = real_time(policy_timeout=0.5)
    graph.drive()
    graph.world.policy = lambda tick: None
    assert "policy" in graph.until_state(ControlState.HOLD).reason
    graph.more("command", 1)  # of before
    assert all(c.twist.linear.x == 0.0 for c in graph.more("command", 5))


def test_real_time_release_leads_to_zeros_for_the_dwell_and_then_to_the_policy(real_time):
    graph = real_time(release_dwell=0.5)
    graph.drive()
    graph.world.operator = lambda tick: (True, [0.0, 1.0, 0.0])
    graph.until_state(ControlState.OPERATOR, "joy")
    graph.decisions(len(graph.seen["decision"]) + 3)
    graph.world.operator = lambda tick: (False, [0.0, 0.0, 0.0])
    graph.until_state(ControlState.POLICY)
    found = graph.decisions(len(graph.seen["decision"]) + 2)
    assert sum(d.onset for d in found) == 1
    none = [d for d in found if d.source == Decision.NONE]
    # The first may hold the end of the braking, if the release came between two ticks; the last,
    # the policy's first command.
    assert len(none) > 2 and not any(any(d.executed_action) for d in none[1:-1])


def test_real_time_process_that_stood_still_is_a_fault(real_time, steady):
    graph = real_time(stall_timeout=1.0)
    graph.drive()
    steady.now += 5.0
    assert "stood still" in graph.until_state(ControlState.FAULT).reason


def test_real_time_arming_in_a_running_episode_leads_to_zeros_for_the_dwell(make_graph):
    graph = make_graph(lock_step=False)
    graph.add_arbiter(arm_dwell=0.5)
    graph.world.run_in_real_time()
    graph.world.run_episode(1)
    graph.more("command", 20)
    before = graph.world.now()
    assert graph.arm().success
    graph.until_state(ControlState.POLICY)
    graph.more("command", 5)
    driven = [c for c in graph.seen["command"] if c.twist.linear.x]
    assert driven and all(to_ns(c.header.stamp) > before + 490_000_000 for c in driven)


def test_diagnostics_have_a_status_for_each_concern_once_a_second(real_time):
    graph = real_time(**BOX)
    graph.until(lambda: len(graph.world.statuses) >= 7, "a report")
    names = ["control", "limits", "observation", "policy", "ee_pose", "device joy", "commands"]
    found = graph.world.statuses
    assert list(found) == names
    assert found["control"].message.startswith("DISARMED")
    assert found["ee_pose"].level == bytes([Level.STALE])
    assert found["observation"].level == bytes([Level.OK])
    assert timers(graph.nodes[-1])["_report"] == 1_000_000_000


# ---- stop


@pytest.mark.parametrize("qos", [LATCHED, RELIABLE, qos_profile_sensor_data])
def test_stop_of_any_quality_of_service_is_a_fault_and_blocks_arming(real_time, qos):
    graph = real_time()
    stop = graph.world.create_publisher(Bool, "stop", qos)
    graph.drive()
    graph.until(lambda: stop.get_subscription_count() >= 1, "a subscription of stop")
    stop.publish(Bool(data=True))
    graph.until_state(ControlState.FAULT)
    answer = graph.arm()
    assert not answer.success and "stop signal" in answer.message
    stop.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, "armed again")


def test_stop_that_was_latched_before_the_start_is_a_fault(make_graph):
    graph = make_graph(lock_step=False)
    graph.world.create_publisher(Bool, "stop", LATCHED).publish(Bool(data=True))
    graph.add(ArbiterNode())
    graph.until_state(ControlState.FAULT)


def test_stop_of_one_publisher_is_not_taken_back_by_a_second(real_time):
    graph = real_time()
    first, second = (graph.world.create_publisher(Bool, "stop", LATCHED) for _ in range(2))
    arbiter = graph.nodes[-1]
    graph.drive()
    graph.until(
        lambda: arbiter.count_publishers("stop") == 2 and second.get_subscription_count() == 2,
        "both publishers",
    )
    first.publish(Bool(data=True))
    graph.until_state(ControlState.FAULT)
    second.publish(Bool(data=False))
    graph.until(lambda: "2 publish there" in graph.arm().message, "a refusal with its reason")
    graph.world.destroy_publisher(first)
    graph.until(lambda: arbiter.count_publishers("stop") == 1, "the end of the first")
    assert not graph.arm().success, "no message since then"
    second.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, "armed again")


def test_stop_topics_are_each_a_cause_that_must_be_off_before_arming(real_time):
    graph = real_time(stop_topics=["stop", "door", "belt"])
    door, belt = (graph.world.create_publisher(Bool, t, LATCHED) for t in ("door", "belt"))
    graph.drive()
    graph.until(lambda: belt.get_subscription_count() == 2, "subscriptions")
    door.publish(Bool(data=True))
    belt.publish(Bool(data=False))
    graph.until_state(ControlState.FAULT)
    assert "door" in graph.arm().message
    door.publish(Bool(data=False))
    graph.until(lambda: graph.arm().success, "armed again")


# ---- the robot's side


@pytest.mark.parametrize("qos", [RELIABLE, qos_profile_sensor_data])
def test_pose_of_any_reliability_in_another_frame_leads_to_hold_that_names_both(real_time, qos):
    graph = real_time(**BOX)
    poses = graph.world.create_publisher(PoseStamped, "ee_pose", qos)
    frame = ["base"]

    def publish_pose():
        message = PoseStamped()
        message.header.frame_id = frame[0]
        poses.publish(message)

    graph.world.on_samples = publish_pose
    graph.drive()
    frame[0] = "world"
    reason = graph.until_state(ControlState.HOLD).reason
    assert "'world'" in reason and "'base'" in reason and "command_frame" in reason
    frame[0] = "base"
    graph.until_state(ControlState.POLICY)


def test_hold_that_is_no_longer_repeated_stops_the_policy(real_time):
    graph = real_time(hold_timeout=0.5)
    hold = graph.world.create_publisher(PolicyHold, "policy_hold", LATCHED)
    graph.world.on_samples = lambda: hold.publish(PolicyHold())
    graph.drive()
    graph.world.on_samples = lambda: None
    assert "nothing on policy_hold" in graph.until_state(ControlState.HOLD).reason
    graph.until(lambda: graph.seen["command"][-1].twist.linear.x == 0.0, "zeros")


def test_hold_of_two_nodes_from_before_the_arbiter_are_both_in_force(make_graph, steady):
    """Regression: with a queue of one the second latched message displaced the first."""
    graph = make_graph(lock_step=False)
    for name, code in (("watchdog", PolicyHold.OTHER), ("policy", PolicyHold.NONE)):
        hold = graph.world.create_publisher(PolicyHold, "policy_hold", LATCHED)
        hold.publish(PolicyHold(source=name, reason_code=code, reason=name))
    graph.add_arbiter()
    graph.world.run_in_real_time(steady)
    graph.until(lambda: graph.control.hold_reason == PolicyHold.OTHER, "the watchdog's hold")


def test_arm_that_does_not_follow_leads_to_hold_that_says_so(real_time):
    """Servo paused, restarted without its adapter, or an emergency stop."""
    graph = real_time(follow_timeout=1.0)
    poses = graph.world.create_publisher(PoseStamped, "ee_pose", RELIABLE)
    graph.world.policy = lambda tick: [0.5, -0.4, 0.3]
    graph.world.on_samples = lambda: poses.publish(PoseStamped())
    graph.drive()
    control = graph.until_state(ControlState.HOLD)
    assert "does not follow" in control.reason
    assert control.hold_reason == PolicyHold.NOT_MOVING
    assert graph.more("decision", 3)[-1].source == Decision.NONE


# ---- other nodes


def test_state_is_repeated_and_names_what_the_observer_misses(real_time):
    graph = real_time()
    graph.drive()
    graph.world.problem = "camera/fixed/image: frozen"
    graph.until_state(ControlState.HOLD)
    graph.until(lambda: graph.control.reason.endswith("s: camera/fixed/image: frozen"), "the cause")
    content = (graph.control.state, graph.control.reason)
    graph.more("control_state", 3)
    assert (graph.control.state, graph.control.reason) == content


def test_second_arbiter_publishes_nothing_and_is_not_armed_until_the_first_has_ended(
    make_graph, monkeypatch
):
    graph = make_graph(lock_step=False)
    first = graph.add_arbiter()
    graph.world.run_in_real_time()
    graph.drive()
    monkeypatch.setattr("rlif_intervention.arbiter_node.LISTEN_BEATS", 10**9)  # no hurry here
    second = graph.add(ArbiterNode(params(**PATIENT)))
    graph.until(lambda: second._yields, "the second to yield")
    second._listens = 0
    ok, reason = second._arm(True)
    assert not ok and "started before" in reason
    graph.status("instances", "2 arbiters")
    graph.more("control_state", 2)
    graph.more("decision", 3)
    assert graph.control.state == ControlState.POLICY, "nothing was heard of the second"
    first.shut_down()
    graph.remove(first)
    assert "the other arbiter has ended" in graph.until_state(ControlState.FAULT).reason
    assert second._arm(True)[0]


@pytest.mark.parametrize("fault", [False, True])
def test_foreign_publisher_of_commands_is_named_and_a_fault_by_parameter(real_time, fault):
    graph = real_time(fault_on_foreign_command=fault)
    graph.drive()
    stray = graph.world.create_publisher(TwistStamped, "command", RELIABLE)
    graph.status("command publishers", "/world publishes on /command too")
    if not fault:
        assert graph.until_state(ControlState.POLICY).reason.endswith("past all limits: end it")
        return
    graph.until_state(ControlState.FAULT)
    assert "/world" in graph.arm().message
    graph.world.destroy_publisher(stray)
    graph.until(lambda: graph.arm().success, "armed again")


def test_episode_node_that_dies_leads_to_hold(real_time):
    graph = real_time(episode_timeout=1.0)
    alive = graph.world.create_publisher(Heartbeat, "episode_heartbeat", RELIABLE_1)
    graph.world.on_samples = lambda: alive.publish(Heartbeat())
    graph.until(lambda: alive.get_subscription_count(), "the arbiter")
    graph.drive()
    arbiter = graph.nodes[-1]
    graph.until(lambda: arbiter._episode_alive, "a heartbeat")
    graph.world.on_samples = lambda: None
    assert "heartbeat of the episode node" in graph.until_state(ControlState.HOLD).reason


# ---- several operator devices


def test_buttons_of_any_device_are_published_with_the_stamp_of_its_message(real_time):
    graph = real_time(devices=["joy", "pad"], **{"pad.preset": "xbox"})
    buttons = []
    graph.world.create_subscription(OperatorButtons, "operator_buttons", buttons.append, RELIABLE)
    pad = graph.world.create_publisher(Joy, "pad", RELIABLE)
    graph.until(pad.get_subscription_count, "the arbiter to subscribe to the pad")
    graph.until(lambda: graph.world.count_publishers("operator_buttons"), "the publisher")
    for pressed in ((), (0, 8), (0,), (), (1,)):
        message = Joy(axes=[0.0] * 8, buttons=[int(i in pressed) for i in range(11)])
        message.header.stamp = to_msg(5 + len(pressed))
        pad.publish(message)
    graph.until(lambda: len(buttons) >= 2, "two presses")
    found = [(m.device, list(m.pressed), to_ns(m.header.stamp)) for m in buttons]
    assert found == [("pad", ["discard", "success"], 7), ("pad", ["failure"], 6)]


def test_heartbeat_has_the_state_and_an_id_of_the_process(real_time):
    graph = real_time()
    beats = []
    graph.world.create_subscription(Heartbeat, "arbiter_heartbeat", beats.append, RELIABLE)
    graph.until(lambda: beats, "a heartbeat")
    assert beats[-1].state == ControlState.DISARMED and any(beats[-1].instance_id)
    graph.drive()
    graph.until(lambda: beats[-1].state == ControlState.POLICY, "the state in a heartbeat")
    assert len({bytes(beat.instance_id) for beat in beats}) == 1


class Operator:
    """A pad (priority 10) and a 3D mouse (50), each engaged, at rest (False) or silent (None)."""

    def __init__(self, real_time):
        self.graph = real_time(
            devices=["pad", "mouse"],
            locks=["pause"],
            **{
                "pad.preset": "xbox", "pad.priority": 10, "mouse.preset": "spacemouse",
                "mouse.priority": 50, "mouse.best_effort": True, "pause.priority": 10,
            },
        )  # fmt: skip
        world = self.graph.world
        self.pause = world.create_publisher(Bool, "pause", LATCHED)
        self._pad = world.create_publisher(Joy, "pad", RELIABLE)
        self._mouse = world.create_publisher(Joy, "mouse", qos_profile_sensor_data)
        self.pad = self.mouse = False
        world.on_samples = self._publish
        arbiter = self.graph.nodes[-1]
        self.statuses = lambda: {s.name: s for s in arbiter_statuses(arbiter._core, arbiter._now())}
        live = arbiter._core.rack
        self.graph.until(lambda: live.problem(arbiter._now()) is None, "a live device")
        self.graph.drive()

    def _publish(self):
        """With a stamp of 0: what counts is when a message is received."""
        if self.pad is not None:
            buttons = [int(self.pad and i == 5) for i in range(11)]
            self._pad.publish(Joy(axes=[0.0, float(self.pad)] + [0.0] * 6, buttons=buttons))
        if self.mouse is not None:
            self._mouse.publish(Joy(axes=[0.6 * self.mouse] + [0.0] * 5))


def test_devices_with_priorities_hand_over_within_one_intervention(real_time):
    operator = Operator(real_time)
    graph = operator.graph
    operator.pad = True
    graph.until_state(ControlState.OPERATOR, "pad")
    operator.mouse = True
    graph.until_state(ControlState.OPERATOR, "mouse")
    operator.mouse = False
    graph.until_state(ControlState.OPERATOR, "pad")
    operator.pad = False
    graph.until_state(ControlState.POLICY)
    assert [e.event for e in graph.seen["intervention"]] == [STARTED, ENDED]


def test_device_that_is_locked_is_masked_and_a_higher_one_still_takes_over(real_time):
    operator = Operator(real_time)
    graph = operator.graph
    operator.pad = True
    graph.until_state(ControlState.OPERATOR, "pad")
    operator.pause.publish(Bool(data=True))
    assert "locked by pause" in graph.until_state(ControlState.HOLD).reason
    operator.mouse = True
    graph.until_state(ControlState.OPERATOR, "mouse")
    operator.mouse = False
    graph.until_state(ControlState.HOLD)
    operator.pad = False
    operator.pause.publish(Bool(data=False))
    graph.until_state(ControlState.POLICY)


def test_device_that_is_silent_is_reported_and_stops_the_policy_only_as_the_last(real_time):
    operator = Operator(real_time)
    graph = operator.graph
    operator.pad = None
    graph.until(
        lambda: operator.statuses()["device pad"].level is Level.ERROR, "the pad to be reported"
    )
    assert graph.control.state == ControlState.POLICY
    mouse = operator.statuses()["device mouse"]
    assert "never moved" in mouse.message and mouse.level is Level.WARN
    operator.mouse = None
    reason = graph.until_state(ControlState.HOLD).reason
    assert "pad is silent" in reason and "mouse is silent" in reason
