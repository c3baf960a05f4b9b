# SPDX-License-Identifier: Apache-2.0
"""Arms and disarms the arbiter, starts and ends episodes, by a call of the node's service.

Prints the answer in one line. Exit code: 0 done, 1 refused or no answer, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rlif_node.names import add_namespace

# command: (service, what is printed where the answer has no message)
SERVICES = {
    "arm": ("arm", "armed"),
    "disarm": ("arm", "disarmed"),
    "start": ("start_episode", "started"),
    "success": ("end_episode_success", "ended as a success"),
    "failure": ("end_episode_failure", "ended as a failure"),
    "discard": ("discard_episode", "discarded"),
}


def positive(text: str) -> float:
    """Seconds above 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds above 0")
    return seconds


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that talks to a running graph."""
    add_namespace(parser)
    parser.add_argument("--domain-id", type=int, help="of DDS (ROS_DOMAIN_ID)")
    parser.add_argument(
        "--timeout", type=positive, default=5.0, help="s until a node must answer (%(default)s)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif arm` and the other five."""
    add_graph_arguments(parser)


def nothing_to_check() -> None:
    """The check of a GraphClient whose nodes another process started."""


def run(arguments: argparse.Namespace) -> int:
    """Call the service of `arguments.command`."""
    # Here, so that --help needs no ROS.
    from std_srvs.srv import SetBool, Trigger

    from rlif_bringup.graph_client import GraphClient, GraphError

    service, done = SERVICES[arguments.command]
    kind: Any = SetBool if service == "arm" else Trigger
    request = kind.Request()
    if service == "arm":
        request.data = arguments.command == "arm"
    graph = (arguments.namespace, arguments.domain_id, nothing_to_check, arguments.timeout)
    try:
        with GraphClient(*graph) as client:
            print(client.call(kind, service, request) or done)
    except GraphError as error:
        print(f"rlif {arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0
