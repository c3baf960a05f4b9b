# SPDX-License-Identifier: Apache-2.0
"""A node's parameters as a table: one row each, declared and checked in one call."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter

from rlif_node.parameter_files import locate

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point, such as 1.0",
    str: "a text, in quotes where YAML takes it for something else",
}
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
    default: Any = _LISTS[p.items] if p.default == [] else p.default
    try:
        value = node.declare_parameter(p.name, default, descriptor).value
    except InvalidParameterTypeException as error:
        raise ValueError(_wrong_type(node, p)) from error
    if isinstance(p.default, list):
        return list(value or [])  # a `[]` in a file is a parameter without a value to rclpy
    if value is None:
        raise ValueError(f"{p.name}: found no value, expected {_EXPECTED[type(p.default)]}")
    check_choice(p, value)
    return value


def _wrong_type(node: Node, p: Param) -> str:
    """The place where the parameter is set, what was found, and what to write."""
    place = locate(sys.argv[1:], node.get_name(), p.name)
    found = node._parameter_overrides[p.name].value
    if isinstance(p.default, list):
        entry = p.items if not p.default else type(p.default[0])
        expected = f"a list, each entry {_EXPECTED[entry]}"
    else:
        expected = _EXPECTED[type(p.default)]
        if isinstance(p.default, float) and isinstance(found, int):
            expected = f"{float(found)}: a number with a point"
    shown = list(found) if hasattr(found, "tolist") else found
    return f"{place + ': ' if place else ''}{p.name}: found {shown!r}, expected {expected}"


def check_choice(p: Param, value: Any) -> None:
    """ValueError for a text that is none of the row's choices."""
    if p.choices and value not in p.choices:
        raise ValueError(f"{p.name}: found {value!r}, expected one of {', '.join(p.choices)}")
