# SPDX-License-Identifier: Apache-2.0
"""What the observations of an episode are relative to, whatever the order of messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlif_node.rotations import IDENTITY
from rlif_node.states import Phase

from rlif_policy.episode_start import KEPT, EpisodeStart
from rlif_policy.features import FeatureError, Pose


def pose(x):
    return Pose((float(x), 0.0, 0.0), IDENTITY)


def test_episode_start_without_an_episode_is_where_the_arm_is():
    start = EpisodeStart()
    assert [start.at(t, pose(t)) for t in (1, 2)] == [pose(1), pose(2)]


@given(begins=st.integers(5, 15), late=st.integers(0, KEPT - 1), ends=st.integers(1, 9))
def test_episode_start_is_the_first_observation_however_late_the_message_comes(begins, late, ends):
    """Ticks at 0, 1, 2 …; RUNNING is received before tick `begins + late`."""
    start = EpisodeStart()
    start.episode(1, Phase.READY, 0)
    for t in range(begins + late + ends):
        if t == begins + late:
            start.episode(1, Phase.RUNNING, begins)
        found = start.at(t, pose(t))
        known = t >= begins and t >= begins + late
        assert found == (pose(begins) if known else pose(t))
        assert t != begins or found == pose(begins), "the first one is relative to itself"


def test_episode_start_lasts_beyond_the_end_until_the_reset():
    start = EpisodeStart()
    start.at(2, pose(2))
    start.episode(1, Phase.RUNNING, 3)
    assert start.at(3, pose(3)) == pose(3)
    start.episode(1, Phase.ENDED, 9)
    assert start.at(9, pose(9)) == pose(3), "the last observation of the episode"
    start.episode(2, Phase.RESETTING, 10)
    assert start.at(11, pose(11)) == pose(11)
    start.episode(2, Phase.RUNNING, 12)
    assert [start.at(t, pose(t)) for t in (12, 13)] == [pose(12)] * 2


@pytest.mark.parametrize("observed", [0, 2], ids=["the message first", "observations first"])
def test_episode_start_of_an_observer_restarted_in_the_episode_is_unknown_until_the_next(observed):
    """Regression: it was the arm's place at the restart, and nothing showed it."""
    start = EpisodeStart()
    for t in range(10, 10 + observed):
        start.at(t, pose(t))
    start.episode(1, Phase.READY, 2)  # a new subscription gets the last messages too
    start.episode(1, Phase.RUNNING, 3)
    for t in (13, 14):
        with pytest.raises(FeatureError, match="restarted"):
            start.at(t, pose(t))
    start.episode(1, Phase.ENDED, 15)
    with pytest.raises(FeatureError, match="restarted"):
        start.at(15, pose(15))
    start.episode(2, Phase.READY, 16)
    start.episode(2, Phase.RUNNING, 17)
    assert [start.at(t, pose(t)) for t in (17, 18)] == [pose(17)] * 2
