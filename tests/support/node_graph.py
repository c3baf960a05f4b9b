# SPDX-License-Identifier: Apache-2.0
"""A plugin: nodes under test and the test's own node, in one process and one executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from waiting import wait_until


class Graph:
    """`add` nodes, publish and collect messages with `node`, spin `until` a condition holds."""

    def __init__(self) -> None:
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.node = Node("test")
        self.nodes: list[Any] = []
        self.executor.add_node(self.node)

    def add(self, kind: type, **parameters: Any) -> Any:
        node = kind([Parameter(name, value=value) for name, value in parameters.items()])
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def collect(self, kind: type, topic: str, qos: Any = 10, of: Node | None = None) -> list[Any]:
        """The messages of a topic, in a list that grows while the graph spins.

        of: the node that publishes it; it has discovered the test's subscription on return
        """
        received: list[Any] = []
        self.node.create_subscription(kind, topic, received.append, qos)
        if of is not None:
            name = self.node.resolve_topic_name(topic)
            (publisher,) = (p for p in of.publishers if p.topic_name == name)
            self.until(publisher.get_subscription_count, f"our subscription of {topic}")
        return received

    def publisher(self, kind: type, topic: str, qos: Any = 10) -> Any:
        """A publisher that the nodes under test have discovered."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(publisher.get_subscription_count, f"a subscription of {topic}")
        return publisher

    def spin_once(self) -> None:
        self.executor.spin_once(timeout_sec=0.02)

    def until(
        self, condition: Callable[[], Any], what: str | Callable[[], str], deadline: float = 20.0
    ) -> Any:
        """Spin until the condition is true; its value."""
        return wait_until(condition, what, deadline, self.spin_once)

    def until_logged(self, text: str, capfd: pytest.CaptureFixture[str]) -> None:
        """Spin until a node has logged `text`."""
        log: list[str] = []

        def logged() -> bool:
            log.append(capfd.readouterr().err)
            return text in "".join(log)

        self.until(logged, lambda: f"the log {text!r}, found {''.join(log)[-2000:]!r}")

    def close(self) -> None:
        for node in self.nodes:
            if hasattr(node, "close"):
                node.close()
        self.executor.shutdown()
        for node in [*self.nodes, self.node]:
            node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()
