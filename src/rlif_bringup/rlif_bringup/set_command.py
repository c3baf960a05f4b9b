# SPDX-License-Identifier: Apache-2.0
"""Sets a parameter of a running node, until that node ends.

    rlif set arbiter speed_scale 1.0

Exit code: 0 done, 1 refused or no answer, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from typing import Any

import yaml

from rlif_bringup import graph_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif set`."""
    parser.add_argument("node", help="its name, such as arbiter, or /servo_node outside the graph")
    parser.add_argument("parameter", help="its name, as in docs/reference.md")
    parser.add_argument("value", help="in YAML: 1.0, true, text, [x, z]")
    graph_command.add_arguments(parser)


def converted(text: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """The value of `text` in the type that the parameter `name` has.

    Raises:
        ValueError: there is no such parameter, or the text is of another type.
    """
    if name not in parameters:
        near = difflib.get_close_matches(name, parameters, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(sorted(parameters))}"
        raise ValueError(f"no parameter {name!r}; {hint}")
    present = parameters[name]
    if isinstance(present, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: found {text!r}, which is not YAML: {error}") from error
    if isinstance(present, float) and type(value) is int:
        return float(value)
    if isinstance(present, list) and isinstance(value, list):
        floats = present and all(isinstance(entry, float) for entry in present)
        return [float(entry) if floats and type(entry) is int else entry for entry in value]
    if present is not None and type(value) is not type(present):
        kind = type(present).__name__
        raise ValueError(f"{name}: found {text!r}, expected {kind}, such as {present!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif set`."""
    node, name = arguments.node, arguments.parameter

    def set_parameter(client: Any) -> None:
        value = converted(arguments.value, name, client.parameters(node))
        client.set_parameters(node, **{name: value})
        print(f"{node}: {name} = {value!r}")

    return graph_command.run(arguments, set_parameter)
