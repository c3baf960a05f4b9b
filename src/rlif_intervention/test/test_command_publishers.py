# SPDX-License-Identifier: Apache-2.0
"""Who else can command the robot."""

from __future__ import annotations

from rlif_intervention.command_publishers import foreign_publishers


def test_foreign_publishers_are_all_but_the_arbiter_and_the_watchdog_of_the_same_namespace():
    ours = [("/left", "arbiter"), ("/left", "watchdog")]
    assert foreign_publishers(ours, "/left", "arbiter") == ""
    found = [*ours, ("/right", "arbiter"), ("/", "teleop"), ("/", "teleop")]
    assert foreign_publishers(found, "/left", "arbiter") == "/right/arbiter, /teleop"
