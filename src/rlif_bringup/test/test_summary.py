"""The numbers of summary.json, by hand and as properties; pictures and curves of any run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rlif_bringup import cli, demo
from rlif_bringup.curves import Curves
from rlif_bringup.plot import draw
from rlif_bringup.progress import Progress
from rlif_bringup.summary import (
    EpisodeRecord,
    moving_average,
    operator_share,
    summarise,
    wilson_interval,
)


def record(phase: str, number: int, operator_steps: int, success: bool) -> EpisodeRecord:
    return EpisodeRecord(phase, number, 10 * number, 10, operator_steps, 1, success, float(number))


def run_of(training: int, judged: int = 10) -> list[EpisodeRecord]:
    records = [record("demonstrations", n, 10, True) for n in range(2)]
    records += [record("training", n, 8 if n < 20 else 2, n > 5) for n in range(training)]
    records += [record("policy", n, 0, n > 0) for n in range(judged)]
    return records + [record("expert", n, 10, n % 2 == 0) for n in range(judged)]


def test_wilson_by_hand() -> None:
    # 47 of 50, worked out with the formula on paper: centre 0.9086, half-width 0.0702.
    low, high = wilson_interval(47, 50)
    assert low == pytest.approx(0.8378, abs=1e-4)
    assert high == pytest.approx(0.9794, abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="found 3 of 2"):
        wilson_interval(3, 2)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_stays_in_range(trial: tuple[int, int]) -> None:
    low, high = wilson_interval(*trial)
    assert 0.0 <= low <= trial[0] / trial[1] <= high <= 1.0


@given(st.lists(st.floats(-1e3, 1e3), max_size=60), st.integers(1, 25))
def test_moving_average_equals_the_definition(values: list[float], window: int) -> None:
    expected = [
        sum(part) / len(part)
        for part in (values[max(0, n + 1 - window) : n + 1] for n in range(len(values)))
    ]
    assert moving_average(values, window) == pytest.approx(expected, abs=1e-8)


def test_summary_by_hand() -> None:
    summary = summarise(run_of(40), seed=3)
    assert summary["policy_success"] == 0.9
    assert summary["policy_success_interval"] == list(wilson_interval(9, 10))
    assert summary["expert_success"] == 0.5
    assert summary["env_steps"] == 420, "demonstrations count, evaluation does not"
    assert summary["interventions"] == 40
    assert summary["operator_share_first20"] == pytest.approx(0.8)
    assert summary["operator_share_last20"] == pytest.approx(0.2)
    assert summary["seed"] == 3
    assert summary["versions"]["ros"] != "unknown"
    json.dumps(summary)


def test_a_run_that_was_cut_short_has_a_summary_too() -> None:
    summary = summarise([])
    assert summary["policy_success"] is None
    assert summary["policy_success_interval"] is None
    assert summary["operator_share_first20"] is None


@pytest.mark.parametrize("records", [run_of(40), run_of(1, 0), []])
def test_any_run_can_be_drawn(records: list[EpisodeRecord], tmp_path: Path) -> None:
    draw(records, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_curves_are_read_back(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(100, training__success=0.25, nothing=None)
    curves.close()
    (path,) = tmp_path.iterdir()
    events = [e for e in EventFileLoader(str(path)).Load() if e.step == 100]
    assert [value.tag for value in events[0].summary.value] == ["training/success"]


def demo_arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_intermixed_args(list(given))


def test_the_demo_writes_what_there_was(tmp_path: Path) -> None:
    progress = Progress("test", Console(quiet=True))
    summary = demo.Demo(demo_arguments("--seed", "5"), tmp_path, progress).finish(True, None)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary
    assert written["interrupted"] is True
    assert written["seed"] == 5
    assert "not evaluated" in demo.report(summary, tmp_path)


def test_phases_of_the_demo() -> None:
    phases = demo.phases_of(demo_arguments("--steps", "100", "--eval-episodes", "7"))
    assert [p.name for p in phases] == ["demonstrations", "training", "policy", "expert"]
    assert phases[2].boards == phases[3].boards, "judged on the same boards"
    assert not phases[1].evaluation
    only = demo.phases_of(demo_arguments("--steps", "0", "--demonstrations", "0"))
    assert [p.name for p in only] == ["policy", "expert"]


def test_operator_share_weighs_episodes_by_their_steps() -> None:
    long = EpisodeRecord("training", 1, 90, 90, 0, 0, True, 1.0)
    short = EpisodeRecord("training", 2, 100, 10, 10, 1, True, 2.0)
    assert operator_share([long, short]) == pytest.approx(0.1)


def test_the_command_line_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    assert cli.main(["dmeo"]) == 2
    assert "no command 'dmeo'" in capsys.readouterr().err


@pytest.mark.ros
def test_help_is_quick_because_it_imports_neither_torch_nor_ros() -> None:
    code = (
        "import sys; from rlif_bringup.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'rclpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_directory_is_never_written_over(tmp_path: Path, capsys: object) -> None:
    (tmp_path / "something").touch()
    assert cli.main(["demo", "--run-directory", str(tmp_path)]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["something"]


@pytest.mark.parametrize("command", sorted(cli.available()))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"rlif {command}" in capsys.readouterr().out
