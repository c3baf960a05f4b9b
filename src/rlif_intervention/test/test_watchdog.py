"""The watchdog: an arbiter that is killed or stopped leads to zeros from another process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from hypothesis import given
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from rlif_intervention.watchdog import PauseCall, Watchdog
from rlif_intervention.watchdog_node import WatchdogNode
from rlif_msgs.msg import ControlState


def test_silent_until_a_first_command():
    assert Watchdog().check(100.0) == (False, False)


def test_acts_after_the_timeout_until_the_arbiter_is_back_and_does_not_hear_itself():
    w = Watchdog(timeout=0.2)
    w.control(armed=True)
    w.command(1, 10.0)
    assert w.check(10.2) == (False, False)
    assert w.check(10.21) == (True, True)
    w.sent_zero(77)
    w.command(77, 10.22)
    assert w.check(10.23) == (True, False), "its own zero is no sign of life"
    assert w.check(1000.0) == (True, False)
    w.command(2, 1000.1)
    assert w.check(1000.2) == (False, False) and not w.tripped


def test_leaves_the_topic_to_others_after_an_arbiter_that_left_in_order():
    w = Watchdog(timeout=0.2, linger=1.0)
    w.control(armed=False)
    w.command(1, 10.0)
    assert w.check(11.1)[0] and not w.check(11.3)[0]


@given(st.lists(st.floats(0.001, 0.5), max_size=50))
def test_sends_exactly_while_the_last_command_is_older_than_the_timeout(gaps):
    w, now = Watchdog(timeout=0.2), 0.0
    w.control(armed=True)
    for number, gap in enumerate(gaps):
        w.command(number, now)
        now += gap
        assert w.check(now)[0] == (now - (now - gap) > 0.2) or abs(gap - 0.2) < 1e-6


@pytest.mark.parametrize(("timeout", "linger"), [(0.0, 1.0), (0.2, -1.0), (float("nan"), 0.0)])
def test_times_that_make_no_sense_are_refused(timeout, linger):
    with pytest.raises(ValueError, match="timeout"):
        Watchdog(timeout, linger)


def test_an_arbiter_that_never_comes_is_absent_after_a_while_and_gets_no_zeros():
    w = Watchdog(start_timeout=10.0)
    assert w.check(100.0) == (False, False) and not w.absent(109.9)
    assert w.absent(110.1) and w.check(110.1) == (False, False)
    w.command(1, 111.0)
    assert not w.absent(200.0), "silent is something else"
    assert not Watchdog(start_timeout=0.0).absent(1e9)


def test_a_pause_is_asked_for_until_it_is_confirmed():
    call = PauseCall(answer=2.0, retry=1.0)
    assert call.due(True, 0.0) is None, "nobody wants one"
    call.want()
    assert call.due(False, 0.0) is None and "not there" in call.problem
    ticket = call.due(True, 0.1)
    assert ticket is not None and call.due(True, 2.0) is None
    call.answered(ticket, "it answered no", 2.0)
    assert call.problem == "it answered no" and call.due(True, 2.5) is None
    assert call.due(True, 3.1) is not None
    assert call.due(True, 5.2) is not None, "no answer: again"
    assert "no answer" in call.problem
    call.answered(ticket, "", 5.3)
    assert call.confirmed and not call.problem and call.due(True, 99.0) is None


def test_a_pause_is_not_asked_for_any_more_when_the_arbiter_is_back():
    call = PauseCall()
    call.want()
    old = call.due(True, 0.0)
    call.forget()
    assert call.due(True, 9.0) is None and not call.problem
    call.want()
    call.answered(old, "", 9.1)  # of the loss before: undone since, for all we know
    assert not call.confirmed and call.due(True, 9.2) is not None


@pytest.fixture
def watchdog(make_graph):
    """(graph, statuses by name, requests): a watchdog whose pause service answers as told."""

    def start(answers, **values):
        graph = make_graph(lock_step=False)
        heard, asked = {}, []

        def answer(request, response):
            asked.append(request.data)
            response.success = answers.pop(0) if len(answers) > 1 else answers[0]
            response.message = "" if response.success else "not now"
            return response

        def report(message):
            heard.update({s.name.split(": ")[-1]: s for s in message.status})

        graph.world.create_subscription(DiagnosticArray, "/diagnostics", report, 10)
        graph.world.create_service(SetBool, "pause_servo", answer)
        values = {"pause_service": "pause_servo"} | values
        graph.add(WatchdogNode([Parameter(n, value=v) for n, v in values.items()]))
        return graph, heard, asked

    return start


@pytest.mark.ros
def test_a_watchdog_that_starts_late_pauses_and_a_refused_pause_is_said_and_asked_again(watchdog):
    graph, heard, asked = watchdog([False, True], start_timeout=0.5)
    graph.until(lambda: asked, what="a call")

    def said(word, level):
        status = heard.get("pause")
        return status is not None and word in status.message and status.level == level

    graph.until(lambda: said("not now", b"\2"), what="the refusal in the diagnostics")
    graph.until(lambda: said("is paused", b"\0"), what="the confirmation")
    assert asked == [True, True]
    assert "no arbiter" in heard["arbiter"].message and heard["arbiter"].level == b"\2"
    assert not graph.world.seen["command"], "the topic may be somebody else's"


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_an_arbiter_that_hangs_or_dies_leads_to_zeros_and_a_pause(make_graph, number):
    """Pitfalls: the sender died, the robot kept moving; the last command repeated for ever."""
    graph = make_graph(lock_step=False)
    world, paused = graph.world, []

    def answer(request, response):
        paused.append(request.data)
        response.success = True
        return response

    def tick():
        world.stamp = world.get_clock().now().nanoseconds
        world.move()

    def speed():
        return world.seen["command"][-1].twist.linear.x if world.seen["command"] else None

    def state():
        return world.seen["control_state"][-1] if world.seen["control_state"] else None

    world.create_service(SetBool, "pause_servo", answer)
    graph.add(WatchdogNode([Parameter("pause_service", value="pause_servo")]))
    timer = world.create_timer(0.1, tick)
    code = "from rlif_intervention.arbiter_node import main; raise SystemExit(main())"
    arguments = ["--ros-args", "-p", "stall_timeout:=1.0", "-p", "policy_timeout:=1.0"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        graph.until(state, what="the arbiter's process")
        assert graph.arm().success
        world.run_episode(1, start=world.get_clock().now().nanoseconds)
        graph.until(lambda: (speed() or 0.0) > 0.0, what="motion")
        process.send_signal(number)
        graph.until(lambda: speed() == 0.0 and paused == [True], what="zeros and a pause")
        count = len(world.seen["command"])
        graph.until(lambda: len(world.seen["command"]) > count + 75, what="1.5 s of zeros")
        if number == signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            graph.until(lambda: state().state == ControlState.FAULT, what="FAULT after a hang")
            assert "stood still" in state().reason
    finally:
        timer.cancel()
        process.kill()
        process.wait(10)
