# SPDX-License-Identifier: Apache-2.0
"""Statuses of the cores as the message of /diagnostics."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from .diagnostics import Status


def diagnostic_array(node: Node, statuses: Iterable[Status]) -> DiagnosticArray:
    """The report of `node`, as of now."""
    name = node.get_fully_qualified_name().lstrip("/")
    array = DiagnosticArray(
        status=[
            DiagnosticStatus(
                level=bytes([s.level]),
                name=f"{name}: {s.name}",
                message=s.message,
                values=[KeyValue(key=k, value=v) for k, v in s.values.items()],
            )
            for s in statuses
        ]
    )
    array.header.stamp = node.get_clock().now().to_msg()
    return array
