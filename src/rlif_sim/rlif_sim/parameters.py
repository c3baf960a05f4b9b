"""Parameters of the nodes as tables: name, default, description, range."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

Row = tuple[str, object, str, "tuple[float, float] | None"]


def describe(text: str, limits: tuple[float, float] | None, value: object) -> ParameterDescriptor:
    """Descriptor with an inclusive range where there is one: ROS refuses what lies outside."""
    descriptor = ParameterDescriptor(description=text)
    if limits and isinstance(value, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(limits[0]), to_value=int(limits[1]), step=0)
        ]
    elif limits:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(limits[0]), to_value=float(limits[1]), step=0.0)
        ]
    return descriptor


def declare(node: Node, table: tuple[Row, ...]) -> dict[str, object]:
    """Declare every row on `node` and return the values by name."""
    for name, value, text, limits in table:
        node.declare_parameter(name, value, describe(text, limits, value))
    return {name: node.get_parameter(name).value for name, *_ in table}
