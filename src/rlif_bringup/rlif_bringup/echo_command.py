# SPDX-License-Identifier: Apache-2.0
"""Prints the messages of a topic as YAML, until Ctrl-C or as many as asked for.

    rlif echo control_state --count 1
    rlif echo /tcp_pose_broadcaster/pose --field header.frame_id --count 1

Exit code: 0 messages were printed, 1 there is no such topic or no message, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import yaml

from rlif_bringup import graph_command

LONGEST = 32  # entries of an array that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif echo`."""
    parser.add_argument("topic", help="its name; relative ones are in --namespace")
    parser.add_argument("--count", type=int, default=0, help="messages to print; 0: until Ctrl-C")
    parser.add_argument("--field", default="", help="print this field alone, such as header.stamp")
    graph_command.add_arguments(parser)


def plain(value: Any) -> Any:
    """A message, or a field of one, as dictionaries, lists and numbers; long arrays by their length."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, bytes):
        return value[0] if len(value) == 1 else f"<{len(value)} bytes>"
    if isinstance(value, (str, bool, int, float)):
        return value
    if len(value) > LONGEST:
        return f"<{len(value)} entries>"
    entries = value.tolist() if hasattr(value, "tolist") else value
    return [plain(entry) for entry in entries]


def field_of(message: Any, path: str) -> Any:
    """The field at `path`, with dots; the message for an empty path.

    Raises:
        ValueError: there is none; with the names of those there are.
    """
    value = message
    for name in path.split(".") if path else ():
        names: dict[str, str] = getattr(value, "get_fields_and_field_types", dict)()
        if name not in names:
            raise ValueError(f"no field {name!r}; there are: {', '.join(names) or 'none'}")
        value = getattr(value, name)
    return value


def message_class(kind: str) -> Any:
    """The class of a type such as std_msgs/msg/String.

    Raises:
        ValueError: its package is not installed.
    """
    package, _, name = kind.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the type {kind} is not installed here: install {package}") from error


def matching_qos(infos: list[Any]) -> Any:
    """What all publishers of a topic offer."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    latched = all(i.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for i in infos)
    reliable = all(i.qos_profile.reliability == ReliabilityPolicy.RELIABLE for i in infos)
    return QoSProfile(
        depth=100,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )


def echo(client: Any, arguments: argparse.Namespace) -> None:
    """Print messages. Raises GraphError, ValueError."""
    node = client.node
    topic = node.resolve_topic_name(arguments.topic)
    what = f"a publisher of {topic}"
    client.wait(lambda: node.count_publishers(topic), what, arguments.timeout)
    infos = node.get_publishers_info_by_topic(topic)
    received: list[Any] = []
    kind = message_class(infos[0].topic_type)
    node.create_subscription(kind, topic, received.append, matching_qos(infos))
    printed = 0
    while not arguments.count or printed < arguments.count:
        if not printed:
            client.wait(lambda: received, f"a message on {topic}", arguments.timeout)
        client.turn()
        for message in received:
            value = plain(field_of(message, arguments.field))
            print(yaml.safe_dump(value, sort_keys=False).removesuffix("...\n"), end="---\n")
            printed += 1
            if printed == arguments.count:
                return
        sys.stdout.flush()
        received.clear()


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif echo`."""
    if arguments.count < 0:
        print(f"rlif echo: --count is {arguments.count}, expected 0 or more", file=sys.stderr)
        return 2
    try:
        return graph_command.run(arguments, lambda client: echo(client, arguments))
    except KeyboardInterrupt:
        return 0
