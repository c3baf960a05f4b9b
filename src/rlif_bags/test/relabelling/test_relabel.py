# SPDX-License-Identifier: Apache-2.0
"""New labels from recorded facts."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_bags import Cli, make_episodes, make_step, write_bag

from rlif_bags.reading.files import BagError
from rlif_bags.relabelling.relabel import (
    Relabelling,
    episodes_of,
    labels_path,
    merge_interventions,
    read_labels,
    relabel_bag,
    shared_blame,
)
from rlif_learner.data.labels import SCHEMES, label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord


@pytest.mark.parametrize(
    ("body", "args", "message"),
    [
        ("raise KeyError('oh')", [], r"episode 1: KeyError: 'oh' (scheme_of_test.py, line 2)"),
        ("return 1, 2", [], "returned shapes () and () for 6 steps"),
        ("return steps", ["--set", "blame=3"], "do not fit"),
        ("return None", [], "returned None, expected rewards and terminals"),
        ("return [float('nan')] * len(steps), [0] * len(steps)", [], "not finite"),
    ],
)
def test_relabelling_user_function_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli,
    body: str, args: list[str], message: str, bag: Path) -> None:  # fmt: skip
    (tmp_path / "scheme_of_test.py").write_text(f"def f(steps):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scheme_of_test", raising=False)
    assert message in cli.fails(
        "relabel", bag, "-o", tmp_path / "out", "--scheme", "scheme_of_test:f", *args
    )
    sys.modules.pop("scheme_of_test", None)


def test_relabel_bag_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    peaks = []
    for episodes in (5, 50):  # 3 and 29 MB
        steps = [replace(step, images=(image, image)) for step in make_episodes(episodes)]
        bag = write_bag(tmp_path / f"bag{episodes}", steps)
        tracemalloc.start()
        relabel_bag(bag, tmp_path, Relabelling())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 8_000_000, peaks


@pytest.mark.parametrize("scheme", SCHEMES)
def test_relabel_bag_labels_equal_label_rewards(tmp_path: Path, scheme: str) -> None:
    steps = make_episodes(3)
    bag = write_bag(tmp_path / "bag", steps)
    before = {f.name: f.read_bytes() for f in bag.iterdir()}
    relabel_bag(bag, tmp_path / "out", Relabelling(scheme))
    assert {f.name: f.read_bytes() for f in bag.iterdir()} == before
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    rewards, terminals = label_rewards(steps, scheme)
    assert np.array_equal(found["reward"], rewards)
    assert np.array_equal(found["terminal"], terminals)
    assert found["sequence"].tolist() == list(range(18))
    assert found["transition"].tolist() == [not s.is_last for s in steps]


def test_relabel_bag_discarded_episode_has_no_transition(tmp_path: Path) -> None:
    steps = make_episodes(2)
    steps[-1] = replace(steps[-1], outcome=Outcome.DISCARDED)
    bag = write_bag(tmp_path / "bag", steps)
    relabel_bag(bag, tmp_path / "out", Relabelling("every_step"))
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    assert found["transition"].tolist() == [True] * 5 + [False] * 7
    assert not found["reward"][6:].any()


def steps_of(sources: str) -> list[StepRecord]:
    """An episode as letters: p and o drive; it ends in a time limit."""
    steps: list[StepRecord] = []
    for index, letter in enumerate(sources + "."):
        operator = letter == "o"
        onset = operator and (index == 0 or sources[index - 1] != "o")
        last = index == len(sources)
        source = Source.NONE if last else Source.OPERATOR if operator else Source.POLICY
        outcome = Outcome.TRUNCATED if last else Outcome.RUNNING
        steps.append(
            make_step(index, index, len(sources), source=source, onset=onset, outcome=outcome)
        )
    return steps


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("po", min_size=1, max_size=8), min_size=1, max_size=5))
def test_episodes_of_labelled_apart_equal_all_at_once(episodes: list[str]) -> None:
    steps: list[StepRecord] = []
    for number, sources in enumerate(episodes, start=1):
        for step in steps_of(sources):
            steps.append(StepRecord(**{**vars(step), "sequence": len(steps), "episode_id": number}))
    for scheme in SCHEMES:
        parts = [label_rewards(group, scheme)[0] for group in episodes_of(steps)]
        assert np.array_equal(np.concatenate(parts), label_rewards(steps, scheme)[0])


def test_merge_interventions_flicker_within_the_dwell_is_one() -> None:
    """PITFALLS: every flicker became a new label."""
    steps = steps_of("ppopooppo")
    assert sum(s.onset for s in steps) == 3
    merged = merge_interventions(steps, 1)
    assert [s.step_index for s in merged if s.onset] == [2, 8]
    assert np.flatnonzero(label_rewards(merged)[0]).tolist() == [1, 7]
    assert [s.onset for s in merge_interventions(steps, 0)] == [s.onset for s in steps]


def test_shared_blame_is_shared_by_the_steps_before_the_onset() -> None:
    rewards, _ = shared_blame(steps_of("ppppoo"), blame_steps=3)
    assert rewards.tolist() == pytest.approx([0, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0])
    rewards, _ = shared_blame(steps_of("po"), blame_steps=3)
    assert rewards.tolist() == [-1, 0, 0], "nothing before the episode takes a share"


def test_relabelling_user_function_labels_and_its_edit_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    (tmp_path / "own_scheme.py").write_text(
        "import numpy as np\n"
        "def constant(steps, value):\n"
        "    return np.full(len(steps), value), np.zeros(len(steps), bool)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    bag = write_bag(tmp_path / "bag", make_episodes(2))
    scheme = ("--scheme", "own_scheme:constant", "--set", "value=-0.5")
    args = (bag, "-o", tmp_path / "out", *scheme)
    assert "12 labels changed" in cli.succeeds("relabel", *args)
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    assert set(found["reward"].tolist()) == {-0.5}
    assert "done before" in cli.succeeds("relabel", *args)
    with (tmp_path / "own_scheme.py").open("a") as file:
        file.write("# edited: it may make other labels\n")
    assert "holds labels of other settings" in cli.fails("relabel", *args)
    sys.modules.pop("own_scheme", None)


def test_relabel_bag_second_run_resumes(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(2))
    first = relabel_bag(bag, tmp_path / "out", Relabelling())
    stamp = (labels_path(bag, tmp_path / "out")).stat().st_mtime_ns
    second = relabel_bag(bag, tmp_path / "out", Relabelling())
    assert second.resumed and second.transitions == first.transitions == 10
    assert (labels_path(bag, tmp_path / "out")).stat().st_mtime_ns == stamp
    with pytest.raises(BagError, match="other settings"):
        relabel_bag(bag, tmp_path / "out", Relabelling("every_step"))


def test_read_labels_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"x\.labels\.npz: there are no such labels"):
        read_labels(tmp_path / "x.labels.npz")


def test_read_labels_cut_file_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(3))
    path = Path(relabel_bag(bag, tmp_path / "out", Relabelling()).output)
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 3 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 3)
    for content in (whole[: len(whole) // 2], bytes(broken), b""):
        path.write_bytes(content)
        with pytest.raises(BagError, match="not a file of labels"):
            read_labels(path)
