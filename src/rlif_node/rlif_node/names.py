# SPDX-License-Identifier: Apache-2.0
"""Names that a person gives on a command line."""

from __future__ import annotations

import argparse

NAMESPACE = "rlif"  # of all nodes and topics of the suite, unless another is given
NONE = "none"  # the root, in words: `ros2 launch` refuses an empty argument


def launch_namespace(text: str) -> str:
    """A namespace as the launch files take it, where `none` is the root; empty: the root."""
    return "" if text == NONE else text


def absolute_namespace(text: str) -> str:
    """The same from the root on: `/arm_1`; the root itself is `/`."""
    return f"/{launch_namespace(text).strip('/')}"


def namespace_problem(text: str) -> str:
    """Why `text`, as the launch files take it, is no namespace; empty: it is one."""
    # Here, so that --help needs no ROS.
    from rclpy.exceptions import InvalidNamespaceException
    from rclpy.validate_namespace import validate_namespace

    try:
        validate_namespace(f"/{launch_namespace(text).removeprefix('/')}")
    except InvalidNamespaceException as error:
        reason = str(error).partition("\n")[0].removeprefix("Invalid namespace: ")
        return reason.rstrip(":")
    return ""


def namespace(text: str) -> str:
    """As `launch_namespace`, for `type=` of argparse: one that is not valid is refused."""
    if problem := namespace_problem(text):
        raise argparse.ArgumentTypeError(f"found {text!r}: {problem}")
    return launch_namespace(text)


def add_namespace(parser: argparse.ArgumentParser, of: str = "of the graph") -> None:
    """The option --namespace."""
    parser.add_argument(
        "--namespace", type=namespace, default=NAMESPACE, help=f"{of} (%(default)s); none: the root"
    )
