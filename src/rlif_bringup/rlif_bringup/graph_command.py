# SPDX-License-Identifier: Apache-2.0
"""What the commands of a running graph share: their options, their client, their exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlif_node.names import add_namespace

if TYPE_CHECKING:
    from rlif_bringup.graph_client import GraphClient


def positive(text: str) -> float:
    """Seconds above 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds above 0")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that talks to a running graph."""
    add_namespace(parser)
    parser.add_argument("--domain-id", type=int, help="of DDS (ROS_DOMAIN_ID)")
    parser.add_argument(
        "--timeout", type=positive, default=5.0, help="s until a node must answer (%(default)s)"
    )


def run(arguments: argparse.Namespace, command: Callable[[GraphClient], object]) -> int:
    """Run a command with a client of the graph that its arguments name.

    Returns:
        Exit code: 0 done, 1 refused or no answer (GraphError), 2 asked wrongly (ValueError).
    """
    # Here, so that --help needs no ROS.
    from rlif_node.transports import disable_shared_memory

    from rlif_bringup.graph_client import GraphClient, GraphError

    graph, environment = (arguments.namespace, arguments.domain_id), dict(os.environ)
    # Or `rlif stop` could wait for a process that has died. For this client alone: what the caller starts
    # later may need shared memory.
    disable_shared_memory()
    try:
        with GraphClient(*graph, answer=arguments.timeout) as client:
            command(client)
    except (GraphError, ValueError) as error:
        print(f"rlif {arguments.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, GraphError) else 2
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return 0
