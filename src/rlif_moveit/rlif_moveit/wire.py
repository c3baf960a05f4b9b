# SPDX-License-Identifier: Apache-2.0
"""Goals as JSON, between the reset node and its worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .reset_goals import Goal, JointGoal, NamedGoal, PoseGoal

_KINDS = {"named": NamedGoal, "joints": JointGoal, "pose": PoseGoal}


def goal_to_wire(goal: Goal) -> dict[str, Any]:
    kind = next(name for name, made in _KINDS.items() if isinstance(goal, made))
    return {"kind": kind, **asdict(goal)}


def goal_from_wire(wire: dict[str, Any]) -> Goal:
    """Raises ValueError for what is no goal."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in wire.items()}
    kind = values.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(_KINDS)}")
    return _KINDS[kind](**values)
