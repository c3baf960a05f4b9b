# SPDX-License-Identifier: Apache-2.0
"""Named states of the SRDF."""

from __future__ import annotations

import pytest

from rlif_moveit.srdf import NamedStateError, named_state

SRDF = """<robot name="arm">
  <group_state name="ready" group="arm"><joint name="j1" value="0"/><joint name="j2" value="-0.785"/></group_state>
  <group_state name="open" group="hand"><joint name="f" value="0.04"/></group_state>
</robot>"""


def test_named_state_of_the_group_is_found():
    goal = named_state(SRDF, "arm", "ready")
    assert goal.joints == ("j1", "j2") and goal.positions == (0.0, -0.785)


def test_named_state_of_another_group_lists_those_there_are():
    with pytest.raises(NamedStateError, match="its states are: ready"):
        named_state(SRDF, "arm", "open")
    with pytest.raises(NamedStateError, match="no SRDF"):
        named_state("", "arm", "ready")
