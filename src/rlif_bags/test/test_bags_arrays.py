"""Steps as arrays of transitions, and back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest
from bag_episodes import run

from rlif_bags.commands import export as export_command
from rlif_bags.commands import import_ as import_command
from rlif_bags.formats.arrays import ImportConfig, read_arrays, steps_from_arrays
from rlif_bags.formats.export import optional
from rlif_bags.reading.files import BagError, DirectoryLock
from rlif_bags.reading.step_reader import StepReader, read_steps
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord


def export(tmp_path: Path, steps: list[StepRecord], *options: object) -> dict[str, np.ndarray]:
    """The arrays of an export of these Steps."""
    helpers.write_bag(tmp_path / "bag", steps)
    assert run(export_command, tmp_path / "bag", "-o", tmp_path / "out.npz", *options) == 0
    return dict(np.load(tmp_path / "out.npz"))


def test_transitions_are_those_of_the_buffer(tmp_path: Path) -> None:
    steps = helpers.make_episodes(3)
    steps.pop(8)
    arrays = export(tmp_path, steps)
    buffer = ReplayBuffer(100, 3, 2)
    buffer.add_episode(steps)
    rows = np.flatnonzero(buffer.columns["valid"])
    assert len(arrays["rewards"]) == len(rows)
    assert np.array_equal(arrays["rewards"], buffer.columns["reward"][rows])
    assert np.array_equal(arrays["terminals"], buffer.columns["terminal"][rows] == 1.0)
    assert np.array_equal(arrays["observations"], buffer.columns["state"][rows])
    assert np.array_equal(arrays["next_observations"], buffer.columns["state"][rows + 1])


def test_a_gap_ends_an_episode_there_and_back_again(tmp_path: Path) -> None:
    """PITFALLS: next states crossed what they must not cross."""
    steps = helpers.make_episodes(1, length=8)
    steps.pop(4)
    arrays = export(tmp_path, steps)
    assert arrays["episode_ids"].tolist() == [1] * 3 + [2] * 3
    assert arrays["timeouts"].tolist() == [False, False, True, False, False, False]
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "again") == 0
    found = [(s.episode_id, s.state[1], s.is_last) for s in read_steps(tmp_path / "again")]
    assert found == [
        (1, 0, False), (1, 1, False), (1, 2, False), (1, 3, True),
        (2, 5, False), (2, 6, False), (2, 7, False), (2, 8, True),
    ]  # fmt: skip


def test_a_time_limit_is_no_terminal(tmp_path: Path) -> None:
    """PITFALLS: time limits stored as terminal."""
    steps = helpers.make_episodes(1)
    steps[-1] = helpers.make_step(5, 5, 5, outcome=Outcome.TRUNCATED)
    arrays = export(tmp_path, steps)
    assert not arrays["terminals"].any() and arrays["timeouts"].tolist() == [False] * 4 + [True]


def test_a_failure_labels_the_same_after_a_round_trip(tmp_path: Path) -> None:
    steps = helpers.make_episodes(1, length=2)
    steps[-1] = replace(steps[-1], outcome=Outcome.FAILURE)
    assert export(tmp_path, steps)["rewards"].tolist() == [0.0, -1.0]
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "again") == 0
    assert label_rewards(list(read_steps(tmp_path / "again")))[0].tolist() == [0.0, -1.0, 0.0]


def test_evaluation_is_left_out_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [helpers.make_step(i, i, 5, evaluation=True) for i in range(6)]
    arrays = export(tmp_path, steps, "--evaluation")
    assert len(arrays["rewards"]) == 5 and arrays["evaluations"].all()
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "again") == 0
    assert all(step.evaluation for step in read_steps(tmp_path / "again"))
    assert run(export_command, tmp_path / "bag", "-o", tmp_path / "none.npz") == 1
    assert "no transition" in capsys.readouterr().err
    assert not (tmp_path / "none.npz").exists()


def test_discarded_episodes_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = helpers.make_episodes(2)
    steps[-1] = replace(steps[-1], outcome=Outcome.DISCARDED)
    assert export(tmp_path, steps)["episode_ids"].tolist() == [1] * 5
    assert "left out, discarded: 1 episodes" in capsys.readouterr().out


def test_an_action_that_nobody_asked_for_is_not_a_number(tmp_path: Path) -> None:
    arrays = export(tmp_path, helpers.make_episodes(1))
    operator = arrays["interventions"]
    assert operator.tolist() == [False] * 3 + [True] * 2
    assert np.isnan(arrays["operator_actions"][~operator]).all()
    assert np.isnan(arrays["policy_actions"][operator]).all()
    assert np.array_equal(arrays["operator_actions"][operator], arrays["actions"][operator])


def test_a_function_of_the_users_labels(tmp_path: Path) -> None:
    scheme = ("--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2")
    assert export(tmp_path, helpers.make_episodes(1), *scheme)["rewards"].tolist() == [
        0.0, -0.5, -0.5, 0.0, 0.0,
    ]  # fmt: skip


def test_images_go_there_and_back_again(tmp_path: Path) -> None:
    steps = helpers.make_episodes(3, images=True)
    arrays = export(tmp_path, steps)
    assert arrays["images.camera_0"].shape == (18, 4, 6, 3)
    rows = arrays["image_rows"]
    assert np.array_equal(
        arrays["images.camera_1"][rows, 0, 0, 0], arrays["observations"][:, 0] + 1
    )
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "again") == 0
    helpers.assert_equal_steps(list(read_steps(tmp_path / "again")), steps)
    names = ("--cameras", "wrist", "fixed")
    assert run(import_command, tmp_path / "out.npz", "-o", tmp_path / "named", *names) == 0
    assert {step.cameras for step in read_steps(tmp_path / "named")} == {("wrist", "fixed")}


def test_dones_end_episodes(tmp_path: Path) -> None:
    rows = {"observations": np.zeros((12, 3)), "actions": np.zeros((12, 2))}
    np.savez(tmp_path / "x.npz", **rows, dones=np.arange(12) % 6 == 5)
    assert run(import_command, tmp_path / "x.npz", "-o", tmp_path / "bag") == 0
    assert {step.episode_id for step in read_steps(tmp_path / "bag")} == {1, 2}


@pytest.mark.parametrize("name", ["cut.npz", "x.npy"])
def test_what_is_no_file_of_arrays_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    np.savez(tmp_path / "whole.npz", observations=np.zeros((12, 3)))
    np.save(tmp_path / "x.npy", np.zeros((12, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-40])
    assert run(import_command, tmp_path / name, "-o", tmp_path / "bag") == 1
    assert "not a readable file of plain arrays" in capsys.readouterr().err


def test_as_many_names_as_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path, helpers.make_episodes(1, images=True))
    words = (tmp_path / "out.npz", "-o", tmp_path / "again", "--cameras", "wrist")
    assert run(import_command, *words) == 1
    assert (
        "found 1 names (wrist), expected one for each camera of the dataset: camera_0, camera_1"
        in (capsys.readouterr().err)
    )
    assert not (tmp_path / "again").exists()


def test_images_can_be_left_out(tmp_path: Path) -> None:
    steps = helpers.make_episodes(1, images=True)
    assert not any("image" in name for name in export(tmp_path, steps, "--no-images"))


def test_a_failed_export_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags = [helpers.write_bag(tmp_path / "a", helpers.make_episodes(2))]
    other = [replace(s, state=s.state[:2]) for s in helpers.make_episodes(1)]
    bags.append(helpers.write_bag(tmp_path / "b", other))
    assert run(export_command, *bags, "-o", tmp_path / "out.npz") == 1
    assert "b: found Steps of {'state': 2" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_an_output_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(tmp_path, helpers.make_episodes(1))
    assert run(export_command, tmp_path / "bag", "-o", tmp_path / "out.npz") == 1
    assert "exists already" in capsys.readouterr().err


def test_what_a_killed_export_left_is_no_obstacle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / ".partial-out.npz"
    (left / "videos").mkdir(parents=True)
    (left / "observations.rows").write_bytes(b"half")
    export(tmp_path, helpers.make_episodes(1))
    assert not left.exists()
    (tmp_path / "out.npz").unlink()
    left.mkdir()
    with DirectoryLock(left):
        assert run(export_command, tmp_path / "bag", "-o", tmp_path / "out.npz") == 1
    assert "is being written by another process" in capsys.readouterr().err


def test_a_library_that_is_missing_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BagError, match='pip install --group export.*pip install "av"'):
        optional("av")


def test_arrays_of_d4rl_are_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install --group export")
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for name, array in demonstrations().items():
            file[name] = array
        file.create_group("metadata")
    assert run(import_command, tmp_path / "demos.hdf5", "-o", tmp_path / "bag") == 0
    assert len(list(read_steps(tmp_path / "bag"))) == 7


def test_images_of_demonstrations_without_a_last_one(tmp_path: Path) -> None:
    pictures = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, 3)
    np.savez(tmp_path / "demos.npz", **demonstrations(), **{"images.top": pictures})
    assert run(import_command, tmp_path / "demos.npz", "-o", tmp_path / "bag") == 0
    found = list(read_steps(tmp_path / "bag"))
    assert [s.images[0].flat[0] for s in found] == [0, 1, 2, 3, 4]
    assert [s.is_last for s in found] == [False, False, True, False, True]


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


@pytest.mark.parametrize("name", ["sets/monday/peg.npz", "sets/monday/peg-v0"])
def test_the_directories_above_an_output_are_made(tmp_path: Path, name: str) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    words = [bag, "-o", tmp_path / name]
    if name.endswith("-v0"):
        pytest.importorskip("minari", reason="minari is not installed: pip install --group export")
        words += ["--format", "minari"]
    assert run(export_command, *words) == 0
    assert [p.name for p in (tmp_path / "sets/monday").iterdir()] == [Path(name).name]


def test_a_file_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("no.npz", "no.hdf5", "no"):
        assert run(import_command, tmp_path / name, "-o", tmp_path / "bag") == 1
        assert f"{name}: there is no such file or dataset" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_arrays_that_do_not_tell_episodes_apart_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: all rows became one episode, without a word."""
    file, bag = tmp_path / "demo.npz", tmp_path / "bag"
    np.savez(file, observations=np.zeros((6, 2)), actions=np.zeros((6, 1)), done=np.ones(6))
    assert run(import_command, file, "-o", bag) == 1
    error = capsys.readouterr().err
    assert "demo.npz: found nothing that tells the episodes apart" in error and "'done'" in error
    assert run(import_command, file, "-o", bag, "--one-episode") == 0
    assert f"note: {file}: not used: done" in capsys.readouterr().out
    assert [s.is_last for s in StepReader(bag)] == [False] * 5 + [True]


def test_an_episode_ends_where_the_next_observation_is_not_the_next_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older datasets have no timeouts: what came after a reset was taken for what came next."""
    states = np.arange(7.0)[:, None]
    following = np.array([1.0, 2.0, 2.5, 4.0, 5.0, 6.0, 7.0])[:, None]
    file, bag = tmp_path / "demo.npz", tmp_path / "bag"
    np.savez(
        file, observations=states, actions=np.zeros((7, 1)), next_observations=following,
        terminals=np.arange(7) == 4,
    )  # fmt: skip
    assert run(import_command, file, "-o", bag) == 0
    assert "1 rows have a next observation that is not the next row's" in capsys.readouterr().out
    steps = list(StepReader(bag))
    assert [s.state[0] for s in steps if s.is_last] == [2.5, 5.0, 7.0]
    outcomes = [Outcome.TRUNCATED, Outcome.SUCCESS, Outcome.TRUNCATED]
    assert [s.outcome for s in steps if s.is_last] == outcomes
    np.savez(file, observations=states, actions=np.zeros((7, 1)), next_observations=states[:, :0])
    assert run(import_command, file, "-o", tmp_path / "other") == 1
    assert "next_observations: found 0 entries, expected 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminals": np.True_}, r"terminals: found shape (), expected [rows]"),
        ({"sources": np.ones((6, 2))}, "sources: found shape (6, 2)"),
        ({"observations": np.array([["a"]] * 6)}, "observations: found <U1, expected real numbers"),
        ({"actions": np.zeros((6, 1), complex)}, "actions: found complex128"),
    ],
)
def test_an_array_of_another_kind_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    """Regression: they ended in tracebacks, or were imported with a warning."""
    arrays = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1)), "dones": np.ones(6)}
    np.savez(tmp_path / "demo.npz", **{**arrays, **change})
    assert run(import_command, tmp_path / "demo.npz", "-o", tmp_path / "bag") == 1
    assert message in capsys.readouterr().err


def test_one_number_a_row_may_be_a_column(tmp_path: Path) -> None:
    ends = np.array([0, 0, 1, 0, 0, 1])[:, None]
    np.savez(
        tmp_path / "demo.npz", observations=np.zeros((6, 2)), actions=np.zeros((6, 1)),
        terminals=ends, sources=np.ones((6, 1), np.uint8),
    )  # fmt: skip
    assert run(import_command, tmp_path / "demo.npz", "-o", tmp_path / "bag") == 0
    steps = list(read_steps(tmp_path / "bag"))
    assert [s.is_last for s in steps] == [False, False, True] * 2
    assert {s.source for s in steps if not s.is_last} == {Source.POLICY}


def test_what_cannot_be_one_bag_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("one", 2), ("two", 3)):
        np.savez(
            tmp_path / f"{name}.npz", observations=np.zeros((4, size)), actions=np.zeros((4, 1)),
            dones=np.array([0, 1, 0, 1]),
        )  # fmt: skip
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    assert run(import_command, *files, "-o", tmp_path / "bag") == 1
    error = capsys.readouterr().err
    assert "two.npz: found state, action and images of (3, 1, ()), expected (2, 1, ())" in error
    assert run(import_command, files[0], "-o", tmp_path / "bag", "--one-episode") == 1
    assert "--one-episode: found dones" in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


def test_evaluation_that_begins_in_the_middle_is_left_out_too(tmp_path: Path) -> None:
    steps = helpers.make_episodes(2)
    steps[:6] = [replace(s, evaluation=s.step_index > 2) for s in steps[:6]]
    arrays = export(tmp_path, steps)
    assert len(arrays["rewards"]) == 5 and not arrays["evaluations"].any()


def ends_at_onsets(steps: list[StepRecord]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array([b.onset for b in steps[1:]] + [False])
    return -ends.astype(np.float32), ends


def test_an_end_that_a_scheme_sees_in_the_middle_is_one(tmp_path: Path) -> None:
    """Regression: only those at the end of an episode were exported."""
    scheme = ("--scheme", f"{__name__}:ends_at_onsets")
    arrays = export(tmp_path, helpers.make_episodes(1), *scheme)
    assert arrays["terminals"].tolist() == [False, False, True, False, False]
    assert arrays["episode_ids"].tolist() == [1, 1, 1, 2, 2]
    assert arrays["next_observations"][2, 0] == arrays["observations"][3, 0] == 3.0
    assert arrays["timeouts"].tolist() == [False] * 4 + [True]
