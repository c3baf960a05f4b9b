"""The watchdog: an arbiter that is killed or stopped leads to zeros from another process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from rlif_intervention.watchdog import Watchdog
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


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_an_arbiter_that_hangs_or_dies_leads_to_zeros_and_a_pause(make_graph, number):
    """Pitfalls: the sender died, the robot kept moving; the last command repeated for ever."""
    graph = make_graph(lock_step=False)
    world, paused = graph.world, []

    def answer(request, response):
        paused.append(request.data)
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
