# SPDX-License-Identifier: Apache-2.0
"""The deadman of a page, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_console.inputs import REST, Beats, Deadman, DeadmanConfig, Frame, MessageError, parse

PUSH = (0.5, 0.0, 0.0, 0.0, 0.0, 0.0)


def frame(sequence: int, held: bool = True, seen: int = 1, present: bool = True) -> Frame:
    return Frame(sequence, seen, present, held, PUSH)


def gripped(gap: float = 0.15) -> Deadman:
    """Held since 0.1, with a beat of 0.1."""
    deadman = Deadman(DeadmanConfig(gap=gap))
    deadman.beats.send(0.0)
    deadman.receive(frame(1, held=False), 0.05)
    deadman.beats.send(0.1)
    deadman.receive(frame(2, seen=2), 0.1)
    assert deadman.held and deadman.axes == PUSH
    return deadman


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "1", '{"type": 1}', '{"type": "input", "axes": [NaN]}',
        '{"type": "input", "axes": [Infinity]}', "[" * 5000,
    ],
)  # fmt: skip
def test_parse_malformed_message_is_refused(text):
    with pytest.raises(MessageError):
        parse(text)


@pytest.mark.parametrize(
    "change",
    [
        {"axes": [1e999, 0, 0, 0, 0, 0]}, {"axes": [1.01, 0, 0, 0, 0, 0]}, {"axes": [True, 0, 0, 0, 0, 0]},
        {"axes": [0] * 5}, {"axes": "000000"}, {"held": 1}, {"present": None}, {"sequence": -1},
        {"sequence": 2**60}, {"seen": "1"}, {"gripper": 2}, {"axes": [float("nan"), 0, 0, 0, 0, 0]},
    ],
)  # fmt: skip
def test_frame_out_of_range_is_refused(change):
    message = {"sequence": 1, "seen": 1, "present": True, "held": True, "axes": [0] * 6}
    assert Frame.of(message).axes == REST
    with pytest.raises(MessageError):
        Frame.of(message | change)


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_frame_of_any_json_is_a_frame_in_range_or_refused(value):
    message = {"sequence": 1, "seen": 1, "present": True, "held": True, "axes": value}
    try:
        found = Frame.of(message)
    except MessageError:
        return
    assert len(found.axes) == 6 and all(-1.0 <= v <= 1.0 for v in found.axes)


def test_deadman_gap_without_input_releases():
    deadman = gripped()
    assert not deadman.check(0.25)
    assert deadman.check(0.2501) and not deadman.held and deadman.axes == REST
    assert not deadman.check(0.3), "a release is reported once"


def test_deadman_after_a_gap_counts_only_after_the_person_let_go():
    deadman = gripped()
    deadman.check(1.0)
    deadman.receive(frame(3, seen=deadman.beats.send(1.0)), 1.0)
    assert not deadman.held and "no input" in deadman.reason
    deadman.receive(frame(4, held=False), 1.05)
    deadman.receive(frame(5, seen=deadman.beats.send(1.1)), 1.1)
    assert deadman.held


def test_deadman_frames_that_a_stall_kept_back_release():
    deadman = gripped()
    # All at once, 2 s late, and the person has let go and gripped again in between: the watchdog of
    # a console that stalled itself has not run either.
    for sequence, held in ((3, True), (4, False), (5, True)):
        deadman.receive(frame(sequence, held, seen=2), 2.1)
        assert not deadman.held
    assert "slower" in deadman.reason


def test_deadman_hidden_page_releases_and_is_not_present():
    deadman = gripped()
    deadman.receive(frame(3, seen=2, present=False), 0.15)
    assert not deadman.held and not deadman.present(0.15)


def test_deadman_page_that_connects_pressed_does_not_drive():
    deadman = Deadman(DeadmanConfig())
    deadman.receive(frame(1, seen=deadman.beats.send(0.0)), 0.0)
    assert not deadman.held and "down before" in deadman.reason


@pytest.mark.parametrize("sequence", [2, 1, 0])
def test_deadman_replayed_frame_is_refused_and_releases(sequence):
    deadman = gripped()
    with pytest.raises(MessageError):
        deadman.receive(frame(sequence, seen=2), 0.15)
    assert not deadman.held


def test_deadman_old_picture_releases():
    deadman = gripped()
    for step in range(1, 5):
        deadman.receive(frame(2 + step, seen=2), 0.1 + 0.1 * step)
    assert not deadman.held, "frames arrive, but the page sees nothing of ours any more"


def test_deadman_silent_operator_is_not_present():
    deadman = gripped()
    assert deadman.present(0.6) and not deadman.present(0.61)


def test_deadman_page_that_is_behind_is_not_present():
    deadman = gripped()
    deadman.receive(frame(3, held=False, seen=2), 0.39)
    assert deadman.present(0.39)
    deadman.receive(frame(4, held=False, seen=2), 0.41)
    assert not deadman.present(0.41), "it sends, but sees nothing of ours: it could not drive"


def test_beats_unknown_number_is_infinitely_old():
    beats = Beats(kept=2)
    numbers = [beats.send(float(n)) for n in range(3)]
    assert beats.age(numbers[2], 5.0) == 3.0
    assert beats.age(numbers[0], 5.0) == beats.age(99, 5.0) == float("inf")


def test_deadman_config_not_positive_is_refused():
    with pytest.raises(ValueError, match="gap"):
        DeadmanConfig(gap=0.0)
