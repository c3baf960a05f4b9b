# SPDX-License-Identifier: Apache-2.0
"""Statuses of the cores as the message of /diagnostics."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .diagnostics import Status


def diagnostic_array(node: str, statuses: Iterable[Status]) -> DiagnosticArray:
    """The report of `node`, without a stamp."""
    return DiagnosticArray(
        status=[
            DiagnosticStatus(
                level=bytes([s.level]),
                name=f"{node}: {s.name}",
                message=s.message,
                hardware_id="",
                values=[KeyValue(key=k, value=v) for k, v in s.values.items()],
            )
            for s in statuses
        ]
    )
