# SPDX-License-Identifier: Apache-2.0
"""Packages of messages that are not installed everywhere: imported when a node needs them."""

from __future__ import annotations

import importlib
from typing import Any


class MissingInterfacesError(ValueError):
    """A package of messages is not installed; the message names it and how to install it."""


def require(package: str, module: str, needed_for: str) -> Any:
    """The module `package.module`, e.g. moveit_msgs.msg."""
    try:
        return importlib.import_module(f"{package}.{module}")
    except ImportError as error:
        debian = package.replace("_", "-")
        raise MissingInterfacesError(
            f"{needed_for} needs the package {package}, which is not installed ({error}): install it "
            f"with `sudo apt install ros-$ROS_DISTRO-{debian}`, or source the workspace that has it"
        ) from error
