# SPDX-License-Identifier: Apache-2.0
"""Arms and disarms the arbiter, starts and ends episodes, by a call of the node's service.

Prints the answer in one line. Exit code: 0 done, 1 refused or no answer, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
from typing import Any

from rlif_bringup import graph_command

# command: (service, what is printed where the answer has no message)
SERVICES = {
    "arm": ("arm", "armed"),
    "disarm": ("arm", "disarmed"),
    "start": ("start_episode", "started"),
    "success": ("end_episode_success", "ended as a success"),
    "failure": ("end_episode_failure", "ended as a failure"),
    "discard": ("discard_episode", "discarded"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif arm` and the other five."""
    graph_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Call the service of `arguments.command`."""
    # Here, so that --help needs no ROS.
    from std_srvs.srv import SetBool, Trigger

    service, done = SERVICES[arguments.command]
    kind: Any = SetBool if service == "arm" else Trigger
    request = kind.Request()
    if service == "arm":
        request.data = arguments.command == "arm"
    return graph_command.run(
        arguments, lambda client: print(client.call(kind, service, request) or done)
    )
