# SPDX-License-Identifier: Apache-2.0
"""The learner node reads demonstrations with this package, which it does not import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import learner_doubles
import pytest
from learner_graph import LearnerGraph

from rlif_bags.step_writer import StepWriter


@pytest.mark.ros
def test_demonstrations_come_out_of_bags(tmp_path: Path) -> None:
    with StepWriter(tmp_path / "demonstrations") as writer:
        for number in (1, 2):
            for step in learner_doubles.episode(number, 9, 10 * number, takeover=0):
                writer.write(step, 10**9 * step.sequence)
    graph: Any = LearnerGraph()
    try:
        graph.start_learner(state_dim=4, prior_bags=[str(tmp_path / "demonstrations")])
        assert graph.statuses[-1].prior_transitions == 18
        assert (graph.statuses[-1].steps, graph.statuses[-1].updates) == (0, 0)
    finally:
        graph.close()
