# SPDX-License-Identifier: Apache-2.0
"""Parameter files and command lines, checked before a node exists: by rcl's rules, and for names that
no node has. No ROS.

rcl reads the files itself and knows neither parameters nor remedies; its errors name a line at most.
`check_arguments` is what every node of the suite starts with, `check_file` is for tools.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from rlif_node.known_parameters import NAMES

KEY = "ros__parameters"
ALWAYS = ("use_sim_time", "start_type_description_service")  # declared by rclpy for every node
ALWAYS_PREFIX = "qos_overrides."
COMMAND_LINE = "command line"

BOOL = "a truth value"
INT = "a whole number"
FLOAT = "a number"
TEXT = "text"
_TRUTH = {"y", "yes", "on", "true", "n", "no", "off", "false"}
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|[0-9]+)")
_FLOAT = re.compile(
    r"[-+]?(\.?[0-9]+|[0-9]+\.[0-9]*|\.inf|\.nan|inf|nan)([eE][-+]?[0-9]+)?|\.[0-9]+", re.I
)
_PLACEHOLDER = re.compile(r"<\w+>")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a parameter, where it is set, and what to do. line 0: not known."""

    file: str
    line: int
    parameter: str
    text: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        parameter = f"{self.parameter}: " if self.parameter else ""
        return f"{self.file}{line}: {parameter}{self.text}"


@dataclass(frozen=True)
class Setting:
    """A parameter as a file or an argument sets it. node: of its section, with wildcards."""

    file: str
    line: int
    node: str
    name: str
    value: yaml.Node


def check_file(path: Path | str) -> list[Fault]:
    """All that is wrong with a parameter file, whatever node reads it."""
    settings, faults = _read(Path(path))
    return faults + [fault for setting in settings if (fault := _unknown(setting))]


def check_arguments(arguments: Sequence[str], node: str) -> list[Fault]:
    """All that is wrong with the parameters that a command line, without the program, gives `node`."""
    found: list[Fault] = []
    for settings, faults in _given(arguments):
        found += faults
        found += [f for s in settings if _applies(s.node, node) and (f := _unknown(s))]
    return found if node in NAMES else [f for f in found if not f.text.startswith("unknown")]


def locate(arguments: Sequence[str], node: str, name: str) -> str:
    """FILE:LINE of the last place where a command line sets a parameter of `node`; empty: none."""
    places = [
        f"{s.file}:{s.line}" if s.line else s.file
        for settings, _ in _given(arguments)
        for s in settings
        if s.name == name and _applies(s.node, node)
    ]
    return places[-1] if places else ""


def _given(arguments: Sequence[str]) -> Iterator[tuple[list[Setting], list[Fault]]]:
    """What each --params-file and -p after --ros-args sets, in their order."""
    ros = False
    options = iter(arguments)
    for option in options:
        if option in ("--ros-args", "--"):
            ros = option == "--ros-args"
        elif ros and option == "--params-file":
            yield _read(Path(next(options, "")))
        elif ros and option in ("-p", "--param"):
            yield _read_argument(next(options, ""))


# ---- reading


def _read(path: Path) -> tuple[list[Setting], list[Fault]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return [], [Fault(str(path), 0, "", f"cannot be read: {reason}")]
    return _parse(text, str(path))


def _parse(text: str, file: str) -> tuple[list[Setting], list[Fault]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        aliases = [e for e in yaml.parse(text) if isinstance(e, yaml.AliasEvent)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        return [], [Fault(file, mark.line + 1 if mark else 0, "", f"is not YAML: {problem}")]
    if aliases:
        mark = aliases[0].start_mark
        line = mark.line + 1 if mark else 0
        return [], [
            Fault(file, line, "", "found an alias (*name), which rcl does not read: repeat it")
        ]
    if not isinstance(root, yaml.MappingNode):
        return [], [Fault(file, 1, "", f"expected NODE: {{{KEY}: …}}, such as /**: {{{KEY}: …}}")]
    settings, faults = [], []
    for section, line, body in _sections(root, ""):
        if not isinstance(body, yaml.MappingNode):
            faults.append(Fault(file, line, section, f"expected parameters by name below {KEY}"))
            continue
        settings += [
            Setting(file, value.start_mark.line + 1, section, name, value)
            for name, value in _leaves(body, "")
        ]
    faults += [fault for setting in settings if (fault := _wrong_value(setting))]
    if not settings and not faults:
        faults.append(Fault(file, 1, "", f"sets no parameter: found no {KEY} below a node's name"))
    return settings, faults


def _read_argument(rule: str) -> tuple[list[Setting], list[Fault]]:
    """NODE:NAME:=VALUE or NAME:=VALUE; what is no such rule is left to rcl."""
    name, sign, text = rule.partition(":=")
    node, colon, inner = name.partition(":")
    try:
        value = yaml.compose(text, Loader=yaml.SafeLoader) if sign else None
    except yaml.YAMLError:
        value = None
    if value is None:
        return [], []
    if colon:
        setting = Setting(COMMAND_LINE, 0, node, inner, value)
    else:
        setting = Setting(COMMAND_LINE, 0, "/**", name, value)
    fault = _wrong_value(setting)
    return [setting], [fault] if fault else []


def _sections(root: yaml.MappingNode, path: str) -> Iterator[tuple[str, int, yaml.Node]]:
    for key, value in root.value:
        if key.value == KEY:
            yield path, key.start_mark.line + 1, value
        elif isinstance(value, yaml.MappingNode):
            yield from _sections(value, f"{path}/{str(key.value).strip('/')}")


def _leaves(body: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, yaml.Node]]:
    for key, value in body.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


# ---- values


def kind_of(node: yaml.ScalarNode) -> str:
    """How rcl takes a scalar, which differs from YAML 1.2: a bare y is a truth value."""
    if node.style in ("'", '"', "|", ">"):
        return TEXT
    value = node.value
    if value.lower() in _TRUTH and value in (value.lower(), value.upper(), value.capitalize()):
        return BOOL
    if _INT.fullmatch(value):
        return INT
    return FLOAT if _FLOAT.fullmatch(value) else TEXT


def _wrong_value(setting: Setting) -> Fault | None:
    """A value that rcl cannot read: nothing, nested lists, or entries of several types."""
    node = setting.value
    where = (setting.file, setting.line, setting.name)
    if isinstance(node, yaml.ScalarNode):
        if node.value == "" and node.style is None:
            return Fault(*where, "found no value, expected one: leave the line out for the default")
        return None
    assert isinstance(node, yaml.SequenceNode)
    if any(not isinstance(entry, yaml.ScalarNode) for entry in node.value):
        return Fault(*where, "found a list of lists, expected a list of numbers or of texts")
    kinds = [kind_of(entry) for entry in node.value]
    if len(set(kinds)) < 2:
        return None
    entry, remedy = _odd_entry(node.value, kinds)
    line = setting.line and entry.start_mark.line + 1
    return Fault(setting.file, line, setting.name, f"entries of several types: {remedy}")


def _odd_entry(entries: Sequence[yaml.ScalarNode], kinds: list[str]) -> tuple[yaml.ScalarNode, str]:
    """The entry to change, and how."""
    if set(kinds) == {INT, FLOAT}:
        entry = entries[kinds.index(INT)]
        return (
            entry,
            f"{entry.value} is a whole number beside numbers with a point: write {entry.value}.0",
        )
    if TEXT in kinds:
        at = next(i for i, kind in enumerate(kinds) if kind != TEXT)
        entry = entries[at]
        return (
            entry,
            f'{entry.value} is {kinds[at]} in YAML beside texts: write "{entry.value}" in quotes',
        )
    at = kinds.index(BOOL)
    entry = entries[at]
    return entry, f"{entry.value} is a truth value in YAML beside numbers: expected numbers alone"


# ---- names


def _unknown(setting: Setting) -> Fault | None:
    """A name that no node has, or that the node of its section does not have."""
    node = setting.node.rpartition("/")[2]
    if _is_wildcard(node):
        nodes: tuple[str, ...] = tuple(NAMES)
    elif node in NAMES:
        nodes = (node,)
    else:
        return None  # not a node of this suite
    patterns = [pattern for name in nodes for pattern in NAMES[name]]
    name = setting.name
    if name in ALWAYS or name.startswith(ALWAYS_PREFIX) or any(_matches(p, name) for p in patterns):
        return None
    of = "" if len(nodes) > 1 else f" of {node}"
    owners = [n for n, known in NAMES.items() if any(_matches(p, name) for p in known)]
    if owners:
        hint = f"it is one of {', '.join(owners)}: write it there, or below /**"
        return Fault(setting.file, setting.line, name, f"unknown parameter{of}; {hint}")
    near = nearest(name, patterns)
    hint = f"did you mean {near}?" if near else "its README has the names that there are"
    return Fault(setting.file, setting.line, name, f"unknown parameter{of}; {hint}")


def nearest(name: str, patterns: Sequence[str]) -> str:
    """The known name that is most like `name`; empty: none is."""
    candidates = {_filled(pattern, name): None for pattern in [*ALWAYS, *patterns]}
    close = difflib.get_close_matches(name, candidates, 1, 0.7)
    if close:
        return close[0]
    last = {pattern.rpartition(".")[2]: pattern for pattern in patterns}  # NAME of <device>.NAME
    close = difflib.get_close_matches(name.rpartition(".")[2], last, 1, 0.7)
    return last[close[0]] if close else ""


def _matches(pattern: str, name: str) -> bool:
    parts, found = pattern.split("."), name.split(".")
    return len(parts) == len(found) and all(
        _PLACEHOLDER.fullmatch(part) or part == own for part, own in zip(parts, found, strict=True)
    )


def _filled(pattern: str, name: str) -> str:
    """`<camera>.width` with the names of `name`, where it has as many parts."""
    parts, found = pattern.split("."), name.split(".")
    if len(parts) != len(found):
        return pattern
    return ".".join(
        own if _PLACEHOLDER.fullmatch(part) else part
        for part, own in zip(parts, found, strict=True)
    )


def _is_wildcard(node: str) -> bool:
    return node in ("*", "**", "")


def _applies(section: str, node: str) -> bool:
    last = section.rpartition("/")[2]
    return _is_wildcard(last) or last == node
