# SPDX-License-Identifier: Apache-2.0
"""Servo follows the arbiter: selected, paused, unpaused; and what holds the policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlif_node.states import HoldReason

from rlif_intervention.diagnostics import Level
from rlif_moveit.servo_status import Dialect
from rlif_moveit.supervision import Request, ServoSupervisor, SupervisorConfig

OK, SINGULAR, COLLISION = 0, 2, 5
FIRST = frozenset({"one"})


class Rig:
    """A supervisor with a clock, and a Servo that answers when asked to."""

    def __init__(self, dialect=Dialect.JAZZY, **config):
        # Its arbiter has spoken once, and is believed for long unless a test says otherwise.
        config = {"arbiter_timeout": 1e6} | config
        self.core = ServoSupervisor(SupervisorConfig(**config), dialect)
        self.core.alive(0.0)
        self.now = 0.0
        self.asked = []

    def settle(self, seconds=0.0):
        """Answer every request, until none is left."""
        self.now += seconds
        while (request := self.core.next_request(self.now)) is not None:
            self.asked.append(request)
            ticket = self.core.sent(request, self.now)
            self.core.answered(request, ticket, "", self.now)
        return self

    def arm(self, operator=False):
        self.core.control(True, operator, self.now)
        return self.settle()

    def statuses(self, code, seconds, step=0.02, alive=True):
        """Servo says `code` for so long, and so does an arbiter that is `alive`."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if alive:
                self.core.alive(self.now)
            self.core.status(code, self.now)
        return self

    @property
    def code(self):
        return self.core.hold(self.now)[0]

    @property
    def reason(self):
        return self.core.reason(self.now)


def running(dialect=Dialect.JAZZY, **config):
    rig = Rig(dialect, **config)
    rig.core.seen(FIRST, True, rig.now)
    rig.settle()
    rig.arm()
    rig.statuses(OK, 1.0)
    assert rig.core.hold(rig.now) == (HoldReason.NONE, "")
    rig.asked.clear()
    return rig


def test_supervisor_of_a_new_servo_pauses_it_until_armed():
    rig = Rig()
    assert "not there" in rig.reason
    rig.core.seen(FIRST, True, 0.0)
    rig.settle()
    # Servo has no command type until it is told one: a refusal is seen before anybody arms.
    assert rig.asked == [Request.PAUSE, Request.SELECT] and "not armed" in rig.reason
    rig.asked.clear()
    rig.arm()
    assert rig.asked == [Request.SELECT, Request.UNPAUSE]
    assert rig.core.selected and rig.core.paused is False and rig.reason == ""


def test_supervisor_on_humble_selects_no_command_type():
    rig = Rig(Dialect.HUMBLE)
    rig.core.seen(FIRST, True, 0.0)
    rig.settle().arm()
    assert rig.asked == [Request.PAUSE, Request.UNPAUSE]


def test_supervisor_disarmed_and_armed_pauses_selects_and_unpauses():
    rig = running()
    rig.core.control(False, False, rig.now)
    rig.settle()
    assert rig.asked == [Request.PAUSE]
    rig.arm()
    assert rig.asked == [Request.PAUSE, Request.SELECT, Request.UNPAUSE]


def test_supervisor_pitfall_a_restarted_servo_is_selected_again_and_a_human_asked():
    rig = running()
    # The dead one's id stays for a while: what counts is that a new one is there.
    rig.core.seen(frozenset({"one", "two"}), True, rig.now)
    assert "not selected" in rig.reason
    rig.settle()
    assert rig.asked == [Request.SELECT, Request.UNPAUSE]
    rig.statuses(OK, 2.0)
    assert "restarted" in rig.reason
    rig.core.control(False, False, rig.now)
    rig.settle().arm()
    rig.statuses(OK, 0.1)
    assert rig.reason == ""


def test_supervisor_whose_old_servo_id_goes_sees_no_restart():
    rig = running()
    rig.core.seen(frozenset({"one", "two"}), True, rig.now)
    rig.settle()
    rig.asked.clear()
    rig.core.seen(frozenset({"two"}), True, rig.now)
    rig.settle()
    assert rig.asked == []


@pytest.mark.parametrize("code", [SINGULAR, COLLISION, 6, -1, 99])
def test_supervisor_at_a_halt_holds_until_the_operator_has_driven_out(code):
    rig = running()
    rig.statuses(code, 0.3)
    assert rig.reason and rig.code is HoldReason.SERVO_STATUS
    rig.statuses(OK, 5.0)  # zeros are sent meanwhile, and Servo is content with zeros
    assert rig.reason, "the policy would drive straight back into it"
    rig.core.control(True, True, rig.now)
    rig.statuses(OK, 5.0)
    assert rig.reason, "the operator took over, but has not moved the arm"
    push(rig, OK, 0.6, follows=1.0)
    assert rig.reason == ""


def test_supervisor_pushed_within_the_halt_holds_when_the_operator_lets_go():
    """Servo reports no warning for the zeros that follow, though the arm is where it was."""
    rig = running()
    rig.statuses(SINGULAR, 0.3)
    rig.core.control(True, True, rig.now)
    push(rig, SINGULAR, 1.0, follows=0.0)
    rig.core.command(False, rig.now)
    rig.statuses(OK, 2.0)
    assert "singularity" in rig.reason
    push(rig, OK, 0.3, follows=1.0)
    assert rig.reason
    push(rig, OK, 0.4, follows=1.0)
    assert rig.reason == ""


def test_supervisor_at_one_cycle_of_halt_does_not_hold():
    rig = running()
    rig.core.status(SINGULAR, rig.now)
    rig.statuses(OK, 0.1)
    assert rig.reason == ""


def push(rig, code, seconds, follows):
    """The operator pushes at 0.1 m/s, and the arm moves `follows` of it."""
    end = rig.now + seconds
    begin = rig.now
    while rig.now < end:
        rig.core.command(True, rig.now, (0.1, 0.0))
        rig.core.pose((0.1 * follows * (rig.now - begin), 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        rig.statuses(code, 0.02)


@pytest.mark.parametrize(("code", "where"), [(4, "collision"), (1, "singularity")])
def test_supervisor_of_an_arm_slowed_to_a_standstill_holds_until_a_reset(code, where):
    """Servo scales every direction, and reports no halt: the policy would push for ever."""
    rig = running()
    push(rig, code, 2.5, follows=0.05)
    assert "standstill" in rig.reason and where in rig.reason and "reset" in rig.reason
    assert rig.code is HoldReason.NOT_MOVING
    rig.core.control(True, True, rig.now)
    push(rig, code, 5.0, follows=0.05)
    assert "standstill" in rig.reason, "pushing on, with Servo still slowing down, clears nothing"
    rig.core.inhibit("a reset")
    rig.core.inhibit("")
    rig.settle()
    rig.statuses(OK, 0.1)
    assert rig.reason == ""


@pytest.mark.parametrize("code", [1, 4])
def test_supervisor_of_a_slowed_arm_that_moves_does_not_hold(code):
    rig = running()
    push(rig, code, 6.0, follows=0.5)
    assert rig.reason == ""
    rig.statuses(code, 6.0)  # nobody pushes
    push(rig, OK, 6.0, follows=0.0)  # Servo does not slow it down
    assert rig.reason == ""


def test_supervisor_out_of_a_standstill_by_driving_holds_no_more():
    rig = running()
    push(rig, 4, 2.5, follows=0.0)
    rig.core.control(True, True, rig.now)
    push(rig, OK, 0.3, follows=1.0)
    assert rig.reason
    push(rig, OK, 0.4, follows=1.0)
    assert rig.reason == ""


def test_supervisor_disarmed_in_motion_pauses_when_the_commands_have_been_zero():
    """Paused at once, Servo would stop the joints with a jerk in place of the deceleration."""
    rig = running()
    rig.core.command(True, rig.now)
    rig.core.control(False, False, rig.now)
    for _ in range(10):  # the arbiter brakes for 0.1 s
        rig.now += 0.01
        rig.core.command(True, rig.now)
        assert rig.core.next_request(rig.now) is None
    assert "not armed" in rig.reason
    rig.now += 0.14
    rig.core.command(False, rig.now)
    assert rig.core.next_request(rig.now) is None
    rig.settle(0.02)
    assert rig.asked == [Request.PAUSE]


def test_supervisor_disarmed_while_commands_go_on_pauses_at_the_deadline():
    rig = running()
    rig.core.control(False, False, rig.now)
    begin = rig.now
    while not rig.asked and rig.now < begin + 2.0:
        rig.core.command(True, rig.now)
        rig.core.alive(rig.now)
        rig.settle(0.01)
    assert rig.asked == [Request.PAUSE] and rig.now - begin == pytest.approx(0.5, abs=0.02)


def test_supervisor_of_a_reset_or_a_dead_arbiter_pauses_at_once():
    rig = running()
    rig.core.command(True, rig.now)
    rig.core.inhibit("a reset")
    assert rig.core.next_request(rig.now) is Request.PAUSE
    rig = running(arbiter_timeout=0.5)
    rig.core.alive(rig.now)
    rig.now += 0.6
    rig.core.command(True, rig.now)  # somebody else's
    rig.core.look(rig.now)
    assert rig.core.next_request(rig.now) is Request.PAUSE


def test_supervisor_slowed_down_only_warns():
    rig = running()
    rig.statuses(1, 1.0)
    assert rig.reason == ""
    assert [s.level for s in rig.core.diagnostics(rig.now)] == [Level.OK, Level.WARN]


def test_supervisor_inhibited_pauses_and_clears_a_halt():
    rig = running()
    rig.statuses(COLLISION, 0.3)
    rig.core.inhibit("the arm is being reset")
    rig.settle()
    assert rig.asked == [Request.PAUSE]
    assert "being reset" in rig.reason and rig.code is HoldReason.PLANNING
    rig.core.inhibit("")
    rig.settle()
    assert rig.core.paused is False
    rig.statuses(OK, 0.1)
    assert rig.reason == ""


def test_supervisor_of_a_silent_servo_holds_and_does_not_unpause():
    rig = running()
    rig.settle(1.0)
    assert "no status" in rig.reason
    assert rig.asked == []
    rig.statuses(OK, 0.1)
    assert rig.reason == ""


@pytest.mark.parametrize("armed", [False, True])
def test_supervisor_refused_reports_it_and_retries(armed):
    rig = Rig()
    rig.core.seen(FIRST, True, 0.0)
    rig.core.answered(Request.PAUSE, rig.core.sent(Request.PAUSE, 0.0), "", 0.0)
    rig.core.control(armed, False, 0.0)
    request = rig.core.next_request(0.0)
    rig.core.answered(request, rig.core.sent(request, 0.0), "no such type", 0.0)
    assert "no such type" in rig.reason
    assert rig.core.next_request(0.5) is None
    assert rig.core.next_request(1.1) is Request.SELECT
    rig.settle(1.2)
    assert rig.reason == ("" if armed else "Servo is paused: the arbiter is not armed")


def test_supervisor_of_a_dead_arbiter_pauses_until_a_new_state():
    """What it said last, "armed", stands for ever on its latched topic."""
    rig = running(arbiter_timeout=0.5)
    rig.statuses(OK, 0.6, alive=False)
    rig.core.look(rig.now)
    assert "has it died" in rig.reason
    rig.settle()
    assert rig.asked == [Request.PAUSE]
    rig.core.seen(frozenset({"two"}), True, rig.now)  # Servo restarts
    rig.settle()
    assert rig.asked == [Request.PAUSE, Request.PAUSE, Request.SELECT]
    rig.core.inhibit("a reset")
    rig.core.inhibit("")  # the reset ends
    rig.settle()
    assert Request.UNPAUSE not in rig.asked
    rig.core.alive(rig.now)  # another arbiter, which has not said yet that it is disarmed
    rig.settle()
    rig.core.control(True, False, rig.now)  # its state is repeated
    rig.settle()
    assert Request.UNPAUSE not in rig.asked and "disarm and arm" in rig.reason
    rig.core.control(False, False, rig.now)
    rig.core.control(True, False, rig.now)
    rig.settle()
    assert rig.asked[-1] is Request.UNPAUSE


def test_supervisor_without_a_heartbeat_pauses():
    core = ServoSupervisor(SupervisorConfig(), Dialect.JAZZY)
    core.seen(FIRST, True, 0.0)
    core.control(True, False, 0.0)
    assert core.next_request(0.0) is Request.PAUSE
    code, reason = core.hold(0.0)
    assert code is HoldReason.SERVO_PAUSED and "arbiter_heartbeat" in reason


def test_supervisor_without_an_answer_asks_again():
    rig = Rig()
    rig.core.seen(FIRST, True, 0.0)
    rig.core.sent(rig.core.next_request(0.0), 0.0)
    assert rig.core.next_request(1.9) is None
    assert rig.core.next_request(2.1) is Request.PAUSE
    assert "did not answer" in rig.core.reason(2.1)


def test_supervisor_pausing_does_not_wait_for_an_unpause():
    rig = Rig()
    rig.core.seen(FIRST, True, 0.0)
    rig.settle()
    rig.core.control(True, False, 0.0)
    select = rig.core.next_request(0.0)
    rig.core.answered(select, rig.core.sent(select, 0.0), "", 0.0)
    rig.core.sent(rig.core.next_request(0.0), 0.0)  # UNPAUSE, unanswered
    rig.core.control(False, False, 0.0)
    assert rig.core.next_request(0.0) is Request.PAUSE


def test_supervisor_ignores_an_answer_of_the_servo_before():
    rig = Rig()
    rig.core.seen(FIRST, True, 0.0)
    ticket = rig.core.sent(Request.PAUSE, 0.0)
    rig.core.seen(frozenset({"two"}), True, 0.1)
    rig.core.answered(Request.PAUSE, ticket, "", 0.2)
    assert rig.core.paused is None
    assert rig.core.next_request(0.2) is Request.PAUSE


def test_supervisor_without_servo_holds_and_names_the_remedy():
    rig = running()
    rig.core.seen(frozenset(), False, rig.now)
    assert rig.code is HoldReason.NOT_CONNECTED
    assert "start servo_node" in rig.reason and rig.core.next_request(rig.now) is None


events = st.lists(
    st.one_of(
        st.tuples(st.just("seen"), st.frozensets(st.sampled_from("abc"))),
        st.tuples(st.just("control"), st.booleans(), st.booleans()),
        st.tuples(st.just("inhibit"), st.sampled_from(["", "a reset"])),
        st.tuples(st.just("status"), st.integers(-2, 8)),
        st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
        st.tuples(st.just("heartbeat")),
        st.tuples(st.just("command"), st.booleans()),
        st.tuples(st.just("ask"), st.sampled_from(["", "no", None])),
    ),
    max_size=40,
)


class Model:
    """The supervisor, and what a test must know to say whether it may unpause Servo."""

    def __init__(self, dialect):
        self.rig = Rig(dialect, arbiter_timeout=5.0)
        self.armed = self.inhibited = False
        self.beat = 0.0  # time of the last heartbeat

    @property
    def alive(self):
        return self.rig.now - self.beat <= 5.0

    def seen(self, instances):
        self.rig.core.seen(instances, bool(instances), self.rig.now)

    def control(self, armed, operator):
        self.armed = armed
        self.rig.core.control(armed, operator and armed, self.rig.now)

    def inhibit(self, reason):
        self.inhibited = bool(reason)
        self.rig.core.inhibit(reason)

    def status(self, code):
        self.rig.core.status(code, self.rig.now)

    def heartbeat(self):
        self.armed = self.armed and self.alive
        self.rig.core.alive(self.rig.now)
        self.beat = self.rig.now

    def command(self, moves):
        self.rig.core.command(moves, self.rig.now)

    def wait(self, seconds):
        self.rig.now += seconds

    def ask(self, answer):
        core, now = self.rig.core, self.rig.now
        request = core.next_request(now)
        if request is None:
            return
        if request is Request.UNPAUSE:
            assert self.armed and not self.inhibited and self.alive and core.selected
        ticket = core.sent(request, now)
        if answer is not None:
            core.answered(request, ticket, answer, now)


@given(events, st.sampled_from(Dialect))
def test_supervisor_in_any_order_unpauses_only_when_armed_and_ends_right(script, dialect):
    model = Model(dialect)
    for name, *values in script:
        getattr(model, name)(*values)
    model.heartbeat()
    model.seen(FIRST)
    model.rig.settle(4.0)
    stopped = not model.armed or model.inhibited
    assert model.rig.core.paused == stopped
    assert model.rig.reason or not stopped


def test_supervisor_config_with_bad_times_is_refused_by_name():
    with pytest.raises(ValueError, match="status_timeout"):
        SupervisorConfig(status_timeout=0.0)
    with pytest.raises(ValueError, match="arbiter_timeout"):
        SupervisorConfig(arbiter_timeout=0.0)
    with pytest.raises(ValueError, match="halt_dwell"):
        SupervisorConfig(halt_dwell=-1.0)
