# SPDX-License-Identifier: Apache-2.0
"""`rlif demo` without its nodes: phases, files, exit codes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from rich.console import Console

from rlif_bringup import cli, demo
from rlif_bringup.graph_client import GraphError
from rlif_bringup.progress import Progress


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_intermixed_args(list(given))


def test_phases_are_those_asked_for_and_judged_on_the_same_boards() -> None:
    phases = demo.phases_of(arguments("--steps", "100", "--eval-episodes", "7"))
    assert [p.name for p in phases] == ["demonstrations", "training", "policy", "expert"]
    assert phases[2].boards == phases[3].boards, "judged on the same boards"
    assert not phases[1].evaluation
    only = demo.phases_of(arguments("--steps", "0", "--demonstrations", "0"))
    assert [p.name for p in only] == ["policy", "expert"]


def test_person_has_an_arm_of_their_own_and_few_trials(tmp_path: Path) -> None:
    given = arguments("--operator", "me", "--images", "console_port:=9000")
    values = demo.Demo(given, tmp_path, Progress("test", Console(quiet=True))).values
    assert (values["robot"], values["lock_step"]) == ("sim_person_vision", False)
    assert str(values["console_port"]) == "9000", "what is given wins"
    assert [phase.episodes for phase in demo.phases_of(given)] == [10, 15, 5, 5]


def test_finish_of_an_interrupted_run_writes_what_there_was(tmp_path: Path) -> None:
    progress = Progress("test", Console(quiet=True))
    summary = demo.Demo(arguments("--seed", "5"), tmp_path, progress).finish(True, None)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary
    assert written["interrupted"] is True
    assert written["seed"] == 5
    assert "not evaluated" in demo.report(summary, tmp_path)


def test_demo_in_a_directory_that_is_not_empty_is_refused(tmp_path: Path, capsys: object) -> None:
    (tmp_path / "something").touch()
    assert cli.main(["demo", "--run-directory", str(tmp_path)]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["something"]


def test_demo_with_an_unknown_robot_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    assert cli.main(["demo", "--run-directory", str(directory), "robot:=spot"]) == 1
    assert "config/spot/" in capsys.readouterr().err
    assert not list((directory / "log").glob("*.log"))


def test_demo_that_loses_a_node_fails_with_the_reason_in_its_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object) -> None:
        raise GraphError("policy was killed by SIGKILL")

    monkeypatch.setattr(demo.Demo, "run", lose)
    assert demo.run(arguments("--run-directory", str(tmp_path))) == 1
    assert "policy was killed by SIGKILL" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["error"] == "policy was killed by SIGKILL" and not summary["interrupted"]
