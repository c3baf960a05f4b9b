# SPDX-License-Identifier: Apache-2.0
"""Who else can command the robot."""

from __future__ import annotations

from rlif_intervention.command_publishers import UNKNOWN, CommandPublishers

OURS = [("/left", "arbiter"), ("/left", "watchdog")]


def test_foreign_publishers_are_all_but_the_arbiter_and_the_watchdog_of_the_same_namespace():
    publishers = CommandPublishers("/left", "arbiter")
    assert publishers.foreign(OURS) == ""
    found = [*OURS, ("/right", "arbiter"), ("/", "teleop"), ("/", "teleop")]
    assert publishers.foreign(found) == "/right/arbiter, /teleop"


def test_publisher_without_a_name_is_foreign_from_the_second_look_in_a_row_on():
    """Regression: the own watchdog, just discovered, was a foreign publisher of commands."""
    publishers = CommandPublishers("/left", "arbiter")
    nameless = [*OURS, (UNKNOWN, UNKNOWN)]
    looks = [publishers.foreign(found) for found in (nameless, OURS, nameless, nameless)]
    assert looks[:3] == ["", "", ""] and UNKNOWN in looks[3]
