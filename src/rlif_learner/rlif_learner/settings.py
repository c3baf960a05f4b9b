# SPDX-License-Identifier: Apache-2.0
"""Settings of the algorithms as parameters of a node: `rlpd.*` and `imitation.*`, by name."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from rclpy.node import Node
from rlif_node.parameters import Param, declare

from rlif_learner.config import ImitationConfig, named_preset

AUTOMATIC = math.nan  # ROS parameters know no "not set"


def declare_settings(node: Node, algorithm: str, preset: str) -> dict[str, Any]:
    """Declare all settings of the algorithm on `node`, with the preset's values as defaults.

    Returns them by name, without prefix. ValueError names settings that do not exist.
    """
    prefix = "rlpd" if algorithm == "rlpd" else "imitation"
    defaults: Any = named_preset(preset) if prefix == "rlpd" else ImitationConfig()
    about = f"see {type(defaults).__name__} in rlif_learner/config.py"
    rows = []
    for field in fields(defaults):
        default = getattr(defaults, field.name)
        if default is None:
            default = AUTOMATIC
        if isinstance(default, tuple):
            default = list(default)
        rows.append(Param(f"{prefix}.{field.name}", default, about, items=int))
    values = declare(node, rows)
    _refuse_unknown(node, f"{prefix}.", set(values))
    settings = {name.removeprefix(f"{prefix}."): value for name, value in values.items()}
    return {name: None if _is_automatic(value) else value for name, value in settings.items()}


def _is_automatic(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _refuse_unknown(node: Node, prefix: str, known: set[str]) -> None:
    # rclpy ignores what is not declared, silently, and offers no other way to see it.
    given = [name for name in node._parameter_overrides if name.startswith(prefix)]
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"parameters: found {unknown}, expected some of {sorted(known)}")
