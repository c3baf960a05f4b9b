# SPDX-License-Identifier: Apache-2.0
"""An arm that is commanded to move and does not."""

from __future__ import annotations

import math

import pytest

from rlif_moveit.standstill import Standstill, StandstillConfig

LEVEL = (0.0, 0.0, 0.0, 1.0)


def found(speed, follows, turns=0.0, seconds=2.5, after=2.0):
    """Whether an arm counts as standing that moves `follows` of the commanded speeds."""
    core = Standstill(StandstillConfig(after=after))
    result = False
    for tick in range(round(seconds * 100)):
        now = tick * 0.01
        half = 0.5 * turns * follows * now
        core.command((speed, turns), now)
        core.pose((follows * speed * now, 0.0, 0.0), (0.0, 0.0, math.sin(half), math.cos(half)))
        result |= core.found(now)
    return result


@pytest.mark.parametrize(
    ("speed", "turns", "follows", "stands"),
    [
        (0.08, 0.0, 0.0, True),
        (0.08, 0.0, 0.1, True),  # it crawls
        (0.08, 0.0, 0.4, False),  # slow, but it moves
        (0.08, 0.0, 1.0, False),
        (0.0, 0.3, 0.0, True),
        (0.0, 0.3, 0.5, False),
        (0.0, 0.0, 0.0, False),  # nobody asks it to move
        (0.001, 0.0, 0.0, False),  # a trickle is no test
    ],
)
def test_standstill_compares_the_commanded_with_the_measured_way(speed, turns, follows, stands):
    assert found(speed, follows, turns) is stands


def test_standstill_is_found_only_after_the_whole_window():
    assert not found(0.08, 0.0, seconds=1.9)
    assert not found(0.08, 0.0, seconds=60.0, after=0.0), "switched off"


def test_standstill_without_a_pose_is_never_found():
    core = Standstill(StandstillConfig())
    for tick in range(500):
        core.command((0.1, 0.0), tick * 0.01)
        assert not core.found(tick * 0.01)


def test_standstill_after_a_pause_of_the_commands_does_not_count_the_pause():
    core = Standstill(StandstillConfig(after=2.0))
    core.pose((0.0, 0.0, 0.0), LEVEL)
    core.found(0.0)
    core.command((0.02, 0.0), 0.0)
    core.command((0.0, 0.0), 3.0)  # 3 s later: the first command was in force for a moment only
    assert not core.found(3.0)


@pytest.mark.parametrize(
    ("values", "name"),
    [({"after": -1.0}, "standstill_after"), ({"share": 1.0}, "standstill_share")],
)
def test_standstill_config_with_a_bad_value_is_refused_by_name(values, name):
    with pytest.raises(ValueError, match=name):
        StandstillConfig(**values)
