# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference.md (nodes, topics), the tables in the packages' READMEs and the names that
rlif_node checks parameters against, out of the code.

python docs/make_reference.py          (or make docs); tests/test_docs.py checks that it was done
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("reference.md")
SOURCE = Path(__file__).parents[1] / "src"
KNOWN = SOURCE / "rlif_node" / "rlif_node" / "known_parameters.py"
MARK = "<!-- Below: written by docs/make_reference.py (make docs) out of the code; do not edit. -->"
ORDER = (
    "observer", "policy", "success_detector", "arbiter", "episode", "recorder", "learner", "watchdog",
    "gripper",
)  # fmt: skip
_HEADING = re.compile(r"(Subscribes|Publishes|Services|Calls)\b(.*)")
_ROW = re.compile(r"    (\S+(?:, \S+)*)\s+(\w+/\w+)\s*(.*)")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A topic or service of a node, as the top of its file has it."""

    kind: str
    names: tuple[str, ...]
    type: str
    text: str


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A row of a node's table of parameters."""

    name: str
    default: Any
    text: str
    limits: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class NodeReference:
    """What a reader has to know about a node."""

    name: str
    package: str
    executable: str
    sentence: str
    endpoints: tuple[Endpoint, ...]
    parameters: tuple[Parameter, ...]


def endpoints(docstring: str) -> tuple[Endpoint, ...]:
    """The rows under Subscribes, Publishes, Services and Calls of a node's docstring."""
    found: list[Endpoint] = []
    kind = ""
    for line in docstring.splitlines():
        heading = _HEADING.match(line)
        row = _ROW.match(line)
        if heading:
            kind = heading[1]
        elif not line.startswith("    "):
            kind = ""
        elif kind and row:
            found.append(Endpoint(kind, tuple(row[1].split(", ")), row[2], row[3]))
        elif kind and line.startswith("     ") and found:
            found[-1] = dataclasses.replace(found[-1], text=f"{found[-1].text} {line.strip()}")
        elif kind:
            found.append(Endpoint(kind, (), "", line.strip()))
    return tuple(found)


def parameter(row: Any) -> Parameter:
    """A row of any of the packages' tables."""
    if isinstance(row, tuple):
        return Parameter(*row)
    limits = None if row.low is None or row.high is None else (row.low, row.high)
    choices = getattr(row, "choices", ())
    text = f"{row.about} ({', '.join(choices)})" if choices else row.about
    return Parameter(row.name, row.default, text, limits)


def node_reference(package: str, executable: str, module_name: str) -> NodeReference:
    """Read a node's module."""
    module = importlib.import_module(module_name)
    docstring = inspect.getdoc(module) or ""
    first = re.match(r"Node `(\w+)`: (.*)", docstring.splitlines()[0])
    if first is None:
        raise ValueError(
            f"{module_name}: the docstring must begin with 'Node `name`: what it does'"
        )
    return NodeReference(
        name=first[1],
        package=package,
        executable=executable,
        sentence=first[2],
        endpoints=endpoints(docstring),
        parameters=tuple(parameter(row) for row in module.PARAMETERS),
    )


def node_references() -> list[NodeReference]:
    """Every node that is installed, in the order in which data flows."""
    found: dict[str, NodeReference] = {}
    for point in importlib.metadata.entry_points(group="console_scripts"):
        package, _, module = point.module.partition(".")
        if package.startswith("rlif_") and module.endswith("_node"):
            if importlib.util.find_spec(point.module) is None:
                continue
            reference = node_reference(package, point.name, point.module)
            found[reference.name] = reference
    rank = {name: number for number, name in enumerate(ORDER)}
    return sorted(found.values(), key=lambda node: (rank.get(node.name, len(rank)), node.name))


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _endpoint_row(endpoint: Endpoint) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in endpoint.names)
    return endpoint.kind.lower(), names, endpoint.type, endpoint.text


def _parameter_row(row: Parameter) -> tuple[str, ...]:
    limits = "" if row.limits is None else f"{row.limits[0]} … {row.limits[1]}"
    default = str(row.default).lower() if isinstance(row.default, bool) else str(row.default)
    return f"`{row.name}`", default or "(empty)", limits, row.text


def node_page(node: NodeReference) -> list[str]:
    """The section of one node."""
    return [
        f"## {node.name}",
        "",
        f"`ros2 run {node.package} {node.executable}`: {node.sentence}",
        "",
        *_table(
            ("", "name", "type", "what"), [_endpoint_row(endpoint) for endpoint in node.endpoints]
        ),
        "",
        *_table(
            ("parameter", "default", "range", "what"),
            [_parameter_row(row) for row in node.parameters],
        ),
        "",
    ]


def message_rows() -> list[tuple[str, ...]]:
    """Of each message its name and the first sentence of its comment."""
    files = sorted((SOURCE / "rlif_msgs" / "msg").glob("*.msg"))
    first = [file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for file in files]
    return [
        (f"[{file.stem}](msg/{file.name})", text) for file, text in zip(files, first, strict=True)
    ]


def generated(package: str) -> str:
    """What stands below MARK in the README of a package: its nodes, or its messages."""
    if package == "rlif_msgs":
        return "\n".join(_table(("message", "what"), message_rows())) + "\n"
    lines: list[str] = []
    for node in node_references():
        if node.package == package:
            lines += node_page(node)
    return "\n".join(lines).rstrip() + "\n"


def readmes() -> dict[Path, str]:
    """The README of each package, with its generated part written anew. ValueError without MARK."""
    found = {}
    for path in sorted(SOURCE.glob("*/README.md")):
        head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
        if not mark:
            raise ValueError(f"{path}: found no line {MARK!r}; expected one before the tables")
        found[path] = f"{head}{mark}\n\n{generated(path.parent.name)}".rstrip() + "\n"
    return found


def topic_rows() -> list[tuple[str, ...]]:
    """Of each topic of the suite its type, its publishers and its subscribers."""
    ends: dict[tuple[str, str], dict[str, list[str]]] = {}
    for node in node_references():
        for endpoint in node.endpoints:
            for name in endpoint.names:
                kinds = ends.setdefault((name, endpoint.type), {})
                kinds.setdefault(endpoint.kind, []).append(node.name)
    return [
        (f"`{name}`", kind, ", ".join(of.get("Publishes", ())), ", ".join(of.get("Subscribes", ())))
        for (name, kind), of in sorted(ends.items())
        if kind and of.keys() & {"Publishes", "Subscribes"}
    ]


def content() -> str:
    """docs/reference.md: nodes by package, and who publishes which topic."""
    nodes = [
        (f"`{node.name}`", f"[{node.package}](../src/{node.package}/README.md)", node.sentence)
        for node in node_references()
    ]
    lines = [
        "# Nodes and topics",
        "",
        "Written by docs/make_reference.py out of the top of each node's file; do not edit. The README",
        "of a package has the topics, services and parameters of its nodes. Names are relative, in the",
        "namespace rlif. A configuration's robot.yaml is read after config/NODE.yaml. What",
        "is neither published nor subscribed here comes from, or goes to, the robot.",
        "",
        *_table(("node", "package", "what"), nodes),
        "",
        *_table(("topic", "type", "published by", "subscribed by"), topic_rows()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def parameter_names() -> dict[str, list[str]]:
    """Of each node the names of its parameters; <device>, <lock> and <camera> stand for any name."""
    from rlif_intervention.device_inputs import device_parameters, lock_parameters
    from rlif_intervention.presets import PRESETS
    from rlif_learner.config import ImitationConfig, named_preset
    from rlif_policy.observer_node import camera_parameters

    devices = [
        row.name for row in device_parameters("<device>", "generic", PRESETS["generic"], 0.5)
    ]
    devices += ["<device>.preset", *(row.name for row in lock_parameters("<lock>"))]
    more = {
        "observer": [row.name for row in camera_parameters("<camera>")],
        "arbiter": devices,
        "learner": [
            f"{prefix}.{field.name}"
            for prefix, config in (("rlpd", named_preset("rlpd")), ("imitation", ImitationConfig()))
            for field in dataclasses.fields(config)
        ],
    }
    return {
        node.name: [*(row.name for row in node.parameters), *more.get(node.name, ())]
        for node in node_references()
    }


def known_parameters() -> str:
    """rlif_node/known_parameters.py: with it a node tells a misspelled name from another node's."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""Names of the parameters of all nodes of the suite: written by docs/make_reference.py.',
        "",
        "A robot's YAML file is given to every node; only with the names of all can each of them tell a",
        "misspelled one. <device>, <lock> and <camera> stand for any name.",
        '"""',
        "",
        "_TEXT = {",
    ]
    for node, names in sorted(parameter_names().items()):
        text = " ".join(sorted(set(names)))
        lines.append(f'    "{node}": """')
        lines += textwrap.wrap(text, 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
        lines.append('    """,')
    lines += ["}", "NAMES = {node: tuple(text.split()) for node, text in _TEXT.items()}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    KNOWN.write_text(known_parameters(), encoding="utf-8")
    TARGET.write_text(content(), encoding="utf-8")
    for readme, text in readmes().items():
        readme.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET} and the READMEs of the packages")
