# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share; wrong options of any."""

from __future__ import annotations

from pathlib import Path

import pytest
from step_bags import Cli

from rlif_bags.commands.options import parse_parameters


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("relabel", ["--scheme", "unheard"], "expected one of"),
        ("relabel", ["--scheme", "no_such_module:f"], "no_such_module"),
        ("relabel", ["--scheme", "onset", "--set", "x=1"], "takes no parameters"),
        ("relabel", ["--set", "x"], "NAME=VALUE"),
        ("relabel", ["--dwell", "-1"], "dwell"),
        ("show", ["--episodes", "99"], "no such episode"),
        ("show", ["--last", "0"], "at least 1"),
        ("train", ["--set", "algorithm=dqn"], "algorithm"),
        ("train", ["--set", "rlpd.no=1"], "unknown settings"),
        ("train", ["--set", "capacity=5"], "no use for"),
        ("train", ["--set", "label_scheme=no"], "scheme"),
        ("train", ["--set", "failure_reward=-0.5"], "failure_reward"),
        ("train", ["--set", "updates_per_step=0.0"], "--updates"),
        ("train", ["--prior", "nowhere"], "found no bag"),
        ("train", ["--labels", "nowhere"], "there are no such labels"),
        ("train", ["--checkpoint-every", "0"], "expected whole numbers of at least 1"),
        ("train", ["--updates", "0"], "expected whole numbers of at least 1"),
        ("train", ["--updates", "-5"], "expected whole numbers of at least 1"),
    ],
)
def test_command_wrong_option_is_refused_before_work(
    tmp_path: Path, cli: Cli, bag: Path, command: str, args: list[str], message: str
) -> None:
    assert message in cli.fails(command, bag, "-o", tmp_path / "out", *args)
    assert not (tmp_path / "out").exists()


def test_parse_parameters_reads_lists_as_yaml() -> None:
    given = ["cameras=[wrist, fixed]", "hidden=[8, 8]", "rlpd.utd=3", "encoder=small"]
    assert parse_parameters(given) == {
        "cameras": ["wrist", "fixed"], "hidden": [8, 8], "rlpd.utd": 3, "encoder": "small",
    }  # fmt: skip
