# SPDX-License-Identifier: Apache-2.0
"""Named states out of an SRDF: move_group's actions take joint values, people remember names."""

from __future__ import annotations

from xml.etree import ElementTree

from .reset_goals import JointGoal


class NamedStateError(ValueError):
    """The SRDF has no such state; the message lists what it has."""


def named_state(srdf: str, group: str, name: str) -> JointGoal:
    """The joint values (rad or m) of the group state `name` of `group`. Raises NamedStateError."""
    try:
        root = ElementTree.fromstring(srdf)
    except ElementTree.ParseError as error:
        raise NamedStateError(
            f"robot_description_semantic is no SRDF ({error}): is it set on the move_group node?"
        ) from error
    states = [s for s in root.iter("group_state") if s.get("group") == group]
    state = next((s for s in states if s.get("name") == name), None)
    if state is None:
        known = ", ".join(sorted(s.get("name", "") for s in states)) or "none"
        raise NamedStateError(f"group {group!r} has no state {name!r}; its states are: {known}")
    values = {j.get("name", ""): j.get("value", "") for j in state.iter("joint")}
    try:
        positions = tuple(float(v) for v in values.values())
    except ValueError as error:
        raise NamedStateError(f"state {name!r} has a joint value that is none: {error}") from error
    return JointGoal(joints=tuple(values), positions=positions)
