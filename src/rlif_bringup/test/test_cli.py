"""The `rlif` command: what a person gets who asks wrongly or changes their mind."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from rlif_bringup import cli


@pytest.mark.parametrize("when", ["import", "run"])
def test_ctrl_c_is_one_line_even_while_modules_are_imported(
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


def test_what_is_no_command_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["bags"]) == 2 and "relabel" in capsys.readouterr().err
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
