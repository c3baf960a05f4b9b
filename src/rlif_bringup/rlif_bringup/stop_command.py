# SPDX-License-Identifier: Apache-2.0
"""Stops the arm: publishes true on `stop`, until the arbiter is in FAULT.

It takes as long as DDS needs to find the arbiter: no replacement for the emergency stop. The stop holds
until `rlif stop --release`; then arm again. Exit code: 0 done, 1 not confirmed, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
from typing import Any

from rlif_bringup import graph_command

SUBSCRIPTIONS = 2  # of the arbiter: one latched, one for publishers of any other quality of service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif stop`."""
    parser.add_argument("--release", action="store_true", help="take the stop back")
    graph_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif stop`."""
    return graph_command.run(arguments, lambda client: _stop(client, arguments))


def _stop(client: Any, arguments: argparse.Namespace) -> None:
    # Here, so that --help needs no ROS.
    from rclpy.duration import Duration
    from rlif_node.qos import LATCHED
    from std_msgs.msg import Bool

    from rlif_msgs.msg import ControlState

    publisher = client.node.create_publisher(Bool, "stop", LATCHED)
    publisher.publish(Bool(data=not arguments.release))

    def received() -> bool:
        found = publisher.get_subscription_count() >= SUBSCRIPTIONS
        return found and bool(publisher.wait_for_all_acked(Duration(seconds=0)))

    def in_fault() -> bool:
        return client.control is not None and client.control.state == ControlState.FAULT

    client.wait(received, f"an arbiter on {publisher.topic_name}", arguments.timeout)
    if not arguments.release:
        client.wait(in_fault, "the arbiter to be in FAULT", arguments.timeout)
    reason = client.control.reason if client.control else ""
    print("released: arm again to go on" if arguments.release else f"stopped: FAULT, {reason}")
