"""Steps as arrays of transitions, and back."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlif_learner.bags import read_steps
from rlif_learner.bags_arrays import ImportConfig, read_arrays, steps_from_arrays, transitions
from rlif_learner.buffer import ReplayBuffer
from rlif_learner.commands import export as export_command
from rlif_learner.commands import import_ as import_command
from rlif_learner.labels import label_rewards
from rlif_learner.steps import Outcome, Source


def _load_helpers() -> Any:
    spec = importlib.util.spec_from_file_location(
        "bag_helpers", Path(__file__).with_name("test_bags.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helpers = _load_helpers()


def run(command: Any, *words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args([str(w) for w in words])))


def test_transitions_are_those_of_the_buffer() -> None:
    steps = helpers.make_episodes(3)
    steps.pop(8)
    arrays = transitions(steps)
    buffer = ReplayBuffer(100, 3, 2)
    buffer.add_episode(steps)
    rows = np.flatnonzero(buffer.columns["valid"])
    assert len(arrays["rewards"]) == len(rows)
    assert np.array_equal(arrays["rewards"], buffer.columns["reward"][rows])
    assert np.array_equal(arrays["terminals"], buffer.columns["terminal"][rows] == 1.0)
    assert np.array_equal(arrays["observations"], buffer.columns["state"][rows])
    assert np.array_equal(arrays["next_observations"], buffer.columns["state"][rows + 1])


def test_a_time_limit_is_no_terminal() -> None:
    """PITFALLS: time limits stored as terminal."""
    steps = helpers.make_episodes(1)
    steps[-1] = helpers.make_step(5, 5, 5, outcome=Outcome.TRUNCATED)
    arrays = transitions(steps)
    assert not arrays["terminals"].any() and arrays["timeouts"].tolist() == [False] * 4 + [True]


def test_evaluation_is_left_out_unless_asked_for() -> None:
    steps = [helpers.make_step(i, i, 5, evaluation=True) for i in range(6)]
    assert len(transitions(steps, evaluation=True)["rewards"]) == 5
    with pytest.raises(RuntimeError, match="no transition"):
        transitions(steps)


def test_discarded_episodes_are_left_out() -> None:
    steps = helpers.make_episodes(2)
    kept = transitions(steps[:6])
    steps[-1] = replace(steps[-1], outcome=Outcome.DISCARDED)
    found = transitions(steps)
    assert found["episode_ids"].tolist() == kept["episode_ids"].tolist()


def test_there_and_back_again(tmp_path: Path) -> None:
    steps = helpers.make_episodes(3)
    bag = helpers.write_bag(tmp_path / "bag", steps)
    assert run(export_command, bag, "-o", tmp_path / "out.npz") == 0
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "again") == 0
    helpers.assert_equal_steps(list(read_steps(tmp_path / "again")), steps)


def test_several_bags_and_files_keep_their_episodes_apart(tmp_path: Path) -> None:
    bags = [helpers.write_bag(tmp_path / f"b{i}", helpers.make_episodes(2)) for i in range(3)]
    assert run(export_command, *bags, "-o", tmp_path / "out.npz") == 0
    assert np.unique(read_arrays(tmp_path / "out.npz")["episode_ids"]).tolist() == [*range(1, 7)]
    files = [tmp_path / "out.npz"] * 2
    assert run(import_command, *files, "-o", tmp_path / "again") == 0
    found = list(read_steps(tmp_path / "again"))
    assert [s.sequence for s in found] == list(range(72))
    assert sorted({s.episode_id for s in found}) == [*range(1, 13)]


def demonstrations() -> dict[str, np.ndarray]:
    """The paper's kind: observations and actions, with true rewards."""
    ends = np.array([False, False, True, False, True])
    return {
        "observations": np.arange(10, dtype=np.float64).reshape(5, 2),
        "next_observations": np.arange(10, dtype=np.float64).reshape(5, 2) + 2,
        "actions": np.linspace(-1, 1, 5).reshape(5, 1),
        "rewards": np.full(5, 100.0),
        "terminals": ends & np.array([True, True, True, True, False]),
        "timeouts": ends & np.array([False, False, False, False, True]),
    }


def test_true_rewards_of_demonstrations_count_for_nothing() -> None:
    """PITFALLS: prior data sampled with its true task rewards although the method has none."""
    steps = list(steps_from_arrays(demonstrations(), ImportConfig()))
    assert len(steps) == 7 and not label_rewards(steps)[0].any()
    assert [s.outcome for s in steps if s.is_last] == [Outcome.SUCCESS, Outcome.TRUNCATED]
    assert [s.source for s in steps if not s.is_last] == [Source.OPERATOR] * 5
    assert [s.onset for s in steps] == [True, False, False, False, True, False, False]


def test_without_next_observations_the_last_action_has_no_successor() -> None:
    arrays = {k: v for k, v in demonstrations().items() if k != "next_observations"}
    steps = list(steps_from_arrays(arrays, ImportConfig()))
    assert [s.is_last for s in steps] == [False, False, True, False, True]
    assert steps[2].state.tolist() == [4.0, 5.0]


def test_actions_are_scaled() -> None:
    arrays = {**demonstrations(), "actions": np.full((5, 1), 0.05)}
    steps = list(steps_from_arrays(arrays, ImportConfig(action_scale=0.1)))
    assert steps[0].action.tolist() == [0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full((5, 1), 2.0)}, r"actions: row 0 .* \[-1, 1\]"),
        ({"actions": np.zeros((4, 1))}, "actions: found 4 rows"),
        ({"observations": np.full((5, 2), np.nan)}, "observations: row 0 is not finite"),
        ({"observations": np.zeros(5)}, "observations: found shape"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(steps_from_arrays({**demonstrations(), **change}, ImportConfig()))


def test_a_refused_file_leaves_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "bad.npz", observations=np.zeros((3, 2)))
    assert run(import_command, tmp_path / "bad.npz", "-o", tmp_path / "bag") == 1
    assert "bad.npz: found no ['actions']" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]


def test_pickles_are_never_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PITFALLS: unpickling what somebody else wrote."""
    np.savez(tmp_path / "evil.npz", observations=np.array([{}]), actions=np.zeros((1, 1)))
    assert run(import_command, tmp_path / "evil.npz", "-o", tmp_path / "bag") == 1
    assert "plain arrays" in capsys.readouterr().err
