# SPDX-License-Identifier: Apache-2.0
"""One status per concern, in words that name the concern."""

from __future__ import annotations

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.devices import Device, DeviceRack, Reading
from rlif_intervention.diagnostics import Level, PeriodMeter, arbiter_statuses
from rlif_intervention.limits import LimitConfig

REST = Reading(False, (0.0, 0.0, 0.0))


def statuses(arbiter, now):
    return {s.name: s for s in arbiter_statuses(arbiter, now)}


def test_statuses_have_ages_devices_that_never_moved_and_limits():
    limits = LimitConfig(workspace_min=(-1.0,) * 3, workspace_max=(1.0,) * 3)
    a = Arbiter(ArbiterConfig(limits=limits), DeviceRack([Device("mouse")]))
    found = statuses(a, 0.0)
    assert set(found) == {"control", "limits", "observation", "policy", "ee_pose", "device mouse"}
    assert found["policy"].level is Level.STALE and found["control"].level is Level.OK
    a.arm(True)
    a.observe(1, 1, 0.0)
    a.policy_action(1, 1, (2.0, 0.0, 0.0), 1, 0.0)
    a.device_reading("mouse", REST, 0.0)
    a.pose((0.0, 0.0, 0.0), 0.0)
    a.begin_episode(1, 1, 0)
    a.output(0.0)
    found = statuses(a, 0.1)
    assert found["limits"].values["clamp"] == "1" and "clamp" in found["limits"].message
    assert "clamp" not in statuses(a, 0.1)["limits"].values
    assert found["observation"].level is Level.OK
    assert (
        found["device mouse"].level is Level.WARN and "never moved" in found["device mouse"].message
    )
    late = statuses(a, 1.0)
    assert late["policy"].level is Level.ERROR and "1.0 s old" in late["policy"].message
    a.stop(True)
    assert statuses(a, 1.0)["control"].level is Level.ERROR


def test_period_meter_counts_missed_periods_between_reports():
    meter = PeriodMeter(0.02)
    assert meter.status().level is Level.ERROR
    for now in (0.0, 0.02, 0.04, 0.1):
        meter.tick(now)
    status = meter.status()
    assert status.level is Level.WARN and status.message.startswith("1 of 3")
    assert status.values["worst_period_ms"] == "60.0"
    meter.tick(0.12)
    assert meter.status().level is Level.OK
