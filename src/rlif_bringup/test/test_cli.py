# SPDX-License-Identifier: Apache-2.0
"""The `rlif` command: what a person gets who asks wrongly or changes their mind."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from rlif_bringup import cli


@pytest.mark.parametrize("when", ["import", "run"])
def test_cli_interrupted_while_it_imports_or_runs_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    module = importlib.import_module("rlif_bags.commands.bag")
    monkeypatch.setattr(module, "run", interrupted)
    if when == "import":
        monkeypatch.setattr(importlib, "import_module", interrupted)
    assert cli.main(["bag", "info", "nowhere"]) == 130
    assert capsys.readouterr().err == "rlif bag: interrupted\n"


def test_cli_without_a_known_command_lists_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["dmeo"]) == 2
    errors = capsys.readouterr().err
    assert "no command 'dmeo'" in errors and "relabel" in errors
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.slow
def test_cli_help_imports_neither_torch_nor_ros() -> None:
    code = (
        "import sys; from rlif_bringup.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'rclpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", sorted(cli.available()))
def test_cli_help_of_every_command_explains_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"rlif {command}" in capsys.readouterr().out
