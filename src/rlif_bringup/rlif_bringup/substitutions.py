# SPDX-License-Identifier: Apache-2.0
"""Substitutions of launch files, `$(var name)` and its like, by the rules of ROS 2's launch.

    text          = (characters | substitution)*
    substitution  = "$(" name (blank argument)* ")"
    argument      = "'" text "'" | '"' text '"' | word, which may hold substitutions

A backslash takes the next character as it is. What runs a program or Python (`command`, `eval`) is
refused, so that reading a launch file never executes anything.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

TRUE, FALSE = ("true", "1"), ("false", "0")


class LaunchFileError(ValueError):
    """A launch file, or what was asked of it, cannot be followed: what, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Scope:
    """What substitutions are looked up in.

    Attributes:
        configurations: arguments and `let`s, by name.
        environment: variables as the started processes will see them.
        file: the launch file that is being read.
    """

    configurations: Mapping[str, str]
    environment: Mapping[str, str]
    file: Path


def find_prefix(package: str, environment: Mapping[str, str]) -> Path:
    """Install prefix of a ROS package, from AMENT_PREFIX_PATH.

    Raises:
        LaunchFileError: no prefix on the path has the package.
    """
    prefixes = [Path(p) for p in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in prefixes:
        if (prefix / "share/ament_index/resource_index/packages" / package).exists():
            return prefix
    raise LaunchFileError(
        f"package {package!r} is in none of the {len(prefixes)} prefixes of AMENT_PREFIX_PATH: "
        "build it and source its workspace, or check the name"
    )


def is_true(text: str) -> bool:
    """Truth value of a condition.

    Raises:
        LaunchFileError: neither true/1 nor false/0.
    """
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise LaunchFileError(f"a condition is true, 1, false or 0, found {text!r}")
    return word in TRUE


def _equal(left: str, right: str) -> bool:
    """Equality of texts, or of the booleans or numbers that they stand for."""
    if left.lower() in ("true", "false") and right.lower() in ("true", "false"):
        return left.lower() == right.lower()
    try:
        return float(left) == float(right)
    except ValueError:
        return left == right


def _var(scope: Scope, name: str, *default: str) -> str:
    if name in scope.configurations:
        return scope.configurations[name]
    if default:
        return default[0]
    known = ", ".join(sorted(scope.configurations)) or "none"
    raise LaunchFileError(f"$(var {name}): no such argument or let; known are: {known}")


def _env(scope: Scope, name: str, *default: str) -> str:
    if name in scope.environment:
        return scope.environment[name]
    if default:
        return default[0]
    raise LaunchFileError(f"$(env {name}): the environment variable is not set; export it")


def _share(scope: Scope, package: str) -> str:
    return str(find_prefix(package, scope.environment) / "share" / package)


def _text(value: bool) -> str:
    return "true" if value else "false"


# name: (least and most arguments, function)
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., str]]] = {
    "var": (1, 2, _var),
    "env": (1, 2, _env),
    "find-pkg-share": (1, 1, _share),
    "find-pkg-prefix": (1, 1, lambda scope, name: str(find_prefix(name, scope.environment))),
    "dirname": (0, 0, lambda scope: str(scope.file.parent)),
    "filename": (0, 0, lambda scope: str(scope.file)),
    "not": (1, 1, lambda _, value: _text(not is_true(value))),
    "and": (2, 2, lambda _, left, right: _text(is_true(left) and is_true(right))),
    "or": (2, 2, lambda _, left, right: _text(is_true(left) or is_true(right))),
    "equals": (2, 2, lambda _, left, right: _text(_equal(left, right))),
    "not-equals": (2, 2, lambda _, left, right: _text(not _equal(left, right))),
}
_REFUSED = {
    "eval": "it runs Python out of a launch file; use equals, not, and, or",
    "command": "it runs a program while the file is read; pass the value as an argument",
}


def substitute(text: str, scope: Scope) -> str:
    """`text` with every substitution replaced by its value.

    Raises:
        LaunchFileError: bad syntax, an unknown or refused substitution, an unknown name.
    """
    reader = _Reader(text, scope)
    result = reader.read_until("")
    reader.expect_end()
    return result


class _Reader:
    """Recursive descent over one text."""

    def __init__(self, text: str, scope: Scope) -> None:
        self._text, self._scope, self._at = text, scope, 0

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def expect_end(self) -> None:
        if self._at < len(self._text):
            raise self._error("something is left over")

    def _error(self, what: str) -> LaunchFileError:
        return LaunchFileError(f"{self._text!r}, at character {self._at + 1}: {what}")

    def read_until(self, ends: str) -> str:
        """Text up to one of the characters of `ends`, which is left unread, or to the end."""
        parts: list[str] = []
        while self._at < len(self._text) and not (ends and self._peek() in ends):
            if self._peek(2) == "$(":
                parts.append(self._substitution())
            elif self._peek() == "\\" and self._at + 1 < len(self._text):
                parts.append(self._text[self._at + 1])
                self._at += 2
            else:
                parts.append(self._peek())
                self._at += 1
        return "".join(parts)

    def _substitution(self) -> str:
        start = self._at
        self._at += 2
        name = self.read_until(" )")
        arguments: list[str] = []
        while self._peek() == " ":
            self._at += 1
            if self._peek() not in (" ", ")", ""):
                arguments.append(self._argument())
        if self._peek() != ")":
            self._at = start
            raise self._error("'$(' without its ')'")
        self._at += 1
        return _call(name, arguments, self._scope)

    def _argument(self) -> str:
        quote = self._peek()
        if quote not in "'\"":
            return self.read_until(" )")
        self._at += 1
        value = self.read_until(quote)
        if self._peek() != quote:
            raise self._error(f"{quote} is not closed")
        self._at += 1
        return value


def _call(name: str, arguments: list[str], scope: Scope) -> str:
    if name in _REFUSED:
        raise LaunchFileError(f"$({name} …) is refused: {_REFUSED[name]}")
    if name not in _FUNCTIONS:
        known = ", ".join(_FUNCTIONS)
        raise LaunchFileError(f"$({name} …) is not known here; known are: {known}")
    least, most, function = _FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        expected = str(least) if least == most else f"{least} or {most}"
        raise LaunchFileError(f"$({name} …) takes {expected} arguments, found {len(arguments)}")
    return function(scope, *arguments)
