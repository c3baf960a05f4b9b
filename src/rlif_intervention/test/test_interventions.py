# SPDX-License-Identifier: Apache-2.0
"""When an intervention begins, goes on and ends."""

from __future__ import annotations

import math

import pytest

from rlif_intervention.interventions import InterventionConfig, InterventionTracker


def tracker(dwell=0.2, minimum=0.0):
    return InterventionTracker(InterventionConfig(release_dwell=dwell, minimum_length=minimum))


def test_tracker_with_a_release_within_the_dwell_continues_the_intervention():
    t = tracker()
    assert t.engage("pad", 1.0).id == 1
    assert not t.release(1.1) and t.current is not None
    assert t.engage("pad", 1.25).id == 1
    assert not t.release(2.0) and not t.release(2.19) and t.release(2.2)
    assert t.end().started == 1.0 and t.current is None and t.end() is None
    assert t.engage("pad", 3.0).id == 2


def test_tracker_with_a_minimum_length_does_not_end_before_it():
    t = tracker(dwell=0.0, minimum=0.5)
    t.engage("pad", 1.0)
    assert not t.release(1.1) and not t.release(1.49) and t.release(1.5)


def test_tracker_with_another_device_hands_over_within_one_intervention():
    t = tracker()
    t.engage("pad", 1.0)
    changed = t.engage("mouse", 1.5)
    assert (changed.id, changed.device, changed.started) == (1, "mouse", 1.0)


def test_tracker_without_an_intervention_has_nothing_to_release():
    assert not tracker(dwell=0.0).release(1.0)


@pytest.mark.parametrize("name", ["release_dwell", "minimum_length"])
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_config_with_a_bad_duration_is_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=name):
        InterventionConfig(**{name: bad})
