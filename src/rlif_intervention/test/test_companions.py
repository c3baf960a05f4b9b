# SPDX-License-Identifier: Apache-2.0
"""Nodes that fall silent, and that nobody else would miss."""

from __future__ import annotations

from rlif_intervention.companions import SILENCE, Companions
from rlif_intervention.diagnostics import Level


def test_companions_never_heard_are_not_missed():
    companions = Companions()
    companions.hear("observer", 0.0)
    assert companions.status(100.0).level is Level.OK


def test_companions_silent_are_named_with_what_is_lost_until_heard_again():
    companions = Companions()
    for name in ("watchdog", "learner"):
        companions.hear(name, 1.0)
    assert companions.status(1.0 + SILENCE).level is Level.OK
    companions.hear("learner", 6.0)
    status = companions.status(6.5)
    assert status.level is Level.ERROR and "learner" not in status.message
    assert status.message.startswith("watchdog: silent for 6 s, so nobody stops the robot")
    companions.hear("watchdog", 7.0)
    assert companions.status(7.0).level is Level.OK
