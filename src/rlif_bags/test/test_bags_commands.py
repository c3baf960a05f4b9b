"""Actions of bags that this suite did not record: joint velocities and grippers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_episodes import run
from bag_sessions import (
    BY_HAND,
    SECOND,
    TYPES,
    Message,
    convert,
    drivers,
    header,
    mapping,
    session,
    write,
)

from rlif_bags.commands import relabel as relabel_command
from rlif_bags.external.commands import command_values, gripper_asked
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ForeignReport
from rlif_bags.external.steps import foreign_steps
from rlif_intervention.gripper import Gripper, GripperConfig
from rlif_intervention.ticks import Source

JOINTS = ["elbow", "wrist"]
ARM = {"output": "joint_velocity", "axes": JOINTS, "joint_scale": 0.5, "command": "/arm/joints"}
GRIPPER = {"topic": "/grip", "open": 0.08, "closed": 0.0}
GRIPPING = {**ARM, "axes": [*JOINTS, "gripper"], "gripper": GRIPPER}


def array(elbow: float, wrist: float) -> tuple[str, Any]:
    kind = "std_msgs/msg/Float64MultiArray"
    layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return kind, TYPES[kind](layout=layout, data=np.array([elbow, wrist]))


def joint_state(elbow: float, wrist: float) -> tuple[str, Any]:
    """With another joint first, and in another order."""
    kind, empty = "sensor_msgs/msg/JointState", np.zeros(0)
    return kind, TYPES[kind](header=header(0), name=["base", "wrist", "elbow"], position=empty,
                             velocity=np.array([9.0, wrist, elbow]), effort=empty)  # fmt: skip


def point(seconds: float, positions: list[float], velocities: list[float]) -> Any:
    duration = TYPES["builtin_interfaces/msg/Duration"](
        sec=int(seconds), nanosec=round(seconds % 1 * 1e9)
    )
    return TYPES["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=np.array(positions, float), velocities=np.array(velocities, float), accelerations=np.zeros(0),
        effort=np.zeros(0), time_from_start=duration,
    )  # fmt: skip


def trajectory(*points: Any, names: tuple[str, ...] = ("wrist", "elbow")) -> tuple[str, Any]:
    kind = "trajectory_msgs/msg/JointTrajectory"
    return kind, TYPES[kind](header=header(0), joint_names=list(names), points=list(points))


def as_the_arbiter(elbow: float, wrist: float) -> tuple[str, Any]:
    """On at the velocity, then to rest."""
    return trajectory(point(0.1, [wrist, elbow], [wrist, elbow]), point(0.3, [2, 1], [0, 0]))


def positions_only(elbow: float, wrist: float) -> tuple[str, Any]:
    return trajectory(point(0.5, [1, 1], []), point(1.0, [1 + wrist / 2, 1 + elbow / 2], []))


def jog(elbow: float, wrist: float) -> tuple[str, Any]:
    kind = "control_msgs/msg/JointJog"
    return kind, TYPES[kind](header=header(0), joint_names=["wrist", "elbow"],
                             displacements=np.zeros(0), velocities=np.array([wrist, elbow]),
                             duration=0.0)  # fmt: skip


def joint_session(make: Any, extra: list[Message] | None = None) -> list[Message]:
    """A session of twists in which each is a command to the joints instead."""
    messages = [
        ("/arm/joints", stamp, *make(m.twist.linear.x, -2.0 * m.twist.linear.x))
        if topic == "/arm/twist"
        else (topic, stamp, kind, m)
        for topic, stamp, kind, m in session()
    ]
    return sorted([*messages, *(extra or [])], key=lambda m: m[1])


@pytest.mark.parametrize("make", [array, joint_state, as_the_arbiter, positions_only, jog])
def test_joint_velocities_are_actions(tmp_path: Path, make: Any) -> None:
    steps, report = convert(write(tmp_path / "bag", joint_session(make)), **ARM)
    assert drivers(steps) == BY_HAND and not report.refused and not report.clipped
    assert steps[0].action.tolist() == pytest.approx([0.1, -0.2]), "policy: 0.05 of 0.5 rad/s"
    assert steps[4].action.tolist() == pytest.approx([0.04, -0.08])
    assert steps[4].action.dtype == np.float32


@pytest.mark.parametrize("make", [array, jog])
def test_joints_that_differ_from_the_policys_tell_who_drove(tmp_path: Path, make: Any) -> None:
    policy = [
        ("/policy", stamp - 500_000, *array(0.05, -0.1))
        for topic, stamp, _, _ in session()
        if topic == "/arm/twist"
    ]
    bag = write(tmp_path / "bag", joint_session(make, policy))
    steps, _ = convert(bag, **ARM, driver={"policy": "/policy", "threshold": 0.05})
    assert drivers(steps) == "ppppooo.pp|"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (trajectory(point(0.1, [1.0, 2.0], [])), "one point of positions"),
        (trajectory(point(0.5, [1, 1], []), point(0.5, [2, 2], [])), "more than 0"),
        (trajectory(point(0.1, [], [1.0, 1.0]), names=("wrist", "hip")), "'elbow'"),
        (trajectory(point(0.1, [], [1.0]), names=("wrist", "elbow")), "1 values for 2 joints"),
        (array(float("nan"), 0.0), "not finite"),
        (session()[0][2:], "neither trajectory, jog"),
    ],
)
def test_commands_that_say_no_velocity_are_refused(message: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        command_values(message[1], mapping(**ARM))


def test_a_jog_of_one_joint_leaves_the_others_and_none_stops() -> None:
    kind = TYPES["control_msgs/msg/JointJog"]

    def of(names: list[str], velocities: list[float], displacements: list[float]) -> Any:
        return kind(header=header(0), joint_names=names, displacements=np.array(displacements),
                    velocities=np.array(velocities), duration=0.0)  # fmt: skip

    assert command_values(of(["wrist"], [0.5], []), mapping(**ARM)).tolist() == [0.0, 1.0]
    assert command_values(trajectory()[1], mapping(**ARM)).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="displacements"):
        command_values(of(["wrist"], [], [0.1]), mapping(**ARM))
    with pytest.raises(ValueError, match="missing"):
        command_values(of(["hip"], [0.5], []), mapping(**ARM))


def number(kind: str, value: Any) -> tuple[str, Any]:
    return kind, TYPES[kind](data=value)


def grip_command(position: float) -> tuple[str, Any]:
    kind = "control_msgs/msg/GripperCommand"
    return kind, TYPES[kind](position=position, max_effort=10.0)


def finger_state(position: float) -> tuple[str, Any]:
    kind, empty = "sensor_msgs/msg/JointState", np.zeros(0)
    return kind, TYPES[kind](header=header(0), name=["other", "finger"], velocity=empty,
                             position=np.array([9.0, position]), effort=empty)  # fmt: skip


def finger_trajectory(position: float) -> tuple[str, Any]:
    return trajectory(point(0.1, [0.05], []), point(0.5, [position], []), names=("finger",))


@pytest.mark.parametrize(
    ("make", "joint"),
    [
        (lambda p: number("std_msgs/msg/Float64", p), ""),
        (lambda p: number("std_msgs/msg/Float32", p), ""),
        (grip_command, ""),
        (finger_state, "finger"),
        (finger_trajectory, "finger"),
    ],
)
def test_positions_of_a_gripper_are_between_closed_and_open(make: Any, joint: str) -> None:
    of = mapping(**{**GRIPPING, "gripper": {**GRIPPER, **({"joint": joint} if joint else {})}})
    asked = [gripper_asked(make(p)[1], of) for p in (0.0, 0.02, 0.08, 0.2)]
    assert asked == pytest.approx([-1.0, -0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match="not finite"):
        gripper_asked(make(float("nan"))[1], of)


def test_a_flag_is_a_gripper_whichever_way_it_is_meant() -> None:
    closes = {"topic": "/grip", "open": 0, "closed": 1}
    of = mapping(**{**GRIPPING, "gripper": closes})
    bools = [number("std_msgs/msg/Bool", v)[1] for v in (False, True)]
    assert [gripper_asked(m, of) for m in bools] == [1.0, -1.0]
    for message in (number("std_msgs/msg/String", "open")[1], session()[0][3], array(1, 2)[1]):
        with pytest.raises(ValueError, match=r"gripper|text"):
            gripper_asked(message, of)


def at(tick: float, position: float) -> Message:
    return "/grip", SECOND + round(tick * SECOND / 10), *number("std_msgs/msg/Float64", position)


def test_the_gripper_is_latched_as_by_the_arbiter(tmp_path: Path) -> None:
    """0 before anybody asked; what is half way changes nothing; the newest of a tick counts."""
    asked = [at(1.2, 0.08), at(2.2, 0.04), at(3.2, 0.0), at(5.2, 0.0), at(5.7, 0.08), at(7.2, 0.03)]
    steps, report = convert(write(tmp_path / "bag", joint_session(array, asked)), **GRIPPING)
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
    assert drivers(steps) == BY_HAND and not report.refused and not report.clipped


def test_what_was_commanded_before_the_episode_holds_in_it(tmp_path: Path) -> None:
    steps, _ = convert(write(tmp_path / "bag", joint_session(array, [at(-2, 0.08)])), **GRIPPING)
    assert [s.action[-1] for s in steps[:-1]] == [1.0] * 10
    assert steps[0].step_index == 0 and steps[0].is_first, "it begins no episode"


def test_a_grasp_while_the_arm_stands_is_a_step_and_no_silence(tmp_path: Path) -> None:
    """A trajectory controller hears nothing while the arm stands; the gripper works meanwhile."""
    messages = joint_session(array, [at(11.5, 0.0), at(18.5, 0.08)])
    steps, report = convert(write(tmp_path / "bag", messages), **GRIPPING, episode_gap=0.95)
    assert report.episodes == 1 and len(steps) == 20 and steps[-1].is_last
    assert drivers(steps)[10:] == ".p......p|", "who grasps, drives"
    assert all(s.action[:2].tolist() == [0.0, 0.0] for s in steps[12:-1])
    assert [s.action[-1] for s in steps[9:-1]] == [0.0, 0.0] + [-1.0] * 7 + [1.0]


def test_a_gripper_that_cannot_be_read_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    messages = joint_session(array, [at(1.2, 0.08), at(4.2, float("nan"))])
    steps, report = convert(write(tmp_path / "bag", messages), **GRIPPING)
    assert report.refused == {"/grip": 1} and "not finite" in "\n".join(report.notes)
    assert [s.action[-1] for s in steps[:-1]] == [0.0] + [1.0] * 9


def test_twists_with_a_gripper(tmp_path: Path) -> None:
    messages = sorted([*session(), at(1.2, 0.0)], key=lambda m: m[1])
    changes = {"axes": ["x", "z", "gripper"], "gripper": GRIPPER}
    steps, _ = convert(write(tmp_path / "bag", messages), **changes)
    assert steps[4].action.tolist() == pytest.approx([0.2, -0.2, -1.0])


def test_one_message_for_arm_and_fingers(tmp_path: Path) -> None:
    def both(elbow: float, wrist: float) -> tuple[str, Any]:
        kind, message = joint_state(elbow, wrist)
        message.position = np.array([0.08, 0.0, 0.0])
        return kind, message

    gripper = {"topic": "/arm/joints", "joint": "base", "open": 0.08, "closed": 0}
    bag = write(tmp_path / "bag", joint_session(both))
    steps, report = convert(bag, **{**GRIPPING, "gripper": gripper})
    assert steps[0].action.tolist() == pytest.approx([0.1, -0.2, 1.0]) and not report.refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "position"}, "output"),
        ({"axes": ["elbow"]}, "output joint_velocity names of joints"),
        ({"output": "joint_velocity"}, "expected joints"),
        ({**ARM, "axes": []}, "axes"),
        ({**ARM, "axes": ["elbow", "elbow"]}, "each once"),
        ({**ARM, "axes": ["gripper"], "gripper": GRIPPER}, "axes"),
        ({**GRIPPING, "axes": ["gripper", *JOINTS]}, "last"),
        ({**GRIPPING, "axes": JOINTS}, "or neither"),
        ({**GRIPPING, "gripper": {}}, "or neither"),
        ({**GRIPPING, "gripper": {"topic": "/grip"}}, "expected topic, open and closed"),
        ({**GRIPPING, "gripper": {**GRIPPER, "open": 0.0}}, "two numbers"),
        ({**GRIPPING, "gripper": {**GRIPPER, "open": "wide"}}, "two numbers"),
        ({**GRIPPING, "gripper_threshold": 2.0}, "gripper_threshold"),
        ({**ARM, "joint_scale": 0.0}, "joint_scale"),
    ],
)
def test_a_wrong_mapping_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mapping(**changes)


def test_a_described_bag_of_joints_comes_with_a_mapping_that_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [
        ("/joint_states", stamp, kind, message)
        for topic, stamp, _, _ in session()
        if topic == "/arm/pose"
        for kind, message in [joint_state(0.0, 0.0)]
    ]
    for _, _, _, message in states:
        message.position = np.array([0.0, 0.1, 0.2])
    bag = write(tmp_path / "bag", joint_session(jog, states))
    assert run(relabel_command, bag, "--describe") == 0
    text = capsys.readouterr().out.split("--mapping:")[1]
    guess = yaml.safe_load(text)
    assert guess["output"] == "joint_velocity" and guess["command"] == "/arm/joints"
    assert guess["joints"] == ["base", "wrist", "elbow"], "as in the joint states"
    assert guess["axes"] == ["wrist", "elbow"], "as commanded"
    assert "axes: [wrist, elbow]\n" in text
    (tmp_path / "guess.yaml").write_text(text.replace("base_frame: base", "base_frame: world"))
    found = TopicMapping.read(tmp_path / "guess.yaml")
    assert len([*foreign_steps(bag, found, ForeignReport())]) == 11
