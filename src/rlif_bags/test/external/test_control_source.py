# SPDX-License-Identifier: Apache-2.0
"""Which source was in control of an external recording, and when that is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from external_sessions import (
    ARM,
    SECOND,
    SOURCES,
    TYPES,
    Message,
    array,
    feed,
    jog,
    joint_session,
    session,
    sources_of,
    twist,
    until,
)


@pytest.mark.parametrize("make", [array, jog])
def test_control_source_joints_that_differ_from_the_policy_are_the_operator(make: Any) -> None:
    policy = [
        ("/policy", stamp - 500_000, *array(0.05, -0.1))
        for topic, stamp, _, _ in session()
        if topic == "/arm/twist"
    ]
    steps, _ = feed(
        joint_session(make, policy), **ARM, driver={"policy": "/policy", "threshold": 0.05}
    )
    assert sources_of(steps) == "ppppooo.pp|"


def test_control_source_before_its_first_message_is_a_gap() -> None:
    """Regression: the policy was taken to drive, though the operator may have."""
    late = [m for m in session() if m[0] != "/joy" or m[1] > SECOND + 48 * SECOND // 100]
    steps, report = feed(late)
    assert sources_of(steps) == SOURCES[5:] and steps[0].step_index == 5
    assert sum(report.gaps.values()) == 5
    assert any("nothing received yet" in line for line in report.lines())


def test_control_source_after_time_is_set_back_is_unknown() -> None:
    held = session(operator=range(0, 20))
    silent = [m for m in session() if m[0] != "/joy"]
    steps, report = feed([*held, *silent], as_they_are=True)
    assert sources_of(steps)[:5] == "ooooo"
    assert {s.episode_id for s in steps} == {1}, "nothing of the second part"
    assert any("time jumps by -" in line for line in report.lines())


def test_control_source_by_difference_to_the_policy() -> None:
    messages = session()
    messages += [twist(m[1] - 500_000, 0.05, "/policy") for m in messages if m[0] == "/arm/twist"]
    steps, _ = feed(messages, driver={"policy": "/policy", "threshold": 0.1})
    assert sources_of(steps) == SOURCES


def test_control_source_by_flag_or_always() -> None:
    kind = "std_msgs/msg/Bool"
    flags = [("/manual", m[1], kind, TYPES[kind](data=bool(m[3].buttons[4])))
             for m in session() if m[0] == "/joy"]  # fmt: skip
    messages = session() + flags
    assert sources_of(feed(messages, driver={"flag": "/manual"})[0]) == SOURCES
    assert sources_of(feed(messages, driver={"always": "operator"})[0]) == "o" * 10 + "|"


def test_control_source_unreadable_message_is_a_gap() -> None:
    """Steps of which nobody knows who drove must not become the policy's."""
    steps, report = feed(session(5), driver={"joy": "/joy", "button": 9})
    assert not steps and set(report.gaps) == {"the control source is not known"}
    assert any("bag: /joy at " in note for note in report.notes)


JOY = {"joy": "/joy", "button": 4}


@pytest.mark.parametrize("timeout", [None, 0.3])
def test_control_source_joystick_that_dies_while_held_times_out(timeout: float | None) -> None:
    """Regression: the operator was taken to drive for the rest of the bag."""
    dead = until(SECOND + 55 * SECOND // 100, "/joy", session(20, operator=range(4, 20)))
    driver = JOY if timeout is None else {**JOY, "timeout": timeout}
    steps, report = feed(dead, driver=driver)
    held = 7 if timeout is None else 5  # ticks
    assert sources_of(steps) == "pppp" + "o" * held + "|"
    assert steps[-1].step_index == 20 and steps[-2].step_index == held + 3, "what follows is a gap"
    assert report.gaps == {"the control source is not known": 20 - held - 4}
    assert any("s old, expected at most" in note and "/joy" in note for note in report.notes)


def test_control_source_without_timeout_notes_the_longest_silence() -> None:
    dead = until(SECOND + 55 * SECOND // 100, "/joy", session(20, operator=range(4, 20)))
    steps, report = feed(dead, driver={**JOY, "timeout": 0})
    assert sources_of(steps) == "pppp" + "o" * 16 + "|"
    assert any("/joy: its longest silence is 2.9 s" in note for note in report.notes)
    _, report = feed(session(), driver={**JOY, "timeout": 0})
    assert not report.notes


@pytest.mark.parametrize("ahead", [-3_000_000, 3_000_000])
def test_control_source_policy_message_before_the_command_marks_no_tick(ahead: int) -> None:
    """Regression: the verdict on the command before marked the tick in which the next one came."""
    messages = [m for m in session() if m[0] != "/arm/twist"]
    for tick in range(10):
        stamp = SECOND + tick * SECOND // 10 + 20_000_000 * (tick > 0)  # the first begins the ticks
        messages.append(twist(stamp - ahead, 0.05, "/policy"))
        messages.append(twist(stamp, 0.02 if 4 <= tick < 7 else 0.05))
    driver = {"policy": "/policy", "threshold": 0.1}
    steps, _ = feed(messages, driver=driver, release_dwell=0.0)
    assert sources_of(steps).count("o") == 3


def with_mode(kind: str, values: tuple[Any, Any]) -> list[Message]:
    """A session in which /mode tells the control source: the policy's value, the operator's."""
    modes = [
        ("/mode", m[1], kind, TYPES[kind](data=values[bool(m[3].buttons[4])]))
        for m in session()
        if m[0] == "/joy"
    ]
    return session() + modes


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("String", ("auto", "teleop")),
        ("Int32", (0, 11)),
        ("UInt8", (2, 3)),
        ("Bool", (True, False)),
    ],
)
def test_control_source_operator_values_tell_the_operator(
    kind: str, values: tuple[Any, Any]
) -> None:
    """Regression: any text, and any number but 0, was the operator's, without a word."""
    messages = with_mode(f"std_msgs/msg/{kind}", values)
    steps, report = feed(messages, driver={"flag": "/mode", "operator_values": [values[1]]})
    assert sources_of(steps) == SOURCES and not report.refused
    assert f"{values[1]!r} 30 times (operator)" in report.notes[-1]
    if kind != "Bool":
        steps, report = feed(messages, driver={"flag": "/mode"})
        assert not steps and report.refused == {"/mode": 300}
        assert "operator_values" in report.notes[0] and f"a std_msgs/msg/{kind}" in report.notes[0]


def test_control_source_value_in_neither_list_is_a_gap() -> None:
    messages = with_mode("std_msgs/msg/String", ("fault", "teleop"))
    driver = {"flag": "/mode", "operator_values": ["teleop"], "policy_values": ["auto"]}
    steps, report = feed(messages, driver=driver)
    assert sources_of(steps) == "ooo|" and report.refused == {"/mode": 270}
    assert "found 'fault', expected one of ['teleop', 'auto']" in report.notes[0]


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ({"operator_values": [True]}, "found 'teleop', text, expected a flag"),
        ({"operator_values": ["x"], "field": "mode"}, "found a std_msgs/msg/String without 'mode'"),
    ],
)
def test_control_source_value_of_another_kind_is_refused(driver: Any, message: str) -> None:
    """YAML's `on` is a flag, which no text equals: every step would be the policy's."""
    messages = with_mode("std_msgs/msg/String", ("teleop", "teleop"))
    steps, report = feed(messages, driver={"flag": "/mode", **driver})
    assert not steps and message in report.notes[0]


def spacenav(pressed: bool) -> list[Message]:
    """As spacenav_node of Humble: motion without buttons; a button in one message as it changes."""
    messages, before = [m for m in session() if m[0] != "/joy"], False
    for topic, stamp, kind, message in session():
        if topic != "/joy":
            continue
        held = bool(message.buttons[4])
        message.axes = np.array([0.0, 0.6 * held, 0.02, 0, 0, 0], np.float32)
        message.buttons = np.zeros(0, np.int32)
        messages.append((topic, stamp, kind, message))
        if pressed and held != before:
            button = TYPES[kind](message.header, message.axes, np.array([0, held], np.int32))
            messages.append((topic, stamp, kind, button))
        before = held
    return messages


def test_control_source_buttons_that_a_joy_leaves_out_are_remembered() -> None:
    """Regression: "index 0 is out of bounds for axis 0 with size 0", and all was refused."""
    steps, report = feed(spacenav(pressed=True), driver={"joy": "/joy", "button": 1})
    assert sources_of(steps) == SOURCES and not report.refused
    steps, report = feed(spacenav(pressed=True), driver={"joy": "/joy", "button": 0})
    assert "o" not in sources_of(steps) and "button 0 is never pressed" in report.notes[-1]


@pytest.mark.parametrize("more", [{}, {"axes": [0, 1, 2]}, {"motion_on": 0.5, "motion_off": 0.4}])
def test_control_source_by_motion_of_a_device(more: dict[str, Any]) -> None:
    steps, report = feed(spacenav(pressed=False), driver={"motion": "/joy", **more})
    assert sources_of(steps) == SOURCES and not report.refused and not report.notes


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ({"axes": [6]}, "found 6 axes, expected axes [6]"),
        ({"motion_on": 0.9}, "no axis ever moves beyond 0.9"),
    ],
)
def test_control_source_motion_that_cannot_be_is_noted(
    driver: dict[str, Any], message: str
) -> None:
    _, report = feed(spacenav(pressed=False), driver={"motion": "/joy", **driver})
    assert any(message in note for note in report.notes)


def test_control_source_joy_without_that_button_is_noted() -> None:
    steps, report = feed(session(), driver={"joy": "/joy", "button": 9})
    assert not steps and report.refused == {"/joy": 300}
    assert "found 5 buttons, expected button 9" in report.notes[0]
    assert "no message has button 9, the longest has 5" in report.notes[-1]
