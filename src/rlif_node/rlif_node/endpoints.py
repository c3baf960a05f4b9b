# SPDX-License-Identifier: Apache-2.0
"""Why a subscription receives nothing although its topic is published: another type, or another QoS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy


def type_name(kind: type) -> str:
    """Of a message class, as the graph has it: geometry_msgs/msg/PoseStamped."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def mismatch(
    topic: str, expected: str, reliable: bool, publishers: Iterable[tuple[str, bool]]
) -> str:
    """Why no publisher of `topic` reaches a subscription of the type `expected`; empty: one does, or
    there is none.

    reliable: what the subscription asks for; publishers: type, and whether it is reliable, of each
    """
    found = list(publishers)
    kinds = sorted({kind for kind, _ in found})
    if found and expected not in kinds:
        return (
            f"published as {', '.join(kinds)}, expected {expected}: remap {topic} to a topic of that "
            "type"
        )
    fits = [offered for kind, offered in found if kind == expected]
    if reliable and fits and not any(fits):
        return (
            "published as best effort, expected reliable: set the publisher's reliability, without "
            "which lock_step would wait for a lost sample"
        )
    return ""


def why_unmatched(node: Node, topic: str, kind: type, reliable: bool = False) -> str:
    """`mismatch` of a topic, as `node` names it, with what the graph has now."""
    infos: list[Any] = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    best_effort = ReliabilityPolicy.BEST_EFFORT
    return mismatch(
        topic, type_name(kind), reliable,
        [(i.topic_type, i.qos_profile.reliability != best_effort) for i in infos],
    )  # fmt: skip
