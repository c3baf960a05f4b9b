# SPDX-License-Identifier: Apache-2.0
"""Findings of the doctor."""

from __future__ import annotations

import pytest

from rlif_bringup.doctor_findings import Verdict, one_publisher, rate_finding
from rlif_bringup.doctor_snapshot import Snapshot, Traffic


@pytest.mark.parametrize(
    ("count", "span", "verdict", "found"),
    [
        (0, 0.0, Verdict.FAIL, "nothing on /a in 5 s"),
        (11, 5.0, Verdict.FAIL, "2.0 Hz, expected at least 9.0 Hz"),
        (51, 5.0, Verdict.PASS, "10.0 Hz"),
    ],
)
def test_rate_finding_by_rate_is(count, span, verdict, found):
    (finding,) = rate_finding("a", Snapshot(seconds=5.0), Traffic("/a", count, span), 9.0, "advice")
    assert (finding.verdict, finding.found) == (verdict, found)


def test_rate_finding_in_lock_step_passes_at_any_rate():
    snapshot = Snapshot(seconds=5.0, parameters={"arbiter": {"lock_step": True}})
    (finding,) = rate_finding("a", snapshot, Traffic("/a", 2, 5.0), 9.0, "advice")
    assert finding.verdict is Verdict.PASS


def test_one_publisher_of_two_fails():
    assert not list(one_publisher(Traffic("/a", publishers=1)))
    (finding,) = one_publisher(Traffic("/a", publishers=2))
    assert finding.verdict is Verdict.FAIL and "/a" in finding.found
