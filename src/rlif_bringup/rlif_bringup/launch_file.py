# SPDX-License-Identifier: Apache-2.0
"""Reads YAML launch files, the subset of ROS 2's that this suite uses, into a list of processes.

The same files run under `ros2 launch`; here is what runs them where that is not installed. It is
strict: a tag, an attribute or a substitution that it does not know is refused by name, never
ignored. Reading starts nothing (`rlif_bringup.processes` does) and executes nothing.

    launch = read(Path("sim.launch.yaml"), {"robot": "sim"}, os.environ)
    launch.arguments   # what the file and those that it includes declare
    launch.processes   # what is to be started, in order
"""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlif_bringup.substitutions import LaunchFileError, Scope, find_prefix, is_true, substitute

ParameterValue = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
_MAX_DEPTH = 16  # of includes in includes


@dataclasses.dataclass(frozen=True)
class Argument:
    """An `arg` of a launch file; `default` None: it must be given."""

    name: str
    default: str | None
    description: str
    choices: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Process:
    """One process to start.

    Attributes:
        name: of the node, or of the program: what its output is prefixed with.
        command: program and arguments.
        environment: the whole environment of the process.
        required: everything ends when this process ends (`on_exit: shutdown`).
        directory: to run in; None: the caller's.
        node: fully qualified name of the node; empty: not a node.
        parameters: of the node, given in the launch file; they win over parameter files.
        sigterm_timeout: s between interrupt and SIGTERM.
        sigkill_timeout: s between SIGTERM and SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    required: bool = False
    directory: str | None = None
    node: str = ""
    parameters: Mapping[str, ParameterValue] = dataclasses.field(default_factory=dict)
    sigterm_timeout: float = 5.0
    sigkill_timeout: float = 5.0


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a launch file comes to with given arguments."""

    arguments: tuple[Argument, ...]
    processes: tuple[Process, ...]


def read(path: Path, arguments: Mapping[str, str], environment: Mapping[str, str]) -> Launch:
    """Follow a launch file.

    Args:
        path: of the file.
        arguments: values given to it, by name.
        environment: that the processes will start from; AMENT_PREFIX_PATH finds packages.

    Raises:
        LaunchFileError: the file is not there, is not understood, or does not declare an argument.
    """
    reader = _Reader(dict(arguments), dict(environment))
    reader.include(path.absolute(), ())
    declared = {argument.name for argument in reader.arguments}
    for name in arguments:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(sorted(declared))}"
            )
            raise LaunchFileError(f"{path.name} declares no argument {name!r}; {hint}")
    unique = {argument.name: argument for argument in reversed(reader.arguments)}
    return Launch(tuple(reversed(unique.values())), tuple(reader.processes))


def declared_arguments(path: Path, environment: Mapping[str, str]) -> tuple[Argument, ...]:
    """Arguments of the file and of those that it includes; defaults are not substituted.

    An include whose path depends on an argument is not followed.
    """
    found: dict[str, Argument] = {}

    def visit(path: Path, children: object) -> None:
        for tag, body in _entities(children, path.name):
            if tag == "arg":
                argument = _argument(_attributes(body, path.name, "arg", _ARG))
                found.setdefault(argument.name, argument)
            elif tag == "group":
                visit(path, body if isinstance(body, list) else body["children"])
            elif tag == "include" and "$(var" not in body["file"]:
                inner = Path(substitute(body["file"], Scope({}, environment, path)))
                visit(inner, _load(inner))

    visit(path.absolute(), _load(path))
    return tuple(found.values())


def _load(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        # A robot configuration is a folder beside others: say which there are.
        there = sorted(p.parent.name for p in path.parent.parent.glob(f"*/{path.name}"))
        hint = f"; {path.name} is there for: {', '.join(there)}" if there else ""
        raise LaunchFileError(f"no launch file {path} ({error.strerror}){hint}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LaunchFileError(f"{path.name} is not YAML: {error}") from error
    if (
        not isinstance(tree, dict)
        or list(tree) != ["launch"]
        or not isinstance(tree["launch"], list)
    ):
        raise LaunchFileError(f"{path.name}: expected one key, 'launch', with a list of entities")
    return list(tree["launch"])


def _entities(children: object, where: str) -> Iterator[tuple[str, Any]]:
    """(tag, body) of each child of a list of entities."""
    if not isinstance(children, list):
        raise LaunchFileError(f"{where}: expected a list of entities, found {children!r}")
    for child in children:
        if not isinstance(child, dict) or len(child) != 1:
            raise LaunchFileError(f"{where}: expected one 'tag: …' per entry, found {child!r}")
        yield from child.items()


_CONDITIONS = ("if", "unless")
_ARG = ("name", "default", "description", "choice", *_CONDITIONS)
_PROCESS = (
    *("name", "output", "on_exit", "env", "cwd", "launch-prefix"),
    *("sigterm_timeout", "sigkill_timeout", *_CONDITIONS),
)
_NODE = ("pkg", "exec", "namespace", "param", "remap", "args", "ros_args", *_PROCESS)
_REFUSED_ATTRIBUTES = {
    "respawn": "a node that died must not come back into a running policy unasked",
}


def _attributes(body: object, where: str, tag: str, known: tuple[str, ...]) -> dict[str, Any]:
    """`body` as a mapping that holds known attributes only."""
    if not isinstance(body, dict):
        raise LaunchFileError(f"{where}: {tag}: expected attributes, found {body!r}")
    for name in body:
        if name in _REFUSED_ATTRIBUTES:
            reason = _REFUSED_ATTRIBUTES[name]
            raise LaunchFileError(f"{where}: {tag}: attribute {name!r} is refused: {reason}")
        if name not in known:
            raise LaunchFileError(
                f"{where}: {tag}: unknown attribute {name!r}; known are: {', '.join(known)}"
            )
    return body


def _argument(body: dict[str, Any]) -> Argument:
    choices = tuple(str(choice["value"]) for choice in body.get("choice", ()))
    default = body.get("default")
    if default is not None and not isinstance(default, str):
        raise LaunchFileError(
            f"arg {body.get('name')!r}: default {default!r} must be text, put it in quotes"
        )
    return Argument(str(body["name"]), default, str(body.get("description", "")), choices)


class _Reader:
    """Walks the entities in order, as ROS 2's launch does: configurations are set on the way.

    A group is a scope of its own; an include is not, so that its arguments and remappings stay.
    """

    def __init__(self, configurations: dict[str, str], environment: dict[str, str]) -> None:
        self._configurations = configurations
        self._environment = environment
        self._namespace = ""
        self._remappings: tuple[tuple[str, str], ...] = ()
        self._file = Path()
        self.arguments: list[Argument] = []
        self.processes: list[Process] = []
        self._tags: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], None]]] = {
            "arg": (_ARG, self._arg),
            "let": (("name", "value", *_CONDITIONS), self._let),
            "include": (("file", "arg", *_CONDITIONS), self._include),
            "group": (("children", "scoped", *_CONDITIONS), self._group),
            "push_ros_namespace": (("namespace", *_CONDITIONS), self._push_namespace),
            "set_remap": (("from", "to", *_CONDITIONS), self._set_remap),
            "set_env": (("name", "value", *_CONDITIONS), self._set_env),
            "unset_env": (("name", *_CONDITIONS), self._unset_env),
            "node": (_NODE, self._node),
            "executable": (("cmd", *_PROCESS), self._executable),
        }

    def include(self, path: Path, stack: tuple[Path, ...]) -> None:
        """Follow a file; what it sets stays set."""
        if len(stack) >= _MAX_DEPTH:
            raise LaunchFileError(f"{path.name}: includes itself, through {stack[-1].name}")
        outer, self._file, self._stack = self._file, path, (*stack, path)
        self._walk(_load(path))
        self._file, self._stack = outer, stack

    def _walk(self, children: object) -> None:
        where = self._file.name
        for tag, body in _entities(children, where):
            if tag not in self._tags:
                raise LaunchFileError(
                    f"{where}: unknown tag {tag!r}; known are: {', '.join(self._tags)}"
                )
            known, act = self._tags[tag]
            # A group may be written as a bare list, as in ROS 2's launch.
            if tag == "group" and isinstance(body, list):
                body = {"children": body}
            attributes = _attributes(body, where, tag, known)
            try:
                if self._holds(attributes):
                    act(attributes)
            except KeyError as error:
                raise LaunchFileError(f"{where}: {tag}: attribute {error} is missing") from error
            except LaunchFileError as error:
                if str(error).startswith(where):
                    raise
                raise LaunchFileError(f"{where}: {tag}: {error}") from error

    def _expand(self, text: object) -> str:
        if not isinstance(text, str):
            raise LaunchFileError(f"expected text, found {text!r}: put it in quotes")
        return substitute(text, Scope(self._configurations, self._environment, self._file))

    def _holds(self, body: dict[str, Any]) -> bool:
        if "if" in body and not is_true(self._expand(body["if"])):
            return False
        return not ("unless" in body and is_true(self._expand(body["unless"])))

    def _arg(self, body: dict[str, Any]) -> None:
        argument = _argument(body)
        self.arguments.append(argument)
        if argument.name not in self._configurations:
            if argument.default is None:
                raise LaunchFileError(
                    f"{argument.name!r} must be given: {argument.name}:=…  {argument.description}"
                )
            self._configurations[argument.name] = self._expand(argument.default)
        value = self._configurations[argument.name]
        if argument.choices and value not in argument.choices:
            raise LaunchFileError(
                f"{argument.name}: found {value!r}, expected one of {', '.join(argument.choices)}"
            )

    def _let(self, body: dict[str, Any]) -> None:
        self._configurations[self._expand(body["name"])] = self._expand(body["value"])

    def _include(self, body: dict[str, Any]) -> None:
        passed: set[str] = set()
        for argument in body.get("arg", ()):
            name, value = self._expand(argument["name"]), self._expand(argument["value"])
            self._configurations[name] = value
            passed.add(name)
        path = Path(self._expand(body["file"]))
        for tag, inner in _entities(_load(path), path.name):
            # ROS 2's launch wants these passed on, even where they are known already.
            if tag == "arg" and "default" not in inner and inner["name"] not in passed:
                raise LaunchFileError(f"{path.name} needs {inner['name']!r} among its arguments")
        self.include(path, self._stack)

    def _group(self, body: dict[str, Any]) -> None:
        saved = (
            self._configurations, self._environment, self._namespace, self._remappings,
        )  # fmt: skip
        if body.get("scoped", True):
            self._configurations = dict(self._configurations)
            self._environment = dict(self._environment)
        self._walk(body["children"])
        if body.get("scoped", True):
            self._configurations, self._environment, self._namespace, self._remappings = saved

    def _push_namespace(self, body: dict[str, Any]) -> None:
        self._namespace = _join(self._namespace, self._expand(body["namespace"]))

    def _set_remap(self, body: dict[str, Any]) -> None:
        pair = (self._expand(body["from"]), self._expand(body["to"]))
        self._remappings = (*self._remappings, pair)

    def _set_env(self, body: dict[str, Any]) -> None:
        self._environment[self._expand(body["name"])] = self._expand(body["value"])

    def _unset_env(self, body: dict[str, Any]) -> None:
        self._environment.pop(self._expand(body["name"]), None)

    def _node(self, body: dict[str, Any]) -> None:
        package, executable = self._expand(body["pkg"]), self._expand(body["exec"])
        program = find_prefix(package, self._environment) / "lib" / package / executable
        if not program.is_file():
            there = sorted(p.name for p in program.parent.glob("*"))
            raise LaunchFileError(
                f"package {package!r} has no executable {executable!r}; "
                f"it has: {', '.join(there) or 'none'}"
            )
        name = self._expand(body.get("name", executable))
        namespace = _join(self._namespace, self._expand(body.get("namespace", "")))
        files, values = self._node_parameters(body.get("param", ()))
        ros = ["-r", f"__node:={name}"] + (["-r", f"__ns:={namespace}"] if namespace else [])
        ros += shlex.split(self._expand(body.get("ros_args", "")))
        for file in files:
            ros += ["--params-file", file]
        pairs = [(self._expand(r["from"]), self._expand(r["to"])) for r in body.get("remap", ())]
        for source, target in (*self._remappings, *pairs):
            ros += ["-r", f"{source}:={target}"]
        command = [str(program), *shlex.split(self._expand(body.get("args", ""))), "--ros-args"]
        self._add(body, name, [*command, *ros], node=f"{namespace}/{name}", parameters=values)

    def _node_parameters(self, entries: object) -> tuple[list[str], dict[str, ParameterValue]]:
        """Parameter files, in order, and values, which come after all files."""
        files: list[str] = []
        values: dict[str, ParameterValue] = {}
        if not isinstance(entries, (list, tuple)):
            raise LaunchFileError(f"param: expected a list, found {entries!r}")
        for entry in entries:
            where = f"{self._file.name}: node"
            _attributes(entry, where, "param", ("from", "name", "value", "type"))
            if "from" not in entry:
                values[self._expand(entry["name"])] = self._value(entry)
                continue
            file = self._expand(entry["from"])
            if values:
                raise LaunchFileError(f"param from {file}: files come before names and values")
            if not Path(file).is_file():
                raise LaunchFileError(f"no parameter file {file}")
            files.append(file)
        return files, values

    def _value(self, entry: dict[str, Any]) -> ParameterValue:
        """A parameter's value: as in YAML, or of the `type` that is asked for."""
        name, value, kind = entry["name"], entry["value"], entry.get("type")
        if kind is not None and kind not in _TYPES:
            raise LaunchFileError(f"param {name}: type {kind!r}; known are: {', '.join(_TYPES)}")
        if isinstance(value, str):
            text = self._expand(value)
            if kind == "str" or not text:
                return text
            value = yaml.safe_load(text)
        if kind == "float" and type(value) is int:
            value = float(value)
        kinds = {type(item) for item in value} if isinstance(value, list) else {type(value)}
        if len(kinds) != 1 or not kinds <= set(_TYPES.values()):
            raise LaunchFileError(f"param {name}: {value!r} is no value or uniform list of values")
        if kind is not None and kinds != {_TYPES[kind]}:
            raise LaunchFileError(f"param {name}: expected type {kind}, found {value!r}")
        return value  # type: ignore[no-any-return]

    def _executable(self, body: dict[str, Any]) -> None:
        command = shlex.split(self._expand(body["cmd"]))
        name = self._expand(body.get("name", Path(command[0]).name))
        self._add(body, name, command)

    def _add(self, body: dict[str, Any], name: str, command: list[str], **more: Any) -> None:
        on_exit = body.get("on_exit")
        if on_exit not in (None, "shutdown"):
            raise LaunchFileError(f"on_exit: found {on_exit!r}, expected 'shutdown'")
        if body.get("output", "both") not in ("screen", "both", "log"):
            raise LaunchFileError(f"output: found {body['output']!r}, expected screen, log or both")
        environment = dict(self._environment)
        for entry in body.get("env", ()):
            environment[self._expand(entry["name"])] = self._expand(entry["value"])
        prefix = shlex.split(self._expand(body.get("launch-prefix", "")))
        self.processes.append(
            Process(
                name=name,
                command=(*prefix, *command),
                environment=environment,
                required=on_exit == "shutdown",
                directory=self._expand(body["cwd"]) if "cwd" in body else None,
                sigterm_timeout=float(body.get("sigterm_timeout", 5.0)),
                sigkill_timeout=float(body.get("sigkill_timeout", 5.0)),
                **more,
            )
        )


def _join(namespace: str, name: str) -> str:
    """`name` under `namespace`, unless it is absolute; empty stands for the root."""
    absolute = name.startswith("/") or not name
    joined = (name or namespace if absolute else f"{namespace}/{name}").rstrip("/")
    return joined if not joined or joined.startswith("/") else f"/{joined}"
