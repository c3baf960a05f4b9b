# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and how a command reports its errors."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from rlif_bags.reading.files import BagError
from rlif_learner.data.labels import SCHEMES

Run = Callable[[argparse.Namespace], int]


def add_bags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG")
    parser.add_argument("--topic", default="", help="of the Steps, where there are several")


def add_episodes(parser: argparse.ArgumentParser) -> None:
    """--episodes, as a tuple of ids; without it an empty one."""
    parser.add_argument("--episodes", type=_ids, default=(), help="ids: 3, or 1,4,10-12")


def _ids(text: str) -> tuple[int, ...]:
    """ArgumentTypeError for anything else than numbers and ranges of them."""
    ids: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected ids, as in 1,4,10-12")
        ids += range(int(first), int(last) + 1)
    return tuple(ids)


def add_scheme(parser: argparse.ArgumentParser) -> None:
    """--scheme and the parameters of a function of the user's."""
    known = f"{', '.join(SCHEMES)} or module:function"
    parser.add_argument("--scheme", default="onset", help=known)
    add_set(parser, "parameter of the function; the value is JSON")


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    """--set, for `parse_parameters`."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help=text
    )


def parse_parameters(given: list[str]) -> dict[str, Any]:
    """name=value pairs; what is no JSON, nor a list as YAML has it, is taken as text."""
    parameters: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"--set: found {pair!r}, expected NAME=VALUE")
        try:
            parameters[name] = json.loads(text)
        except json.JSONDecodeError:
            parameters[name] = _yaml_list(text) if text.startswith("[") else text
    return parameters


def _yaml_list(text: str) -> Any:
    """[wrist, fixed]: names need no quotes there."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set: found {text!r}, which is no list: {error}") from error


def print_errors(name: str, *errors: object) -> int:
    """One line each on stderr; exit code 1 where there are any."""
    for error in errors:
        print(f"rlif {name}: {error}", file=sys.stderr)
    return int(bool(errors))


def print_notes(*notes: str) -> None:
    for note in notes:
        print(f"note: {note}")


def reports_errors(name: str, *more: type[Exception]) -> Callable[[Run], Run]:
    """What a command cannot do for its data or settings is one line on stderr, and exit code 1."""

    known: tuple[type[Exception], ...] = (BagError, ValueError, OSError, *more)

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        def wrapped(arguments: argparse.Namespace) -> int:
            try:
                return run(arguments)
            except known as error:
                return print_errors(name, error)

        return wrapped

    return decorate
