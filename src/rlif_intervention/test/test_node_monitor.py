# SPDX-License-Identifier: Apache-2.0
"""Nodes that stop, and that nobody else would miss."""

from __future__ import annotations

from rlif_intervention.diagnostics import Level
from rlif_intervention.node_monitor import WATCHED, NodeMonitor


def test_nodes_never_received_are_not_missed():
    monitor = NodeMonitor()
    monitor.received("observer", 0.0)
    assert monitor.status(100.0).level is Level.OK


def test_nodes_silent_are_named_with_what_is_lost_until_received_again():
    monitor, limit = NodeMonitor(), WATCHED["watchdog"].timeout
    for name in ("watchdog", "learner"):
        monitor.received(name, 1.0)
    assert monitor.status(1.0 + limit).level is Level.OK
    status = monitor.status(2.0 + limit)
    assert status.level is Level.ERROR and "learner" not in status.message
    assert status.message.startswith("watchdog: no message for 6 s, so nobody stops the robot")
    monitor.received("watchdog", 7.0)
    assert monitor.status(7.0).level is Level.OK
