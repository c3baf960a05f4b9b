"""A node's parameters as a table: one row each, declared and checked in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

_LISTS = {
    float: Parameter.Type.DOUBLE_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


@dataclass(frozen=True)
class Param:
    """One row of a node's table of parameters.

    default: an empty list needs `items`, the type of its entries
    low, high: inclusive range of a number; live: may be changed while the node runs
    choices: all that a text may be
    """

    name: str
    default: Any
    about: str
    low: float | None = None
    high: float | None = None
    live: bool = False
    items: type = float
    choices: tuple[str, ...] = ()


def declare(node: Node, table: Iterable[Param]) -> dict[str, Any]:
    """Declare all parameters of `table`; their values by name.

    Raises ValueError or a ParameterException, naming the parameter, for what is out of range.
    """
    return {p.name: _declare_one(node, p) for p in table}


def _declare_one(node: Node, p: Param) -> Any:
    descriptor = ParameterDescriptor(description=p.about, read_only=not p.live)
    if isinstance(p.default, float) and p.low is not None and p.high is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(p.low), to_value=float(p.high))
        ]
    elif isinstance(p.default, int) and p.low is not None and p.high is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(p.low), to_value=int(p.high), step=1)
        ]
    if p.default == []:
        descriptor.type = _LISTS[p.items].value
        return list(node.declare_parameter(p.name, _LISTS[p.items], descriptor).value or [])
    value = node.declare_parameter(p.name, p.default, descriptor).value
    check_choice(p, value)
    return list(value) if isinstance(p.default, list) else value


def check_choice(p: Param, value: Any) -> None:
    """ValueError for a text that is none of the row's choices."""
    if p.choices and value not in p.choices:
        raise ValueError(f"{p.name}: found {value!r}, expected one of {', '.join(p.choices)}")
