# SPDX-License-Identifier: Apache-2.0
"""The numbers of summary.json, by hand and as properties."""

from __future__ import annotations

import json

import pytest
from episode_records import run_of
from hypothesis import given
from hypothesis import strategies as st

from rlif_bringup.summary import (
    EpisodeRecord,
    moving_average,
    operator_share,
    summarise,
    wilson_interval,
)


def test_wilson_interval_by_hand() -> None:
    # 47 of 50, worked out with the formula on paper: centre 0.9086, half-width 0.0702.
    low, high = wilson_interval(47, 50)
    assert low == pytest.approx(0.8378, abs=1e-4)
    assert high == pytest.approx(0.9794, abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="found 3 of 2"):
        wilson_interval(3, 2)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_of_any_trial_holds_the_rate(trial: tuple[int, int]) -> None:
    low, high = wilson_interval(*trial)
    assert 0.0 <= low <= trial[0] / trial[1] <= high <= 1.0


@given(st.lists(st.floats(-1e3, 1e3), max_size=60), st.integers(1, 25))
def test_moving_average_equals_the_definition(values: list[float], window: int) -> None:
    expected = [
        sum(part) / len(part)
        for part in (values[max(0, n + 1 - window) : n + 1] for n in range(len(values)))
    ]
    assert moving_average(values, window) == pytest.approx(expected, abs=1e-8)


def test_summarise_by_hand() -> None:
    summary = summarise(run_of(40), seed=3)
    assert summary["policy_success"] == 0.9
    assert summary["policy_success_interval"] == list(wilson_interval(9, 10))
    assert summary["expert_success"] == 0.5
    assert summary["env_steps"] == 420, "demonstrations count, evaluation does not"
    assert summary["interventions"] == 40
    assert summary["operator_share_first20"] == pytest.approx(0.8)
    assert summary["operator_share_last20"] == pytest.approx(0.2)
    assert summary["seed"] == 3
    assert summary["versions"]["ros"] != "unknown"
    json.dumps(summary)


def test_summarise_without_records_has_no_rates() -> None:
    summary = summarise([])
    assert summary["policy_success"] is None
    assert summary["policy_success_interval"] is None
    assert summary["operator_share_first20"] is None


def test_operator_share_of_two_episodes_weighs_them_by_steps() -> None:
    long = EpisodeRecord("training", 1, 90, 90, 0, 0, True, 1.0)
    short = EpisodeRecord("training", 2, 100, 10, 10, 1, True, 2.0)
    assert operator_share([long, short]) == pytest.approx(0.1)
