# SPDX-License-Identifier: Apache-2.0
"""Stamps as whole nanoseconds, and the clock of ages."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_node import stamps


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_to_ns_of_to_msg_is_exact(ns):
    message = stamps.to_msg(ns)
    assert stamps.to_ns(message) == ns and 0 <= message.nanosec < 10**9


@pytest.mark.parametrize(("simulated", "expected"), [(True, 3.5), (False, 7.25)])
def test_clock_of_a_node_is_ros_time_in_simulation_only(monkeypatch, simulated, expected):
    monkeypatch.setattr(stamps.time, "monotonic", lambda: 7.25)
    clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=3_500_000_000))
    node = SimpleNamespace(
        get_parameter=lambda name: SimpleNamespace(value=simulated), get_clock=lambda: clock
    )
    assert stamps.clock_of(node)() == expected
