"""Nodes under test and the test's own node, in one executor."""

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
    """`add` nodes, publish and collect messages with `node`, spin `until` something holds."""

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

    def collect(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        seen: list[Any] = []
        self.node.create_subscription(kind, topic, seen.append, qos)
        return seen

    def publisher(self, kind: type, topic: str, qos: Any = 10) -> Any:
        """A publisher that the nodes under test have discovered."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(publisher.get_subscription_count, f"a subscription of {topic}")
        return publisher

    def until(self, condition: Callable[[], Any], what: str, deadline: float = 15.0) -> Any:
        return wait_until(condition, what, deadline, lambda: self.executor.spin_once(0.02))

    def hear(self, words: str, capfd: pytest.CaptureFixture[str], deadline: float = 30.0) -> None:
        """Spin until a node has said so."""
        said: list[str] = []

        def heard() -> bool:
            self.executor.spin_once(timeout_sec=0.02)
            said.append(capfd.readouterr().err)
            return words in "".join(said)

        self.until(heard, f"the words {words!r}", deadline)

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
