# SPDX-License-Identifier: Apache-2.0
"""Steps that a mapping makes of external recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arbiter_bench import Bench
from external_sessions import (
    ARM,
    GRIPPER,
    GRIPPING,
    SECOND,
    SOURCES,
    TYPES,
    Message,
    array,
    convert,
    feed,
    header,
    jog,
    joint_session,
    joint_state,
    joy,
    mapping,
    moved,
    number,
    point,
    pose,
    session,
    sources_of,
    trajectory,
    twist,
    until,
    write_session,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_bags.external.commands import gripper_asked
from rlif_bags.external.report import ConversionReport
from rlif_bags.external.steps import ExternalSteps
from rlif_bags.reading.files import BagError
from rlif_intervention.gripper import Gripper, GripperConfig
from rlif_intervention.ticks import Source
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome


def at(tick: float, position: float) -> Message:
    return "/grip", SECOND + round(tick * SECOND / 10), *number("std_msgs/msg/Float64", position)


def test_steps_gripper_is_latched_as_by_the_arbiter() -> None:
    """0 before anybody asked; what is half way changes nothing; the newest of a tick counts."""
    asked = [at(1.2, 0.08), at(2.2, 0.04), at(3.2, 0.0), at(5.2, 0.0), at(5.7, 0.08), at(7.2, 0.03)]
    steps, report = feed(joint_session(array, asked), **GRIPPING)
    found = [s.action[-1] for s in steps[:-1]]
    live, states = Gripper(GripperConfig(threshold=0.5, interval=0.0)), []
    for tick in range(10):
        for _, stamp, _, message in asked:
            if tick == (stamp - SECOND) * 10 // SECOND:
                value = gripper_asked(message, mapping(**GRIPPING))
                live.drive(value, Source.OPERATOR, stamp * 1e-9)
        states.append(live.target)
    assert found == states == [0, 1, 1, -1, -1, 1, 1, 1, 1, 1]
    assert steps[0].action[:2].tolist() == pytest.approx([0.1, -0.2])
    assert sources_of(steps) == SOURCES and not report.refused and not report.clipped


def test_steps_gripper_commanded_before_the_episode_holds_in_it() -> None:
    steps, _ = feed(joint_session(array, [at(-2, 0.08)]), **GRIPPING)
    assert [s.action[-1] for s in steps[:-1]] == [1.0] * 10
    assert steps[0].step_index == 0 and steps[0].is_first, "it begins no episode"


def test_steps_grasp_while_the_arm_stands_holds_the_episode_open() -> None:
    """A trajectory controller hears nothing while the arm stands; the gripper works meanwhile."""
    messages = joint_session(array, [at(11.5, 0.0), at(18.5, 0.08)])
    steps, report = feed(messages, **GRIPPING, episode_gap=0.95)
    assert report.episodes == 1 and len(steps) == 20 and steps[-1].is_last
    assert sources_of(steps)[10:] == ".p......p|", "who grasps is in control"
    assert all(s.action[:2].tolist() == [0.0, 0.0] for s in steps[12:-1])
    assert [s.action[-1] for s in steps[9:-1]] == [0.0, 0.0] + [-1.0] * 7 + [1.0]


def test_steps_unreadable_gripper_message_is_refused_and_keeps_the_last() -> None:
    messages = joint_session(array, [at(1.2, 0.08), at(4.2, float("nan"))])
    steps, report = feed(messages, **GRIPPING)
    assert report.refused == {"/grip": 1} and "not finite" in "\n".join(report.notes)
    assert [s.action[-1] for s in steps[:-1]] == [0.0] + [1.0] * 9


def test_steps_twist_with_gripper_has_both_in_the_action() -> None:
    messages = [*session(), at(1.2, 0.0)]
    changes = {"axes": ["x", "z", "gripper"], "gripper": GRIPPER}
    steps, _ = feed(messages, **changes)
    assert steps[4].action.tolist() == pytest.approx([0.2, -0.2, -1.0])


def test_steps_features_from_start_are_relative_to_the_first_observation_of_each_episode() -> None:
    messages = [m for m in session() if m[0] != "/arm/pose"]
    stamps = range(
        min(m[1] for m in messages) - SECOND, max(m[1] for m in messages) + SECOND, SECOND // 50
    )
    poses = [pose(stamp, stamp / SECOND / 10) for stamp in stamps]  # 0.1 m/s
    steps, _ = feed(
        [*messages, *poses],
        features=["ee_position", "ee_position_from_start"],
    )
    start = None
    for step in steps:
        start = step.state[0] if step.is_first else start
        assert step.state[3] == pytest.approx(step.state[0] - start, abs=1e-6)
    assert steps[-1].state[3] > 0.05


def test_steps_one_topic_commands_arm_and_gripper() -> None:
    def both(elbow: float, wrist: float) -> tuple[str, Any]:
        kind, message = joint_state(elbow, wrist)
        message.position = np.array([0.08, 0.0, 0.0])
        return kind, message

    gripper = {"topic": "/arm/joints", "joint": "base", "open": 0.08, "closed": 0}
    steps, report = feed(joint_session(both), **{**GRIPPING, "gripper": gripper})
    assert steps[0].action.tolist() == pytest.approx([0.1, -0.2, 1.0]) and not report.refused


CAMERAS = {"cameras": {"l": "/left", "r": "/right"}, "image_width": 2, "image_height": 2}


def camera(name: str, stamp: int, taken: int) -> Any:
    kind = "sensor_msgs/msg/Image"
    image = TYPES[kind](
        header=header(taken), height=2, width=2, encoding="mono8", is_bigendian=0, step=2,
        data=np.zeros(4, np.uint8),
    )  # fmt: skip
    return f"/{name}", stamp, kind, image


def two_cameras(lag: int) -> list[Any]:
    messages = session(5)
    for centi in range(0, 250, 5):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 3_000_000
        messages += [camera("left", stamp, stamp), camera("right", stamp + 1, stamp - lag)]
    return messages


def test_steps_cameras_out_of_step_are_a_gap() -> None:
    steps, report = feed(two_cameras(0), **CAMERAS)
    assert len(steps) == 6 and not report.gaps
    messages = two_cameras(SECOND // 2)
    steps, report = feed(messages, **CAMERAS)
    assert not steps and set(report.gaps) == {"cameras out of step"}
    assert "bag: /left, /right at " in report.notes[0] and "0.500 s apart" in report.notes[0]
    assert "is empty" in report.notes[-1]
    steps, _ = feed(messages, **CAMERAS, max_camera_skew=0.0)
    assert len(steps) == 6


def test_steps_pose_not_finite_is_a_gap() -> None:
    broken = pose(SECOND + 2 * SECOND // 10 - 1, float("nan"))
    messages = [*session(5), broken]
    steps, report = feed(messages)
    assert [s.step_index for s in steps] == [0, 1, 3, 4, 5]
    assert sum(report.gaps.values()) == 1 and "/arm/pose at " in report.notes[0]


def test_steps_time_that_jumps_back_begins_a_new_episode() -> None:
    """Two files of one bag, the clock was set back in between."""
    report = ConversionReport(bag="bag")
    steps, found = ExternalSteps(mapping(), report), []
    for part in range(2):
        for topic, stamp, _, message in session(5):
            found += steps.feed(topic, stamp + (1 - part) * 3600 * SECOND, message)
    found += steps.finish()
    stamps = [stamp for stamp, _ in found]
    assert stamps == sorted(stamps) and report.episodes == 2
    assert [s.outcome for _, s in found if s.is_last] == [Outcome.TRUNCATED] * 2
    assert len(found) == 12
    assert [n for n in report.notes if "time jumps by -3" in n and " at 498000000 ns" in n]


def test_steps_slightly_overlapping_files_are_one_episode() -> None:
    """Regression: a bag whose next file began milliseconds before the last one ended."""
    whole = session(10)
    half = next(i for i, m in enumerate(whole) if m[1] >= SECOND + 45 * SECOND // 100)
    early, late = whole[half - 4 : half], whole[half : half + 4]
    swapped = [*whole[: half - 4], *late, *early, *whole[half + 4 :]]
    steps, report = feed(swapped, as_they_are=True)
    assert sources_of(steps) == SOURCES and report.episodes == 1
    assert report.late == 4 and "4 messages out of order" in "\n".join(report.lines())
    assert "the first out of order: logged 0.0" in report.notes[0]


def test_steps_silence_of_all_topics_is_noted() -> None:
    late = [(t, s + 100 * SECOND, k, m) for t, s, k, m in session(5)]
    steps, report = feed(session(5) + late)
    assert report.episodes == 2 and any("time jumps by +9" in note for note in report.notes)


def test_steps_one_topic_read_as_two_cameras() -> None:
    """Regression: the first of two names never got an image."""
    cameras = {"all": "/left", "corner": "/left"}
    steps, report = feed(
        two_cameras(0), **{**CAMERAS, "cameras": cameras}, rois={"corner": [0, 0, 1, 1]}
    )
    assert len(steps) == 6 and len(steps[0].images) == 2 and not report.gaps


def test_steps_command_of_a_gap_is_in_force_after_it() -> None:
    """Regression: the tick after one without an observation got an action of 0."""
    messages = [
        m for m in session() if m[0] != "/arm/twist" or not m[1] - SECOND >= SECOND * 3 // 10
    ]
    # The last command falls into tick 3, which is not seen; then only the gripper-like silence.
    bad = pose(SECOND + 3 * SECOND // 10 - 1_000, float("nan"))
    late = [twist(SECOND + 35 * SECOND // 100, 0.08), twist(SECOND + 52 * SECOND // 100, 0.02)]
    steps, _ = feed([*messages, bad, *late], driver={"always": "operator"})
    by_index = {s.step_index: s.action.tolist() for s in steps if not s.is_last}
    assert sorted(by_index) == [0, 1, 2, 4, 5]
    assert by_index[4] == pytest.approx([0.8, -0.8]) and by_index[5] == pytest.approx([0.2, -0.2])


def test_steps_sensors_that_stop_after_the_end_are_no_gap() -> None:
    """Regression: sensors that stop soon after the last command were reported as lost ticks."""
    messages = until(SECOND + 105 * SECOND // 100, "/arm/pose", session())
    steps, report = feed(messages)
    assert sources_of(steps) == SOURCES and not report.gaps and not report.notes


def test_external_steps_missing_success_topic_is_noted(tmp_path: Path) -> None:
    """It may be right: nobody succeeded. It may be a typing error."""
    bag = write_session(tmp_path / "bag", session())
    _, report = convert(bag, success="/dnoe")
    assert report.notes == [f"{bag}: found no topic /dnoe (success): no episode ends in success"]


@settings(max_examples=30, deadline=None)
@given(
    hand=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12),
    dwell=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
)
def test_steps_of_an_arbiter_session_have_its_sources_and_onsets(
    hand: list[tuple[int, bool]], dwell: float
) -> None:
    """The bag of a session under the real arbiter: its commands, the joystick, the pose."""
    bench = Bench(dwell=dwell)
    bench.driving()
    began, before = bench.ms, len(bench.outputs)
    bench.decisions.clear()
    pressed = [held for count, held in hand for _ in range(count)]
    length = len(pressed) // 5 * 5
    bench.run(20 * length + 100, hand=lambda ms: pressed[min((ms - began) // 20, length - 1)])
    report = ConversionReport()
    driver = {"joy": "/joy", "button": 4}
    external_steps = ExternalSteps(
        mapping(driver=driver, release_dwell=dwell, axes=["x", "y"]), report
    )
    steps = []
    for ms, sent, _ in bench.outputs[before : before + length]:
        stamp = SECOND + ms * 1_000_000
        held = pressed[(ms - began) // 20]
        for topic, at, _, message in (
            pose(stamp, 0.0), joy(stamp, held), moved(stamp, sent),
        ):  # fmt: skip
            steps += [step for _, step in external_steps.feed(topic, at, message)]
    steps += [step for _, step in external_steps.finish()]
    live = [d for d in bench.decisions if began <= d.stamp / 1_000_000 < began + 20 * length]
    found = [(int(s.source), s.onset, s.intervention_id) for s in steps if not s.is_last]
    assert found == [(int(d.source), d.onset, d.intervention_id) for d in live]


def test_steps_session_becomes_one_episode() -> None:
    steps, report = feed(session())
    assert sources_of(steps) == SOURCES
    assert [s.step_index for s in steps] == list(range(11)) == [s.sequence for s in steps]
    assert [s.onset for s in steps].index(True) == 4 and sum(s.onset for s in steps) == 1
    assert steps[-1].outcome == Outcome.TRUNCATED and steps[0].is_first
    assert np.flatnonzero(label_rewards(steps)[0]).tolist() == [3]
    assert (report.episodes, report.clipped, dict(report.refused)) == (1, 0, {})


def test_steps_actions_and_states_are_those_of_the_tick() -> None:
    steps, _ = feed(session())
    assert steps[0].action.tolist() == pytest.approx([0.5, -0.5])
    assert steps[4].action.tolist() == pytest.approx([0.2, -0.2])
    # The newest pose when the tick begins: the first one of that tick is logged just before it.
    assert [s.state[0] for s in steps] == pytest.approx(range(11), abs=1.0)


def test_steps_flicker_within_the_dwell_is_one_intervention(tmp_path: Path) -> None:
    """PITFALLS: one zero reading of the device ends an intervention."""
    messages = session(operator=range(3, 8))
    flicker = [joy(SECOND + 5 * SECOND // 10 + 15_000_000, False)]
    steps, _ = convert(write_session(tmp_path / "bag", messages + flicker))
    assert sum(s.onset for s in steps) == 1


def test_steps_silent_sensor_leaves_a_gap() -> None:
    silent = (SECOND + 3 * SECOND // 10, SECOND + 7 * SECOND // 10)
    messages = [m for m in session() if m[0] != "/arm/pose" or not silent[0] < m[1] < silent[1]]
    steps, report = feed(messages)
    indices = [s.step_index for s in steps]
    assert len(indices) < 11 and indices[-1] == 10
    assert indices == [s.sequence for s in steps]
    assert sum(report.gaps.values()) == 11 - len(indices)
    assert "ee_pose" in next(iter(report.gaps))


def test_steps_second_session_is_a_second_episode() -> None:
    later = [
        (topic, stamp + 4 * SECOND, kind, message) for topic, stamp, kind, message in session()
    ]
    steps, report = feed(session() + later)
    assert report.episodes == 2 and [s.episode_id for s in steps if s.is_last] == [1, 2]
    assert sum(s.onset for s in steps) == 2


def test_steps_success_ends_the_episode() -> None:
    kind = "std_msgs/msg/Bool"
    done = ("/done", SECOND + 6 * SECOND // 10, kind, TYPES[kind](data=True))
    messages = [m for m in session() if m[0] != "/arm/twist" or m[1] < done[1]]
    steps, _ = feed([*messages, done], success="/done")
    assert steps[-1].outcome == Outcome.SUCCESS and len(steps) == 7


def test_steps_success_false_ends_nothing() -> None:
    """Regression: each message on the topic ended the episode in success, whatever its value."""
    kind = "std_msgs/msg/Bool"
    no = [("/done", SECOND + n * SECOND // 5, kind, TYPES[kind](data=False)) for n in range(5)]
    steps, report = feed([*session(), *no], success="/done")
    assert report.episodes == 1 and steps[-1].outcome == Outcome.TRUNCATED


def test_steps_unusable_messages_are_refused_and_counted() -> None:
    messages = session()
    wrong = pose(SECOND + 45 * SECOND // 100, 0.0, frame="tool")
    broken = twist(SECOND + 46 * SECOND // 100, float("nan"))
    steps, report = feed([*messages, wrong, broken])
    assert report.refused == {"/arm/pose": 1, "/arm/twist": 1}
    notes = "\n".join(report.notes)
    assert "'tool', expected 'world'" in notes and "not finite" in notes
    assert all(np.isfinite(s.action).all() for s in steps)


def test_steps_command_in_another_frame_is_refused() -> None:
    messages = session()
    topic, stamp, kind, message = twist(SECOND + 45 * SECOND // 100, 0.05)
    message.header.frame_id = "tool"
    messages.append((topic, stamp, kind, message))
    _, report = feed(messages)
    assert report.refused == {"/arm/twist": 1}
    assert "frame_id is 'tool', that of the first was 'world'" in report.notes[0]


def test_steps_actions_beyond_the_scale_are_clipped_and_counted() -> None:
    steps, report = feed(session(), linear_scale=0.04)
    assert steps[0].action.tolist() == [1.0, -1.0] and report.clipped == 7


def test_external_steps_missing_topic_is_named(tmp_path: Path) -> None:
    bag = write_session(tmp_path / "bag", [m for m in session() if m[0] != "/joy"])
    with pytest.raises(BagError, match=r"no topic /joy \(of driver\)"):
        convert(bag)


def test_steps_repeated_success_is_one(tmp_path: Path) -> None:
    """Regression: a flag that stays true made an episode in success of each command after it."""
    kind = "std_msgs/msg/Bool"
    flags = [
        ("/done", SECOND + n * SECOND // 20, kind, TYPES[kind](data=n >= 12)) for n in range(40)
    ]
    steps, report = feed([*session(), *flags], success="/done")
    assert report.episodes == 1 and len(steps) == 8 and not report.refused
    assert steps[-1].outcome == Outcome.SUCCESS
    later = [(topic, stamp + 4 * SECOND, k, m) for topic, stamp, k, m in [*session(), *flags]]
    again = write_session(tmp_path / "again", [*session(), *flags, *later])
    steps, _ = convert(again, success="/done")
    assert [s.outcome for s in steps if s.is_last] == [Outcome.SUCCESS] * 2


def test_steps_success_after_the_end_is_noted() -> None:
    kind = "std_msgs/msg/Empty"
    steps, report = feed([*session(), ("/done", 5 * SECOND, kind, TYPES[kind]())], success="/done")
    assert steps[-1].outcome == Outcome.TRUNCATED and report.refused == {"/done": 1}
    assert any("success, but no episode is going on" in note for note in report.notes)


def test_steps_all_actions_clipped_is_noted() -> None:
    _, report = feed(session(), linear_scale=0.01)
    assert report.clipped == 10 and "all actions are clipped" in report.notes[-1]


def test_steps_commands_of_other_joints_on_the_topic_are_no_fault() -> None:
    other = [
        ("/arm/joints", m[1] + 1, *trajectory(point(0.1, [0.05], [0.0]), names=("finger",)))
        for m in session()
        if m[0] == "/arm/twist"
    ]
    steps, report = feed(joint_session(jog, other), **ARM)
    assert sources_of(steps) == SOURCES and not report.refused
    assert report.other_joints == {"/arm/joints": 50}
