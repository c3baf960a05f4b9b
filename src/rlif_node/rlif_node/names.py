# SPDX-License-Identifier: Apache-2.0
"""Names that a person gives on a command line."""

from __future__ import annotations

import argparse

NAMESPACE = "rlif"  # of all nodes and topics of the suite, unless another is given
NONE = "none"  # the root, in words: `ros2 launch` refuses an empty argument


def launch_namespace(text: str) -> str:
    """A namespace as the launch files take it, where `none` is the root; empty: the root."""
    return "" if text == NONE else text


def namespace(text: str) -> str:
    """The same as `type=` of argparse takes it: one that is not valid is refused."""
    # Here, so that --help needs no ROS.
    from rclpy.exceptions import InvalidNamespaceException
    from rclpy.validate_namespace import validate_namespace

    found = launch_namespace(text)
    try:
        validate_namespace(f"/{found.removeprefix('/')}")
    except InvalidNamespaceException as error:
        reason = str(error).partition("\n")[0].removeprefix("Invalid namespace: ")
        raise argparse.ArgumentTypeError(f"found {text!r}: {reason.rstrip(':')}") from error
    return found


def add_namespace(parser: argparse.ArgumentParser, of: str = "of the graph") -> None:
    """The option --namespace."""
    parser.add_argument(
        "--namespace", type=namespace, default=NAMESPACE, help=f"{of} (%(default)s); none: the root"
    )
