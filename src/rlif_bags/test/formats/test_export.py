# SPDX-License-Identifier: Apache-2.0
"""Which transitions an export takes out of bags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from step_bags import Cli, export_arrays, imported, make_episodes, make_step

from rlif_learner.data.steps import Outcome


def test_export_reader_evaluation_is_left_out_unless_asked_for(tmp_path: Path, cli: Cli) -> None:
    steps = [make_step(i, i, 5, evaluation=True) for i in range(6)]
    arrays = export_arrays(tmp_path, steps, "--evaluation")
    assert len(arrays["rewards"]) == 5 and arrays["evaluations"].all()
    assert all(step.evaluation for step in imported(tmp_path / "out.npz"))
    assert "no transition" in cli.fails("export", tmp_path / "bag", "-o", tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


def test_export_reader_discarded_episode_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = make_episodes(2)
    steps[-1] = replace(steps[-1], outcome=Outcome.DISCARDED)
    assert export_arrays(tmp_path, steps)["episode_ids"].tolist() == [1] * 5
    assert "left out, discarded: 1 episodes" in capsys.readouterr().out


def test_export_reader_scheme_function_gives_the_rewards(tmp_path: Path) -> None:
    scheme = ("--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2")
    assert export_arrays(tmp_path, make_episodes(1), *scheme)["rewards"].tolist() == [
        0.0, -0.5, -0.5, 0.0, 0.0,
    ]  # fmt: skip


def test_export_reader_evaluation_from_the_middle_is_left_out(tmp_path: Path) -> None:
    steps = make_episodes(2)
    steps[:6] = [replace(s, evaluation=s.step_index > 2) for s in steps[:6]]
    arrays = export_arrays(tmp_path, steps)
    assert len(arrays["rewards"]) == 5 and not arrays["evaluations"].any()


def test_export_reader_terminal_in_the_middle_ends_the_run(tmp_path: Path) -> None:
    """Regression: only those at the end of an episode were exported."""
    scheme = ("--scheme", "step_bags:ends_at_onsets")
    arrays = export_arrays(tmp_path, make_episodes(1), *scheme)
    assert arrays["terminals"].tolist() == [False, False, True, False, False]
    assert arrays["episode_ids"].tolist() == [1, 1, 1, 2, 2]
    assert arrays["next_observations"][2, 0] == arrays["observations"][3, 0] == 3.0
    assert arrays["timeouts"].tolist() == [False] * 4 + [True]
