"""Who drove a session that this suite did not record, and when nobody knows."""

from __future__ import annotations

from pathlib import Path

import bag_sessions as foreign
import pytest
from arbiter_bench import Bench
from bag_sessions import (
    BY_COMMAND,
    BY_HAND,
    SECOND,
    TYPES,
    Message,
    convert,
    drivers,
    mapping,
    session,
    twist,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_bags.external.report import ForeignReport
from rlif_bags.external.steps import ForeignSteps

JOY = {"joy": "/joy", "button": 4}


def until(stamp: int, topic: str, messages: list[Message]) -> list[Message]:
    """Without what comes on `topic` after `stamp`."""
    return [m for m in messages if m[0] != topic or m[1] < stamp]


def test_until_the_driver_is_known_there_is_no_step_and_it_is_said(tmp_path: Path) -> None:
    """Regression: the policy was taken to drive, though the operator may have."""
    late = [m for m in session() if m[0] != "/joy" or m[1] > SECOND + 48 * SECOND // 100]
    steps, report = convert(write(tmp_path / "bag", late))
    assert drivers(steps) == BY_HAND[5:] and steps[0].step_index == 5
    assert sum(report.gaps.values()) == 5
    assert any("nothing received yet" in line for line in report.lines())


def test_when_time_is_set_back_nobody_knows_who_drives() -> None:
    held = session(operator=range(0, 20))
    silent = [m for m in session() if m[0] != "/joy"]
    report = ForeignReport()
    converter = ForeignSteps(mapping(), report)
    steps = []
    for topic, stamp, _, message in [*held, *silent]:
        steps += [step for _, step in converter.feed(topic, stamp, message)]
    steps += [step for _, step in converter.finish()]
    assert drivers(steps)[:5] == "ooooo"
    assert {s.episode_id for s in steps} == {1}, "nothing of the second part"
    assert any("time jumps by -" in line for line in report.lines())


def test_who_drove_by_a_difference_to_the_policy(tmp_path: Path) -> None:
    messages = session()
    messages += [twist(m[1] - 500_000, 0.05, "/policy") for m in messages if m[0] == "/arm/twist"]
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    steps, _ = convert(bag, driver={"policy": "/policy", "threshold": 0.1})
    assert drivers(steps) == BY_COMMAND


def test_who_drove_by_a_flag_or_always(tmp_path: Path) -> None:
    kind = "std_msgs/msg/Bool"
    flags = [("/manual", m[1], kind, TYPES[kind](data=bool(m[3].buttons[4])))
             for m in session() if m[0] == "/joy"]  # fmt: skip
    bag = write(tmp_path / "bag", sorted(session() + flags, key=lambda m: m[1]))
    assert drivers(convert(bag, driver={"flag": "/manual"})[0]) == BY_HAND
    assert drivers(convert(bag, driver={"always": "operator"})[0]) == "o" * 10 + "|"


def test_a_driver_that_cannot_be_read_is_nobody(tmp_path: Path) -> None:
    """Steps of which nobody knows who drove must not become the policy's."""
    bag = foreign.write(tmp_path / "bag", foreign.session(5))
    steps, report = foreign.convert(bag, driver={"joy": "/joy", "button": 9})
    assert not steps and set(report.gaps) == {"who drove is not known"}
    assert any(f"{bag}: /joy at " in note for note in report.notes)


@pytest.mark.parametrize("timeout", [None, 0.3])
def test_a_joystick_that_dies_while_held_does_not_drive_for_ever(
    tmp_path: Path, timeout: float | None
) -> None:
    """Regression: the operator was taken to drive for the rest of the bag."""
    dead = until(SECOND + 55 * SECOND // 100, "/joy", session(20, operator=range(4, 20)))
    driver = JOY if timeout is None else {**JOY, "timeout": timeout}
    steps, report = convert(write(tmp_path / "bag", dead), driver=driver)
    held = 7 if timeout is None else 5  # ticks
    assert drivers(steps) == "pppp" + "o" * held + "|"
    assert steps[-1].step_index == 20 and steps[-2].step_index == held + 3, "what follows is a gap"
    assert report.gaps == {"who drove is not known": 20 - held - 4}
    assert any("s old, expected at most" in note and "/joy" in note for note in report.notes)


def test_without_a_timeout_the_longest_silence_is_said(tmp_path: Path) -> None:
    dead = until(SECOND + 55 * SECOND // 100, "/joy", session(20, operator=range(4, 20)))
    bag = write(tmp_path / "bag", dead)
    steps, report = convert(bag, driver={**JOY, "timeout": 0})
    assert drivers(steps) == "pppp" + "o" * 16 + "|"
    assert any("/joy: its longest silence is 2.9 s" in note for note in report.notes)
    _, report = convert(write(tmp_path / "alive", session()), driver={**JOY, "timeout": 0})
    assert not report.notes


def test_what_was_commanded_in_a_gap_is_in_force_after_it(tmp_path: Path) -> None:
    """Regression: the tick after one without an observation got an action of 0."""
    messages = [
        m for m in session() if m[0] != "/arm/twist" or not m[1] - SECOND >= SECOND * 3 // 10
    ]
    # The last command falls into tick 3, which is not seen; then only the gripper-like silence.
    bad = foreign.pose(SECOND + 3 * SECOND // 10 - 1_000, float("nan"))
    late = [twist(SECOND + 35 * SECOND // 100, 0.08), twist(SECOND + 52 * SECOND // 100, 0.02)]
    bag = write(tmp_path / "bag", sorted([*messages, bad, *late], key=lambda m: m[1]))
    steps, _ = convert(bag, driver={"always": "operator"})
    by_index = {s.step_index: s.action.tolist() for s in steps if not s.is_last}
    assert sorted(by_index) == [0, 1, 2, 4, 5]
    assert by_index[4] == pytest.approx([0.8, -0.8]) and by_index[5] == pytest.approx([0.2, -0.2])


@pytest.mark.parametrize("ahead", [-3_000_000, 3_000_000])
def test_the_policy_speaking_first_makes_no_tick_the_operators(tmp_path: Path, ahead: int) -> None:
    """Regression: the verdict on the command before marked the tick in which the next one came."""
    messages = [m for m in session() if m[0] != "/arm/twist"]
    for tick in range(10):
        stamp = SECOND + tick * SECOND // 10 + 20_000_000 * (tick > 0)  # the first begins the ticks
        messages.append(twist(stamp - ahead, 0.05, "/policy"))
        messages.append(twist(stamp, 0.02 if 4 <= tick < 7 else 0.05))
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    driver = {"policy": "/policy", "threshold": 0.1}
    steps, _ = convert(bag, driver=driver, release_dwell=0.0)
    assert drivers(steps).count("o") == 3


def test_what_lies_beyond_the_end_is_no_gap(tmp_path: Path) -> None:
    """Regression: sensors that stop soon after the last command were reported as lost ticks."""
    messages = until(SECOND + 105 * SECOND // 100, "/arm/pose", session())
    steps, report = convert(write(tmp_path / "bag", messages))
    assert drivers(steps) == BY_HAND and not report.gaps and not report.notes


def test_a_topic_of_success_that_is_not_there_is_said(tmp_path: Path) -> None:
    """It may be right: nobody succeeded. It may be a typing error."""
    bag = write(tmp_path / "bag", session())
    _, report = convert(bag, success="/dnoe")
    assert report.notes == [f"{bag}: found no topic /dnoe (success): no episode ends in success"]


@settings(max_examples=30, deadline=None)
@given(
    hand=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12),
    dwell=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
)
def test_it_labels_as_the_arbiter_did_live(hand: list[tuple[int, bool]], dwell: float) -> None:
    """The bag of a session under the real arbiter: its commands, the joystick, the pose."""
    bench = Bench(dwell=dwell)
    bench.driving()
    began, before = bench.ms, len(bench.outputs)
    bench.decisions.clear()
    pressed = [held for count, held in hand for _ in range(count)]
    length = len(pressed) // 5 * 5
    bench.run(20 * length + 100, hand=lambda ms: pressed[min((ms - began) // 20, length - 1)])
    report = ForeignReport()
    driver = {"joy": "/joy", "button": 4}
    foreign_steps = ForeignSteps(
        mapping(driver=driver, release_dwell=dwell, axes=["x", "y"]), report
    )
    steps = []
    for ms, sent, _ in bench.outputs[before : before + length]:
        stamp = SECOND + ms * 1_000_000
        held = pressed[(ms - began) // 20]
        for topic, at, _, message in (
            foreign.pose(stamp, 0.0), foreign.joy(stamp, held), foreign.moved(stamp, sent),
        ):  # fmt: skip
            steps += [step for _, step in foreign_steps.feed(topic, at, message)]
    steps += [step for _, step in foreign_steps.finish()]
    live = [d for d in bench.decisions if began <= d.stamp / 1_000_000 < began + 20 * length]
    found = [(int(s.source), s.onset, s.intervention_id) for s in steps if not s.is_last]
    assert found == [(int(d.source), d.onset, d.intervention_id) for d in live]
