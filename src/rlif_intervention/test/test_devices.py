# SPDX-License-Identifier: Apache-2.0
"""Operator devices: layouts, edges, thresholds, priorities, locks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.devices import (
    AxisRest,
    ButtonEdges,
    ButtonMemory,
    Deadman,
    Device,
    DeviceMessageError,
    DeviceRack,
    JoyLayout,
    Lock,
    MotionGate,
    Reading,
    RepeatLimit,
)

XYZ = ("x", "y", "z")
REST = Reading(False, (0.0,) * 3)
PUSH = Reading(True, (1.0, 0.0, 0.0))


def test_layout_reads_flag_and_action_out_of_one_message():
    reading = JoyLayout().read([0.1, -0.2, 5.0, 0, 0, 0], [1, 0, 0, 0], XYZ)
    assert reading == Reading(True, (0.1, -0.2, 1.0), frozenset({"deadman"}))


def test_layout_with_sign_deadzone_turbo_and_missing_axes_scales():
    layout = JoyLayout(
        axes=(1, 0, -1, -1, -1, 2),
        scales=(-1.0, 1.0, 1.0, 1.0, 1.0, 2.0),
        buttons=(("deadman", 4), ("turbo", 5)),
        deadzone=0.1,
        slow=0.5,
    )
    axes, wanted = [0.05, 0.4, 0.3], ("x", "y", "z", "yaw")
    assert layout.read(axes, [0] * 6, wanted).action == pytest.approx((-0.2, 0.0, 0.0, 0.3))
    assert layout.read(axes, [0] * 5 + [1], wanted).action == pytest.approx((-0.4, 0.0, 0.0, 0.6))


@pytest.mark.parametrize(
    ("axes", "buttons", "words"),
    [
        ([0.0, 0.0], [0] * 4, "2 axes, the layout uses axis 2"),
        ([0.0] * 6, [0] * 3, "3 buttons, the layout uses button 3"),
        ([math.nan] * 6, [0] * 4, "axis 0 of the Joy message is nan"),
        ([0.0, math.inf, 0.0], [0] * 4, "axis 1 of the Joy message is inf"),
    ],
)
def test_layout_with_a_message_that_cannot_be_used_raises_by_name(axes, buttons, words):
    with pytest.raises(DeviceMessageError, match=words):
        JoyLayout().read(axes, buttons, XYZ)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_layout_with_any_axes_gives_actions_in_minus_one_to_one(axes):
    action = JoyLayout(deadzone=0.05).read(axes, [0] * 4, XYZ).action
    assert all(-1.0 <= v <= 1.0 for v in action)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_button_edges_have_each_press_once_and_none_at_first(states):
    edges = ButtonEdges()
    names = [edges.pressed(frozenset({"success"} if s else ())) for s in states]
    expected = [b and not a for a, b in zip(states, states[1:], strict=False)]
    assert [bool(n) for n in names] == [False, *expected]


def test_motion_gate_takes_over_above_on_and_lets_go_below_off():
    gate = MotionGate(on=0.2, off=0.1)
    trace = [0.05, 0.15, 0.19, 0.21, 0.15, 0.11, 0.15, 0.09, 0.15]
    found = [gate.update((0.0, v)) for v in trace]
    assert found == [False, False, False, True, True, True, True, False, False]


@pytest.mark.parametrize(("on", "off"), [(0.1, 0.1), (0.1, 0.2), (0.1, 0.0), (1.5, 0.1)])
def test_motion_gate_without_hysteresis_is_refused(on, off):
    with pytest.raises(ValueError, match="off"):
        MotionGate(on, off)


def test_device_that_is_silent_is_not_engaged_and_names_it():
    device = Device("mouse", timeout=0.5)
    assert "no message" in device.problem(0.0)
    device.update(PUSH, 1.0)
    assert device.engaged(1.5) and device.problem(1.5) is None
    assert not device.engaged(1.51) and "silent" in device.problem(1.51)


def test_deadman_that_goes_silent_is_let_go():
    deadman = Deadman(timeout=0.5)
    assert not deadman.held(0.0)
    deadman.update(True, 1.0)
    assert deadman.held(1.5) and not deadman.held(1.6)
    deadman.update(False, 1.6)
    assert not deadman.held(1.6)


def test_device_that_was_never_moved_is_known():
    device = Device("mouse")
    for t in range(5):
        device.update(REST, float(t))
    assert not device.moved
    device.update(Reading(False, (0.0, 0.01, 0.0)), 5.0)
    assert device.moved


def rack(locks=()):
    devices = [Device("pad", priority=10), Device("mouse", priority=50), Device("keys", priority=1)]
    return DeviceRack(devices, list(locks))


def test_rack_with_several_engaged_devices_takes_the_highest_priority():
    r = rack()
    for name in ("keys", "pad"):
        r.device(name).update(PUSH, 0.0)
    r.device("mouse").update(REST, 0.0)
    assert r.driving(0.1).name == "pad"
    r.device("mouse").update(PUSH, 0.1)
    assert r.driving(0.2).name == "mouse"
    assert r.driving(0.55).name == "mouse"  # pad and keys are silent by now
    assert r.driving(2.0) is None


def test_lock_masks_its_priority_and_below_and_holds_when_it_goes_silent():
    lock = Lock("pause", priority=10, timeout=1.0)
    r = rack([lock])
    r.device("pad").update(PUSH, 0.0)
    assert r.driving(0.0) is None, "a lock with a time-out that was never heard is held"
    lock.update(False, 0.0)
    assert r.driving(0.1).name == "pad"
    r.device("mouse").update(PUSH, 0.1)
    lock.update(True, 0.1)
    assert r.driving(0.2).name == "mouse"
    r.device("mouse").update(REST, 0.2)
    assert r.driving(0.3) is None


def test_rack_has_a_problem_only_without_any_live_device():
    r = rack()
    assert all(name in r.problem(0.0) for name in ("pad", "mouse", "keys"))
    r.device("keys").update(REST, 0.0)
    assert r.problem(0.1) is None
    with pytest.raises(KeyError, match="no device 'wheel'"):
        r.device("wheel")


def test_button_memory_with_a_message_without_buttons_keeps_them():
    # A 3D mouse's driver sends its motion so.
    memory, edges = ButtonMemory(), ButtonEdges()
    layout = JoyLayout(axes=(0, 1, 2, -1, -1, -1), buttons=(("arm", 0),))
    heard = []
    for buttons in ((), (0,), (), (1,), (), (1,), (0,), ()):
        heard.append(edges.pressed(layout.pressed(memory.complete(buttons))))
    assert [i for i, names in enumerate(heard) if names] == [3], "one press, one edge"


def test_rack_with_a_locked_device_does_not_count_it():
    lock = Lock("pause", priority=10)
    r = rack([lock])
    for name in ("pad", "mouse"):
        r.device(name).update(REST, 0.0)
    lock.update(True, 0.0)
    assert r.problem(0.1) is None, "the mouse is above the lock"
    assert r.lock_on(r.device("mouse"), 0.1) is None and r.lock_on(r.device("pad"), 0.1) is lock
    r.device("pad").update(REST, 1.0)
    assert "pad is locked by pause" in r.problem(1.0) and "mouse is silent" in r.problem(1.0)
    lock.update(False, 1.0)
    assert r.problem(1.0) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_device_with_a_number_that_is_not_finite_is_refused_by_name(bad):
    # At rest 0 times such a scale was read as -1: full speed.
    with pytest.raises(ValueError, match=r"joy scales is .*expected finite"):
        JoyLayout(scales=(bad, 1.0, 1.0, 1.0, 1.0, 1.0))
    for make, words in (
        (lambda: JoyLayout(deadzone=bad), "deadzone"),
        (lambda: JoyLayout(slow=bad), "slow"),
        (lambda: MotionGate(on=bad), "thresholds"),
        (lambda: MotionGate(off=bad), "thresholds"),
        (lambda: Deadman(bad), "deadman timeout"),
        (lambda: Device("pad", timeout=bad), "device pad timeout"),
        (lambda: Lock("pause", 10, timeout=bad), "lock pause timeout"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_rack_with_a_locked_device_takes_its_stop_button_only():
    lock = Lock("pause", priority=10)
    r = rack([lock])
    buttons = frozenset({"arm", "stop", "success", "failure", "discard"})
    assert r.effective(r.device("pad"), buttons, 0.0) == buttons
    lock.update(True, 0.0)
    assert r.effective(r.device("pad"), buttons, 0.1) == {"stop"}
    assert r.effective(r.device("mouse"), buttons, 0.1) == buttons, "above the lock"


def test_button_memory_with_buttons_left_out_completes_them():
    # spacenav_node: button 1 alone comes as [0, 1], button 0 alone as [1], motion as [].
    memory, edges = ButtonMemory(size=3), ButtonEdges()
    layout = JoyLayout(buttons=(("success", 0), ("failure", 1), ("arm", 2)))
    heard = []
    for buttons in ((), (1,), (), (0,), (0, 1), (), (0, 0), (1,), (0,)):
        heard.append(edges.pressed(layout.pressed(memory.complete(buttons))))
    expected = [(), ("success",), (), (), ("failure",), (), (), ("success",), ()]
    assert heard == [frozenset(names) for names in expected]


def test_device_with_idle_ok_may_be_silent_at_rest_only():
    device = Device("keys", timeout=0.5, idle_ok=True)
    assert "no message" in device.problem(0.0), "it must have been heard once"
    device.update(REST, 1.0)
    assert device.problem(100.0) is None and device.idle(100.0) and not device.idle(1.2)
    device.update(PUSH, 100.0)
    assert device.engaged(100.5) and not device.engaged(100.6)
    assert "silent" in device.problem(100.6), "silent while engaged: unplugged, for all one knows"


def play_rest(values, engaged=lambda now: False, period=0.05, now=0.0):
    """Whether the axis counts, after each of its values."""
    rest, counts = AxisRest(), []
    for value in values:
        counts.append(not rest.update({"z": value}, engaged(now), now))
        now += period
    return counts


@given(
    st.one_of(st.floats(0.101, 1.0), st.floats(-1.0, -0.101)),
    st.lists(st.booleans(), min_size=1, max_size=60),
)
def test_axis_rest_of_an_axis_that_is_off_centre_from_the_start_never_counts(value, deadman):
    engaged = iter(deadman)
    assert not any(play_rest([value] * len(deadman), lambda _: next(engaged)))


@given(st.lists(st.floats(-1.0, 1.0), max_size=20), st.integers(8, 40))
def test_axis_rest_of_an_axis_that_was_at_rest_counts_whatever_came_before(before, still):
    counts = play_rest([*before, *[0.0] * still, 1.0, 1.0])
    assert counts[-2:] == [True, True]


def test_axis_rest_of_a_stick_at_rest_counts_from_its_first_message_on():
    assert all(play_rest([0.0, 0.5, 1.0, -1.0, 0.05, 0.0]))


@pytest.mark.parametrize("passing", [[0.5, 0.0, -0.5, -1.0], [0.05, 0.0, -0.05, -0.08, -1.0]])
def test_axis_rest_of_a_trigger_that_passes_the_middle_does_not_count(passing):
    assert not any(play_rest([1.0, *passing, *passing[::-1], 1.0, 1.0]))


@pytest.mark.parametrize(("engaged", "counts"), [(False, False), (True, True)])
def test_axis_rest_of_a_trigger_after_its_first_press_counts_only_while_engaged(engaged, counts):
    # Reported as 0 until then. With the deadman held it may be a stick at its stop.
    assert play_rest([0.0, -1.0, *[1.0] * 30], lambda _: engaged)[-1] is counts


def test_axis_rest_of_a_stick_that_moves_off_centre_counts():
    assert all(play_rest([0.0] + [0.5 + 0.03 * (i % 2) for i in range(100)]))


def test_layout_with_a_trigger_reads_it_as_zero_to_one():
    layout = JoyLayout(axes=(0, 1, 2, -1, -1, -1), scales=(1, 1, -1, 1, 1, 1), triggers=(2,))
    for value, entry in ((1.0, 0.0), (0.0, -0.5), (-1.0, -1.0)):
        assert layout.read([0.0, 0.0, value], [0] * 4, XYZ).action == (0.0, 0.0, entry)
    assert layout.read([1.0, 1.0, -1.0], [0] * 4, XYZ, ignored={"z", "y"}).action == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("limit", "change", "engaged", "exceeded"),
    [
        (2.0, False, True, True),
        (2.0, True, True, False),
        (2.0, False, False, False),
        (0.0, False, True, False),
    ],
)
def test_repeat_limit_is_exceeded_by_identical_messages_while_engaged(
    limit, change, engaged, exceeded
):
    repeat, found = RepeatLimit(limit), []
    for i in range(60):
        axes = [1.0, 0.001 * (i % 40 == 39) if change else 0.0]
        found.append(repeat.exceeded(axes, [1], engaged, 0.05 * i))
    assert any(found) is exceeded and not any(found[:40])
    assert not repeat.exceeded([0.0, 0.0], [1], engaged, 9.0), "it changed"
