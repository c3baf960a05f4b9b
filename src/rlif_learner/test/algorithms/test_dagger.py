# SPDX-License-Identifier: Apache-2.0
"""DAgger: what it draws, and the expert that it asks. The rest of it: test_bc.py."""

from __future__ import annotations

import pytest
from imitation_doubles import ACTIONS, CONFIG, SPEC, expert, filled

from rlif_learner.algorithms.dagger import DAgger
from rlif_learner.data.sampling import Buffers


def test_dagger_draws_from_a_small_part_too():
    """Regression: its share of each batch was rounded, here to nothing."""
    actions = {"P": lambda state: 0.0}
    large, small = filled("P" * 40, actions, repeat=20), filled("P", actions, seed=1, repeat=1)
    only = float(small.columns["state"][0, 0])
    learner = DAgger(CONFIG, SPEC, expert)
    drawn = [learner.draw(Buffers(large, small)) for _ in range(300)]
    times = sum(int((batch.states[:, 0] == only).sum()) for batch in drawn)
    assert 5 < times < 60  # 24 are expected: 300 batches of 64, one transition of 801


def test_wrong_expert_is_named():
    learner = DAgger(CONFIG, SPEC, lambda states: states)
    with pytest.raises(ValueError, match=r"expert.*\(64, 2\).*\(64, 1\)"):
        learner.update(Buffers(filled("PPPOOPP", ACTIONS)))
