# SPDX-License-Identifier: Apache-2.0
"""Publish the recorded Steps of bags, so that a learner learns from them as it did live.

  rlif replay BAG... [--rate R | --as-fast-as-possible] [--namespace NS]

Run a learner beside it. The Steps are those that were recorded; they wait while the learner is too
far behind.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rlif_node.names import add_namespace
from rlif_node.qos import LATCHED, REPLAY

from rlif_bags.commands.options import add_bags, reports_errors
from rlif_bags.reading.files import bag_paths
from rlif_bags.replay import BLOCK, Pace, Window, recorded_steps
from rlif_msgs.msg import LearnerStatus, Step


class ReplayError(RuntimeError):
    """No learner takes the Steps."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--rate", type=float, default=1.0, help="times the recorded speed")
    speed.add_argument("--as-fast-as-possible", action="store_true")
    add_namespace(parser, "of the learner")
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="S",
        help="wait so long for a learner, or for one that does not get on",
    )  # fmt: skip


class Replayer(Node):
    """Publishes on `replay`, listens to `learner_status`."""

    def __init__(self, namespace: str, patience: float, context: rclpy.Context) -> None:
        super().__init__("replayer", namespace=namespace, context=context)
        self._patience = patience
        self.window = Window()
        self._lost_before: int | None = None  # by the learner's first status
        self._lost, self._learner_message = 0, ""
        self._replay = self.create_publisher(Step, "replay", REPLAY)
        self.create_subscription(LearnerStatus, "learner_status", self._on_status, LATCHED)
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)
        self.count = 0

    def _on_status(self, message: LearnerStatus) -> None:
        self.window.status(message.steps)
        if self._lost_before is None:  # the first status may come after Steps were lost
            self._lost_before = max(0, message.lost_steps - self.window.sent)
        self._lost = message.lost_steps - self._lost_before
        self._learner_message = message.message

    def wait_for_learner(self) -> None:
        """ReplayError if nobody subscribes in time."""
        end = time.monotonic() + self._patience
        while not self._replay.get_subscription_count():
            if time.monotonic() > end:
                raise ReplayError(
                    f"nobody subscribed to {self._replay.topic_name} within {self._patience} s: "
                    "start a learner in the same namespace and ROS_DOMAIN_ID"
                )
            self._spinner.spin_once(timeout_sec=0.1)

    def send(self, stamp: int, data: bytes, evaluation: bool, pace: Pace) -> None:
        """Publish one Step when it is due and the learner has room for it."""
        recorded = stamp * 1e-9
        due = pace.due(recorded, time.monotonic())
        while (left := due - time.monotonic()) > 0.0:
            self._spinner.spin_once(timeout_sec=left)
        self._wait(lambda: self.window.open)
        self._replay.publish(data)
        pace.published(recorded, time.monotonic())
        self.window.sent += not evaluation
        self.count += 1
        if self.count % BLOCK == 0:
            self.delivered()

    def delivered(self) -> None:
        """Wait until DDS has delivered all. ReplayError where it does not."""
        self._spinner.spin_once(timeout_sec=0.0)
        if not self._replay.wait_for_all_acked(Duration(seconds=self._patience)):
            raise ReplayError(f"the subscriber took no Step for {self._patience} s")

    def finish(self) -> None:
        """Wait until the learner, if it reports how far it is, has all Steps."""
        self.delivered()
        if self.window.known:
            self._wait(lambda: self.window.behind <= 0)

    def _wait(self, condition: Callable[[], bool]) -> None:
        behind, since = self.window.behind, time.monotonic()
        while not condition():
            self._spinner.spin_once(timeout_sec=0.1)
            if self.window.behind != behind:
                behind, since = self.window.behind, time.monotonic()
            elif time.monotonic() - since > self._patience:
                why = f"; it lost or dropped {self._lost} Steps" * bool(self._lost)
                why += f"; it reports: {self._learner_message}" * bool(self._learner_message)
                raise ReplayError(
                    f"the learner is {behind} Steps behind and has taken none for "
                    f"{self._patience} s{why}"
                )


@reports_errors("replay", ReplayError)
def run(arguments: argparse.Namespace) -> int:
    bags = bag_paths(arguments.bags)
    rate = math.inf if arguments.as_fast_as_possible else arguments.rate
    Pace(rate)  # a wrong rate is refused before anything is published
    context = rclpy.Context()
    with ExitStack() as stack:
        stack.callback(rclpy.try_shutdown, context=context)
        rclpy.init(context=context)
        node = Replayer(arguments.namespace, arguments.patience, context)
        stack.callback(node.destroy_node)
        node.wait_for_learner()
        for bag in bags:
            pace, notes = Pace(rate), list[str]()
            for stamp, data, evaluation in recorded_steps(bag, arguments.topic, notes):
                node.send(stamp, data, evaluation, pace)
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
            print(f"{bag}: {node.count} Steps so far")
        node.finish()
    return 0
