# SPDX-License-Identifier: Apache-2.0
"""Libraries that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from step_bags import Cli

from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError


def test_optional_missing_library_is_named_with_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BagError, match='pip install --group export.*pip install "av"'):
        optional("av")


@pytest.mark.parametrize(
    ("library", "command", "remedy"),
    [("ray", ("relabel", "--ray", "local"), "pip install 'ray"),
     ("rerun", ("show", "--rerun"), "pip install 'rerun-sdk")],
)  # fmt: skip
def test_optional_missing_library_ends_the_command_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli,
    library: str, command: tuple[str, ...], remedy: str, bag: Path) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    name, *options = command
    assert remedy in cli.fails(name, bag, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
