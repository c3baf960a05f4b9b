# SPDX-License-Identifier: Apache-2.0
"""`rlif relabel`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from external_sessions import write_sessions
from step_bags import Cli, make_episodes, rlif, write_bag

from rlif_bags.relabelling.relabel import labels_path, read_labels


def test_relabel_output_in_a_bag_or_file_is_refused(tmp_path: Path, cli: Cli) -> None:
    """Regression: labels in the bag changed it, and the next relabelling found another source."""
    bag = write_bag(tmp_path / "one", make_episodes(1))
    for output in (bag, bag / "labels"):
        assert "nothing is written into" in cli.fails("relabel", bag, "-o", output)
    assert sorted(f.suffix for f in bag.iterdir()) == [".mcap", ".yaml"]
    (tmp_path / "file").write_text("")
    assert "expected a directory" in cli.fails("relabel", bag, "-o", tmp_path / "file")
    assert rlif("relabel", bag, "-o", tmp_path / "out") == 0
    (bag / "notes.txt").write_text("what I saw")
    again = cli.succeeds("relabel", bag, "-o", tmp_path / "out")
    assert "(done before)" in again, "a file of the user's is no other source"


def test_relabel_report_that_cannot_be_written_is_an_error(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(1))
    (tmp_path / "out/report.json").mkdir(parents=True)
    assert "report.json" in cli.fails("relabel", bag, "-o", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "rlif relabel: " in cli.fails("relabel", bag, "-o", tmp_path / "file/labels")


def test_relabel_describe_bad_bag_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bag,) = write_sessions(tmp_path / "good", 1)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    assert rlif("relabel", "--describe", tmp_path / "bad.mcap", bag) == 1
    printed = capsys.readouterr()
    assert "control_rate" in printed.out and "bad.mcap" in printed.err


def test_relabel_describe_only_reads(cli: Cli, bag: Path) -> None:
    assert "/replay" in cli.succeeds("relabel", bag, "--describe")


def test_relabel_bags_of_many_runs_are_named_after_them(tmp_path: Path) -> None:
    bags = [
        write_bag(tmp_path / f"runs/{run}/bag", make_episodes(number))
        for number, run in enumerate(("monday", "tuesday"), start=1)
    ]
    assert rlif("relabel", *bags, "-o", tmp_path / "out") == 0
    found = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert found == ["monday.labels.npz", "report.json", "tuesday.labels.npz"]
    assert len(read_labels(labels_path(bags[1], tmp_path / "out")).columns["reward"]) == 12


def test_relabel_report_keeps_entries_of_earlier_calls(tmp_path: Path, cli: Cli) -> None:
    """A call that is refused leaves the labels, and took their report away."""
    one, two = (write_bag(tmp_path / name, make_episodes(1)) for name in ("one", "two"))

    def report() -> dict[str, dict[str, Any]]:
        entries = json.loads((tmp_path / "out/report.json").read_text())
        return {Path(entry["bag"]).name: entry for entry in entries}

    out = ("-o", tmp_path / "out")
    for bag in (one, two):
        assert rlif("relabel", bag, *out) == 0
    before = report()
    assert list(before) == ["one", "two"]
    assert "other settings" in cli.fails("relabel", two, *out, "--scheme", "every_step")
    after = report()
    assert after["one"] == before["one"]
    assert "other settings" in after["two"].pop("last_call_refused")
    assert after["two"] == before["two"]
    assert rlif("relabel", two, *out) == 0 and report()["two"].keys() == before["two"].keys()


def test_relabel_bad_bag_or_name_or_bag_named_twice_does_not_end_the_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(1))
    args = (tmp_path / "typo", bag, tmp_path / "other/../peg", tmp_path / "bad.mcap")
    args = (*args, tmp_path, "-o", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    assert rlif("relabel", *args) == 1
    captured = capsys.readouterr()
    assert f"{tmp_path / 'typo'}: found no bag" in captured.err
    assert "bad.mcap" in captured.err and "1 of 2 bags labelled" in captured.out
    assert rlif("relabel", tmp_path / "typo", "-o", tmp_path / "none") == 1
    assert not (tmp_path / "none").exists()
