# SPDX-License-Identifier: Apache-2.0
"""The stand-ins of Servo against sessions of the real one, message by message.

The bags in recorded/ are MoveIt 2.12.4 (Jazzy) with its Panda; test_real_moveit.py writes them anew.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from rlif_node.states import ControlState as State
from servo_rules import follows, reported

from rlif_bags.reading.open import open_bag
from rlif_intervention.arbitration import ARMED
from rlif_moveit.servo_status import Dialect, condition
from rlif_sim.servo import Command, ServoConfig, follow

RECORDED = Path(__file__).parent / "recorded"
BAGS = sorted(path.name for path in RECORDED.iterdir())
FRAMES = ("panda_link0", "panda_link8")  # of the commands in these sessions, which tf has
STATUS, COMMAND = "/servo_node/status", "/servo_node/delta_twist_cmds"
TRAJECTORY = "/panda_arm_controller/joint_trajectory"
BRAKED = (
    0.45  # s after the last command in which the joints' acceleration limits bring the arm to rest
)
SILENT = 0.2  # s that a code is older than the command that it was about, at most


@dataclass
class Session:
    """Times in s of the log, from its begin."""

    codes: list[tuple[float, int]] = field(default_factory=list)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    speeds: list[tuple[float, float]] = field(
        default_factory=list
    )  # largest, rad/s, of trajectories
    states: list[tuple[float, State]] = field(default_factory=list)

    def moving(self, t: float, within: float) -> bool:
        """Whether a stand-in that got the same has followed a command other than zero shortly before."""
        at = bisect_left(self.commands, t + 0.02, key=lambda c: c[0])
        since = bisect_left(self.commands, t - within, key=lambda c: c[0])
        return any(np.any(c.twist) and taken(c, now) for now, c in self.commands[since:at])


def taken(command: Command, now: float) -> bool:
    """By both stand-ins, of rlif_moveit's tests and of rlif_sim."""
    twice = (
        follows(command.frame, round((now - command.stamp) * 1e9)) and command.frame in FRAMES,
        not follow(command, now, ServoConfig(frames=FRAMES)).refused,
    )
    assert twice[0] == twice[1]
    return twice[0]


@cache
def session(name: str) -> Session:
    found, refused = Session(), []
    with open_bag(RECORDED / name) as bag:
        first: int | None = None
        for connection, stamp, m in bag.decoded(bag.connections, lambda *why: refused.append(why)):
            first = stamp if first is None else first
            t = (stamp - first) / 1e9
            if connection.topic == STATUS:
                found.codes.append((t, m.code))
            elif connection.topic == COMMAND:
                twist = [getattr(v, a) for v in (m.twist.linear, m.twist.angular) for a in "xyz"]
                sent = m.header.stamp.sec + m.header.stamp.nanosec / 1e9 - first / 1e9
                found.commands.append((t, Command(np.array(twist), m.header.frame_id, sent)))
            elif connection.topic == TRAJECTORY:
                found.speeds.append((t, float(np.abs(m.points[-1].velocities).max())))
            elif connection.topic == "/rlif/control_state":
                found.states.append((t, State(m.state)))
    assert not refused
    return found


@pytest.mark.parametrize("name", BAGS)
def test_servo_moves_the_arm_only_soon_after_commands_that_the_stand_ins_take(name: str) -> None:
    seen = session(name)
    moved = [t for t, speed in seen.speeds if speed > 0.01]
    assert moved or name == "contact"
    assert [t for t in moved if not seen.moving(t, BRAKED)] == []


def test_servo_moves_the_arm_whenever_the_stand_ins_take_a_command() -> None:
    seen = session("commands")
    moved = [t for t, speed in seen.speeds if speed > 0.001]
    steady = [
        t
        for t, c in seen.commands
        if np.any(c.twist) and taken(c, t) and all(seen.moving(t - d, 0.03) for d in (0.1, 0.2))
    ]
    assert len(steady) > 100
    assert [t for t in steady if min(abs(t - u) for u in moved) > 0.05] == []


@pytest.mark.parametrize("name", BAGS)
def test_codes_come_with_the_commands_with_which_the_stand_in_reports_them(name: str) -> None:
    seen = session(name)
    assert seen.codes
    for t, code in seen.codes:
        assert reported(Dialect.JAZZY, code, seen.moving(t, SILENT)) == code, (t, code)


def test_recordings_have_most_codes() -> None:
    codes = {
        condition(Dialect.JAZZY, code).name for name in BAGS for _, code in session(name).codes
    }
    assert codes >= {
        *("NO_WARNING", "DECELERATE_FOR_COLLISION", "HALT_FOR_COLLISION"),
        *("DECELERATE_FOR_APPROACHING_SINGULARITY", "DECELERATE_FOR_LEAVING_SINGULARITY"),
    }


@pytest.mark.parametrize("name", BAGS)
def test_servo_is_silent_while_the_arbiter_is_not_armed(name: str) -> None:
    """As the stand-in, which the adapter has paused then."""
    seen = session(name)
    ends = [t for t, _ in seen.states[1:]] + [np.inf]
    for (since, state), until in zip(seen.states, ends, strict=True):
        if state not in ARMED:
            assert not [t for t, _ in seen.codes if since + 1.0 < t < until]


def test_servo_offers_its_status_as_the_adapter_asks_for_it() -> None:
    for name in BAGS:
        metadata = yaml.safe_load((RECORDED / name / "metadata.yaml").read_text(encoding="utf-8"))
        topics = metadata["rosbag2_bagfile_information"]["topics_with_message_count"]
        offered = {t["topic_metadata"]["name"]: t["topic_metadata"] for t in topics}
        assert offered[STATUS]["type"] == "moveit_msgs/msg/ServoStatus"
        profiles = offered[STATUS]["offered_qos_profiles"]
        text = str(profiles)
        assert "reliable" in text and "transient_local" in text
