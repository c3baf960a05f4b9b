"""New labels from recorded facts: what changes, what must not, what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_bags.commands import relabel as relabel_command
from rlif_bags.reading.files import BagError, bag_name
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

run = partial(helpers.run, relabel_command)


def steps_of(drivers: str) -> list[StepRecord]:
    """An episode as letters: p and o drive; it ends in a time limit."""
    steps: list[StepRecord] = []
    for index, letter in enumerate(drivers + "."):
        operator = letter == "o"
        onset = operator and (index == 0 or drivers[index - 1] != "o")
        last = index == len(drivers)
        source = Source.NONE if last else Source.OPERATOR if operator else Source.POLICY
        outcome = Outcome.TRUNCATED if last else Outcome.RUNNING
        steps.append(
            helpers.make_step(
                index, index, len(drivers), source=source, onset=onset, outcome=outcome
            )
        )
    return steps


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_are_those_of_the_one_function(tmp_path: Path, scheme: str) -> None:
    steps = helpers.make_episodes(3)
    bag = helpers.write_bag(tmp_path / "bag", steps)
    relabel_bag(bag, tmp_path / "out", Relabelling(scheme))
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    rewards, terminals = label_rewards(steps, scheme)
    assert np.array_equal(found["reward"], rewards)
    assert np.array_equal(found["terminal"], terminals)
    assert found["sequence"].tolist() == list(range(18))
    assert found["transition"].tolist() == [not s.is_last for s in steps]


def test_a_discarded_episode_has_no_transition_under_any_scheme(tmp_path: Path) -> None:
    steps = helpers.make_episodes(2)
    steps[-1] = replace(steps[-1], outcome=Outcome.DISCARDED)
    bag = helpers.write_bag(tmp_path / "bag", steps)
    relabel_bag(bag, tmp_path / "out", Relabelling("every_step"))
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    assert found["transition"].tolist() == [True] * 5 + [False] * 7
    assert not found["reward"][6:].any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("po", min_size=1, max_size=8), min_size=1, max_size=5))
def test_episode_by_episode_is_the_same_as_all_at_once(episodes: list[str]) -> None:
    steps: list[StepRecord] = []
    for number, drivers in enumerate(episodes, start=1):
        for step in steps_of(drivers):
            steps.append(StepRecord(**{**vars(step), "sequence": len(steps), "episode_id": number}))
    for scheme in SCHEMES:
        parts = [label_rewards(group, scheme)[0] for group in episodes_of(steps)]
        assert np.array_equal(np.concatenate(parts), label_rewards(steps, scheme)[0])


def test_a_flicker_within_the_dwell_is_one_intervention() -> None:
    """PITFALLS: every flicker became a new label."""
    steps = steps_of("ppopooppo")
    assert sum(s.onset for s in steps) == 3
    merged = merge_interventions(steps, 1)
    assert [s.step_index for s in merged if s.onset] == [2, 8]
    assert np.flatnonzero(label_rewards(merged)[0]).tolist() == [1, 7]
    assert [s.onset for s in merge_interventions(steps, 0)] == [s.onset for s in steps]


def test_blame_is_shared_by_the_steps_before_the_onset() -> None:
    rewards, _ = shared_blame(steps_of("ppppoo"), blame_steps=3)
    assert rewards.tolist() == pytest.approx([0, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0])
    rewards, _ = shared_blame(steps_of("po"), blame_steps=3)
    assert rewards.tolist() == [-1, 0, 0], "nothing before the episode takes a share"


def test_a_function_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_scheme.py").write_text(
        "import numpy as np\n"
        "def constant(steps, value):\n"
        "    return np.full(len(steps), value), np.zeros(len(steps), bool)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))
    words = (bag, "-o", tmp_path / "out", "--scheme", "own_scheme:constant", "--set", "value=-0.5")
    assert run(*words) == 0
    found = read_labels(labels_path(bag, tmp_path / "out")).columns
    assert set(found["reward"].tolist()) == {-0.5}
    assert "12 labels changed" in capsys.readouterr().out
    assert run(*words) == 0 and "done before" in capsys.readouterr().out
    with (tmp_path / "own_scheme.py").open("a") as file:
        file.write("# edited: it may make other labels\n")
    assert run(*words) == 1
    assert "holds labels of other settings" in capsys.readouterr().err
    sys.modules.pop("own_scheme", None)


def test_the_source_is_never_modified(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))
    before = {f.name: f.read_bytes() for f in bag.iterdir()}
    relabel_bag(bag, tmp_path / "out", Relabelling("every_step"))
    assert {f.name: f.read_bytes() for f in bag.iterdir()} == before


def test_a_second_run_resumes(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))
    first = relabel_bag(bag, tmp_path / "out", Relabelling())
    stamp = (labels_path(bag, tmp_path / "out")).stat().st_mtime_ns
    second = relabel_bag(bag, tmp_path / "out", Relabelling())
    assert second.resumed and second.transitions == first.transitions == 10
    assert (labels_path(bag, tmp_path / "out")).stat().st_mtime_ns == stamp
    with pytest.raises(BagError, match="other settings"):
        relabel_bag(bag, tmp_path / "out", Relabelling("every_step"))


def test_several_bags_in_parallel_give_the_same(tmp_path: Path) -> None:
    bags = [helpers.write_bag(tmp_path / f"bag{n}", helpers.make_episodes(n)) for n in range(1, 4)]
    assert run(*bags, "-o", tmp_path / "one") == 0
    assert run(*bags, "-o", tmp_path / "two", "--jobs", 3) == 0
    for bag in bags:
        one, two = (read_labels(tmp_path / d / f"{bag.name}.labels.npz") for d in ("one", "two"))
        assert all(np.array_equal(one.columns[k], two.columns[k]) for k in one.columns)
    reports = json.loads((tmp_path / "two/report.json").read_text())
    assert [r["episodes"] for r in reports] == [1, 2, 3]


def test_a_bad_bag_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = helpers.write_bag(tmp_path / "good", helpers.make_episodes(1))
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    assert run(tmp_path / "bad.mcap", good, "-o", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "bad.mcap" in captured.err and "1 of 2 bags labelled" in captured.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheme", "unheard"], "expected one of"),
        (["--scheme", "no_such_module:f"], "no_such_module"),
        (["--scheme", "onset", "--set", "x=1"], "takes no parameters"),
        (["--set", "x"], "NAME=VALUE"),
        (["--dwell", "-1"], "dwell"),
    ],
)
def test_what_is_asked_wrongly_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert run(bag, "-o", tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_describe_only_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert run(bag, "--describe") == 0
    assert "/replay" in capsys.readouterr().out


def test_the_bags_of_many_runs_are_called_after_these(tmp_path: Path) -> None:
    bags = [
        helpers.write_bag(tmp_path / f"runs/{run}/bag", helpers.make_episodes(number))
        for number, run in enumerate(("monday", "tuesday"), start=1)
    ]
    assert run(*bags, "-o", tmp_path / "out") == 0
    found = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert found == ["monday.labels.npz", "report.json", "tuesday.labels.npz"]
    assert len(read_labels(labels_path(bags[1], tmp_path / "out")).columns["reward"]) == 12


def test_a_bag_has_a_name_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.write_bag(tmp_path / "run/bag", helpers.make_episodes(1))
    helpers.write_bag(tmp_path / "peg", helpers.make_episodes(1))
    monkeypatch.chdir(tmp_path / "run/bag")
    assert bag_name(Path()) == bag_name(Path("../bag")) == "run"
    monkeypatch.chdir(tmp_path / "peg")
    assert bag_name(Path()) == "peg" and bag_name(Path("peg_0.mcap")) == "peg_0"
    assert bag_name(Path("/bag")) == "bag"


def test_the_report_keeps_what_earlier_calls_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call that is refused leaves the labels, and took their report away."""
    one, two = (
        helpers.write_bag(tmp_path / name, helpers.make_episodes(1)) for name in ("one", "two")
    )

    def report() -> dict[str, dict[str, Any]]:
        entries = json.loads((tmp_path / "out/report.json").read_text())
        return {Path(entry["bag"]).name: entry for entry in entries}

    assert run(one, "-o", tmp_path / "out") == 0 and run(two, "-o", tmp_path / "out") == 0
    before = report()
    assert list(before) == ["one", "two"]
    assert run(two, "-o", tmp_path / "out", "--scheme", "every_step") == 1
    assert "other settings" in capsys.readouterr().err
    after = report()
    assert after["one"] == before["one"]
    assert "other settings" in after["two"].pop("error") and after["two"] == before["two"]
    assert run(two, "-o", tmp_path / "out") == 0 and "error" not in report()["two"]


def test_labels_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"x\.labels\.npz: there are no such labels"):
        read_labels(tmp_path / "x.labels.npz")


def test_a_cut_file_of_labels_is_no_file_of_labels(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(3))
    path = Path(relabel_bag(bag, tmp_path / "out", Relabelling()).output)
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 3 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 3)
    for content in (whole[: len(whole) // 2], bytes(broken), b""):
        path.write_bytes(content)
        with pytest.raises(BagError, match="not a file of labels"):
            read_labels(path)


def test_a_link_goes_by_its_own_name(tmp_path: Path) -> None:
    """Data stores keep files under a hash, and links to them under names."""
    store = tmp_path / "objects"
    store.mkdir()
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    file = next(bag.glob("*.mcap")).rename(store / "SHA-123.mcap")
    (tmp_path / "monday.mcap").symlink_to(file)
    assert bag_name(tmp_path / "monday.mcap") == "monday"
    (tmp_path / "tuesday").symlink_to(store)
    assert bag_name(tmp_path / "tuesday") == "tuesday"
    assert bag_name(tmp_path / "objects/..") == tmp_path.name
