# SPDX-License-Identifier: Apache-2.0
"""The episode node with the arbiter, over DDS, in a stand-in world in lock-step."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import SetParameters
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_100
from rlif_node.stamps import to_msg, to_ns
from ros_graph import params
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from rlif_intervention.episode_node import EpisodeNode, stamp_problem
from rlif_msgs.msg import (
    ControlState,
    Decision,
    Episode,
    LearnerStatus,
    OperatorButtons,
    Step,
    TaskSuccess,
)

pytestmark = pytest.mark.ros


BUTTON_PRESSES = [("success", Episode.OUTCOME_SUCCESS), ("failure", Episode.OUTCOME_FAILURE)]


def start(graph, steps=0, **values):
    """Arbiter, episode node and world; armed by the button; `steps` of episode 1 are over."""
    devices = {name: values.pop(name) for name in list(values) if name.startswith("joy.")}
    graph.add_arbiter(**devices)
    defaults = {
        "use_sim_time": True,
        "auto_start": True,
        "max_steps": 0 if steps else 10,
        "settle_time": 0.0,
        "arm_dwell": 0.0,
        "wait_for_recorder": False,
    }
    graph.add(EpisodeNode(params(**(defaults | values))))
    pressed = []

    def armed():
        # One press for each answer of the idle world: more would overflow the joystick's queue.
        # Pressed until it counts: the first message that a node gets is no edge.
        if graph.world.stamp not in pressed:
            pressed.append(graph.world.stamp)
            tap(graph, arm=True)
        return graph.control.state != ControlState.DISARMED

    graph.until(armed, "armed by the button")
    graph.until(lambda: len(decisions_of(graph, 1)) >= steps, f"{steps} decisions")


def success(stamp=None):
    """A message on `task_success`."""
    message = TaskSuccess(source="in the hole")
    if stamp is not None:
        message.header.stamp = stamp
    return message


def tap(graph, **buttons):
    graph.world.press()
    graph.world.press(**buttons)


def running(graph):
    return [e for e in graph.seen["episode"] if e.phase == Episode.RUNNING]


def idle(graph):
    """The episodes that have begun, after three answers of a world in which nothing happens."""
    graph.more("command", 3)
    return running(graph)


def reports(graph, phase, number=1):
    """The reports of `phase`, when there are at least `number` of them."""

    def found():
        return [e for e in graph.seen["episode"] if e.phase == phase]

    graph.until(lambda: len(found()) >= number, f"{number} reports of phase {phase}")
    return found()


def set_parameters(graph, **values):
    client = graph.world.create_client(SetParameters, "/episode/set_parameters")
    graph.until(client.service_is_ready, "parameter service")
    messages: list[ParameterMsg] = [p.to_parameter_msg() for p in params(**values)]
    future = client.call_async(SetParameters.Request(parameters=messages))
    graph.until(future.done, "parameters set")
    graph.world.destroy_client(client)
    return future.result().results


def decisions_of(graph, episode):
    return [d for d in graph.seen["decision"] if d.episode_id == episode]


def test_episode_with_auto_start_is_reset_and_ends_at_the_time_limit(make_graph):
    graph = make_graph()
    start(graph)
    ended = reports(graph, Episode.ENDED, 3)
    assert [e.id for e in ended[:3]] == [1, 2, 3]
    for report in ended[:3]:
        driven = decisions_of(graph, report.id)
        assert [d.step_index for d in driven] == list(range(10))
        assert report.outcome == Episode.OUTCOME_TRUNCATED and report.steps == 10
        assert to_ns(report.header.stamp) == to_ns(driven[-1].header.stamp) + 1
    phases = [(e.id, e.phase) for e in graph.seen["episode"] if e.id == 2]
    R = Episode
    assert phases == [(2, R.READY), (2, R.RESETTING), (2, R.READY), (2, R.RUNNING), (2, R.ENDED)]
    assert graph.world.resets >= 3


def test_episode_after_a_reset_has_no_observation_from_before_it(make_graph):
    graph = make_graph()
    at_reset = []
    on_reset = graph.world.move
    graph.world.on_reset = lambda: (at_reset.append(graph.world.stamp), on_reset())
    start(graph)
    reports(graph, Episode.ENDED, 3)
    for number, stamp in enumerate(at_reset[:3], start=1):
        assert to_ns(decisions_of(graph, number)[0].header.stamp) > stamp
        if number > 1:  # The reset waits for the final observation of the episode before.
            assert stamp > to_ns(decisions_of(graph, number - 1)[-1].header.stamp)


def test_task_success_with_a_stamp_ends_there_and_later_decisions_do_not_count(make_graph):
    graph = make_graph()
    start(graph, 6, max_episodes=1)
    sixth = decisions_of(graph, 1)[5]
    graph.world.success.publish(success(sixth.header.stamp))
    report = reports(graph, Episode.ENDED)[0]
    assert report.outcome == Episode.OUTCOME_SUCCESS and report.reason == "in the hole"
    assert report.header.stamp == sixth.header.stamp and report.steps == 5


@pytest.mark.parametrize(("button", "outcome"), BUTTON_PRESSES)
def test_button_tapped_for_one_message_ends_the_episode(make_graph, button, outcome):
    """Pitfall: a success button tapped within one poll was lost."""
    graph = make_graph()
    start(graph, 3, max_episodes=1)
    graph.world.press(**{button: True})
    graph.world.press()
    assert reports(graph, Episode.ENDED)[0].outcome == outcome


def test_discard_by_button_or_service_ends_the_episode_and_another_takes_its_place(make_graph):
    graph = make_graph()
    start(graph, 3, max_episodes=1, **{"joy.discard_button": 2, "joy.failure_button": -1})
    graph.world.press(failure=True, success=True)  # button 2, and one more with it
    graph.world.press()
    assert reports(graph, Episode.ENDED)[0].outcome == Episode.OUTCOME_DISCARDED
    reports(graph, Episode.RUNNING, 2)
    client = graph.world.create_client(Trigger, "discard_episode")
    graph.until(client.service_is_ready, "the service")
    call = client.call_async(Trigger.Request())
    graph.until(call.done, "an answer")
    assert call.result().success
    assert reports(graph, Episode.ENDED, 2)[1].outcome == Episode.OUTCOME_DISCARDED


def test_start_button_begins_the_next_episode(make_graph):
    graph = make_graph()
    start(graph, auto_start=False, **{"joy.start_button": 2, "joy.failure_button": -1})
    assert not running(graph)
    tap(graph, failure=True)  # button 2
    reports(graph, Episode.RUNNING)


def buttons_publisher(graph):
    """In place of the arbiter's, for messages that no device in lock-step sends."""
    publisher = graph.world.create_publisher(OperatorButtons, "operator_buttons", RELIABLE_100)
    graph.until(publisher.get_subscription_count, "the episode node's subscription")
    return publisher


def test_start_button_just_after_an_end_is_ignored(make_graph, steady):
    """A click that was meant for the end of an episode began the reset."""
    graph = make_graph()
    start(graph, auto_start=False)
    buttons = buttons_publisher(graph)
    press = OperatorButtons(device="pad", pressed=["start"])
    buttons.publish(press)
    reports(graph, Episode.RUNNING)
    buttons.publish(OperatorButtons(device="pad", pressed=["failure"]))
    buttons.publish(press)
    reports(graph, Episode.ENDED)
    idle(graph)
    assert graph.seen["episode"][-1].phase == Episode.ENDED
    steady.advance(1.1)
    buttons.publish(press)
    reports(graph, Episode.RUNNING, 2)


def test_button_of_a_clock_that_is_ahead_does_not_hold_up_the_next_episode(make_graph):
    """Regression: a joystick on wall time in a simulation left the node in ENDED for ever."""
    graph = make_graph()
    start(graph, 3)
    ahead = graph.world.stamp + 10**15
    buttons = buttons_publisher(graph)
    message = OperatorButtons(device="pad", pressed=["failure"])
    message.header.stamp = to_msg(ahead)
    buttons.publish(message)
    assert to_ns(reports(graph, Episode.ENDED)[0].header.stamp) < ahead
    reports(graph, Episode.RUNNING, 2)


def test_pace_with_a_learner_behind_waits(make_graph):
    graph = make_graph()
    start(graph, pace=True)
    graph.world.learner.publish(LearnerStatus(steps=0, caught_up=True))
    reports(graph, Episode.ENDED, 1)
    reports(graph, Episode.READY, 4)  # at first, after its reset, and the same of episode 2
    graph.world.learner.publish(LearnerStatus(steps=10, caught_up=True))
    assert len(idle(graph)) == 1
    graph.world.learner.publish(LearnerStatus(steps=11, caught_up=True))
    reports(graph, Episode.RUNNING, 2)


@pytest.mark.parametrize(
    "broken", [{"reset_works": False}, {"reset_answers": False}], ids=["refused", "no answer"]
)
def test_reset_that_fails_is_called_again_until_it_works(make_graph, steady, broken):
    """Pitfall: no deadline on the handshake; the phase stayed RESETTING without a word."""
    graph = make_graph()
    vars(graph.world).update(broken)
    start(graph, reset_timeout=1.0)
    graph.until(lambda: steady.advance(0.1) or graph.world.resets >= 2, "a second call")
    assert graph.seen["episode"][-1].phase == Episode.RESETTING
    vars(graph.world).update(dict.fromkeys(broken, True))
    graph.until(lambda: steady.advance(0.1) or running(graph), "the episode")


def test_reset_is_called_again_when_its_service_is_started_anew(make_graph, steady):
    """Regression: a reset node that was killed and restarted was waited for until reset_timeout."""
    graph = make_graph()
    world = graph.world
    world.reset_answers = False
    start(graph, reset_timeout=1000.0)
    graph.until(lambda: world.resets == 1, "the call")
    world.reset_answers = True
    world.create_service(Trigger, "reset", world._on_reset)  # DDS still lists the one that is dead
    graph.until(lambda: steady.advance(0.1) or running(graph), "the episode")


def test_answer_of_a_reset_that_was_stopped_does_not_end_the_next_one(make_graph, steady):
    graph = make_graph()
    graph.world.reset_answers = False
    start(graph, reset_timeout=1000.0)
    graph.until(lambda: graph.world.resets == 1, "the call")
    assert graph.arm(False).success
    graph.until(lambda: graph.seen["episode"][-1].phase == Episode.READY, "READY")
    assert graph.arm().success
    reports(graph, Episode.RESETTING, 2)
    node = graph.nodes[-1]
    node._reset_call.set_result(Trigger.Response(success=True))
    graph.until(lambda: steady.advance(0.1) or graph.world.resets == 2, "a call of its own")
    assert not running(graph)


def test_episode_without_a_recorder_does_not_begin(make_graph):
    """Regression: a recorder that refused its bag had ended, and nothing was recorded."""
    graph = make_graph()
    start(graph, wait_for_recorder=True, max_steps=0)
    reports(graph, Episode.READY, 2)  # at first, and after its reset
    assert not idle(graph)
    replay = graph.world.create_publisher(Step, "replay", 10)
    graph.until(lambda: len(decisions_of(graph, 1)) >= 3, "3 decisions")
    graph.world.destroy_publisher(replay)
    graph.until(lambda: not graph.nodes[-1]._core.recorder_seen, "the recorder's end")
    graph.world.press(success=True)
    graph.world.press()
    graph.until(lambda: graph.seen["episode"][-1].id == 2, "the next episode")
    assert "recorder" in reports(graph, Episode.ENDED)[0].unrecorded
    graph.until(lambda: graph.world.resets >= 2, "its reset")
    idle(graph)
    assert graph.seen["episode"][-1].phase == Episode.READY


def test_watchdog_that_falls_silent_is_named_in_the_diagnostics(make_graph, steady):
    graph = make_graph()
    start(graph)
    sent = graph.world.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
    found = []
    graph.world.create_subscription(DiagnosticArray, "/diagnostics", found.append, RELIABLE)
    node = graph.nodes[-1]
    report = DiagnosticArray(status=[DiagnosticStatus(name="watchdog: arbiter")])
    received = lambda: sent.publish(report) or node._monitor._received  # noqa: E731
    graph.until(received, "the watchdog's report")

    def named():
        steady.advance(0.5)
        statuses = [s for message in found for s in message.status if s.name.endswith(": nodes")]
        return any("watchdog: no message" in s.message for s in statuses)

    graph.until(named, "the watchdog to be missed")


def test_task_success_without_a_stamp_ends_the_episode_now(make_graph):
    graph = make_graph()
    start(graph, 3, max_episodes=1)
    newest = to_ns(decisions_of(graph, 1)[-1].header.stamp)
    graph.world.success.publish(success())
    report = reports(graph, Episode.ENDED)[0]
    assert report.outcome == Episode.OUTCOME_SUCCESS and report.reason == "in the hole"
    assert to_ns(report.header.stamp) >= newest


def test_task_success_of_a_clock_that_is_ahead_does_not_hold_up_the_next_episode(make_graph):
    """Regression: the node stayed in ENDED until its own clock had got there."""
    graph = make_graph()
    start(graph, 3)
    ahead = graph.world.stamp + 10**15
    graph.world.success.publish(success(to_msg(ahead)))
    assert to_ns(reports(graph, Episode.ENDED)[0].header.stamp) < ahead
    reports(graph, Episode.RUNNING, 2)


@pytest.mark.parametrize(
    ("stamp", "sim_time", "words"),
    [
        (0, False, "no stamp"),
        (0, True, "no stamp"),
        (5_000_000_000, False, ""),
        (5_000_000_001, False, "ahead"),
        (5_100_000_000, True, ""),  # lock-step: /clock of this very stamp is still on its way
        (6_100_000_000, True, "1.100 s ahead"),
    ],
)
def test_stamp_problem_names_what_is_wrong_with_a_stamp(stamp, sim_time, words):
    problem = stamp_problem(stamp, 5_000_000_000, sim_time)
    assert words in problem and bool(words) == bool(problem)


def test_control_lost_for_the_timeout_truncates_with_the_reason(make_graph, steady):
    graph = make_graph()
    start(graph, 3, control_lost_timeout=3.0)
    graph.world.policy = lambda tick: [0.0] * 7
    graph.until_state(ControlState.FAULT)
    idle(graph)
    assert not [e for e in graph.seen["episode"] if e.phase == Episode.ENDED]
    graph.until(
        lambda: steady.advance(0.5) or graph.seen["episode"][-1].phase != Episode.RUNNING, "the end"
    )
    report = reports(graph, Episode.ENDED)[0]
    assert report.outcome == Episode.OUTCOME_TRUNCATED
    assert "FAULT" in report.reason and "7 entries" in report.reason


def test_parameters_set_while_it_runs_count_from_the_next_episode_and_bad_ones_are_refused(
    make_graph,
):
    graph = make_graph()
    start(graph, max_episodes=1)
    reports(graph, Episode.ENDED, 1)
    reports(graph, Episode.READY, 3)
    assert not set_parameters(graph, max_steps=-1)[0].successful
    assert all(r.successful for r in set_parameters(graph, evaluation=True, max_steps=4))
    assert all(r.successful for r in set_parameters(graph, max_episodes=2))
    ended = reports(graph, Episode.ENDED, 3)
    assert [(e.evaluation, e.steps) for e in ended] == [(False, 10), (True, 4), (True, 4)]
    assert all(d.source == Decision.POLICY for d in graph.seen["decision"])
    assert to_msg(to_ns(ended[0].header.stamp)) == ended[0].header.stamp


@pytest.mark.parametrize("means", ["arm service", "stop topic"])
def test_abort_by_a_human_ends_the_episode_as_a_failure_with_the_reason(make_graph, means):
    """Regression: an abort was labelled as a time limit, so that it taught nothing."""
    graph = make_graph()
    start(graph, 3, max_episodes=1)
    stop = graph.world.create_publisher(Bool, "stop", LATCHED)
    graph.until(lambda: stop.get_subscription_count() >= 1, "a subscription of stop")
    if means == "arm service":
        assert graph.arm(False).success
    else:
        stop.publish(Bool(data=True))
    report = reports(graph, Episode.ENDED)[0]
    assert report.outcome == Episode.OUTCOME_FAILURE and report.steps >= 2
    words = {
        "arm service": "aborted: disarmed",
        "stop topic": "aborted: the stop signal on stop is on",
    }
    assert report.reason == words[means]
