# SPDX-License-Identifier: Apache-2.0
"""Names that a person gives on a command line."""

from __future__ import annotations

import argparse

from rclpy.exceptions import InvalidNamespaceException
from rclpy.validate_namespace import validate_namespace


def namespace(text: str) -> str:
    """An argument that is a namespace, as `type=` of argparse takes it; empty: the root."""
    try:
        validate_namespace(f"/{text.removeprefix('/')}")
    except InvalidNamespaceException as error:
        reason = str(error).partition("\n")[0].removeprefix("Invalid namespace: ")
        raise argparse.ArgumentTypeError(f"found {text!r}: {reason.rstrip(':')}") from error
    return text
