# SPDX-License-Identifier: Apache-2.0
"""`rlif show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from html_pages import Page
from PIL import Image
from step_bags import Cli, make_episodes, rlif, write_bag

from rlif_bags.drawing.colours import SOURCE_COLOURS
from rlif_learner.data.steps import Source


def test_show_many_episodes_become_several_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """Regression: hundreds took minutes, and were too high for a picture."""
    monkeypatch.setattr("rlif_bags.drawing.show._PAGE", 3)
    bag = write_bag(tmp_path / "peg", make_episodes(4, length=2))
    printed = cli.succeeds("show", bag, "-o", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["peg-1.png", "peg-2.png"]
    assert "4 episodes" in printed and "peg-1.png" in printed and "peg-2.png" in printed


def test_show_run_directory_stands_for_its_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    bag = write_bag(tmp_path / "monday/bag", make_episodes(1))
    assert rlif("show", tmp_path / "monday", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out/monday.png").exists()
    before = sorted(bag.iterdir())
    monkeypatch.chdir(bag)
    assert "nothing is written into" in cli.fails("show", ".") and sorted(bag.iterdir()) == before
    write_bag(tmp_path / "monday/other", make_episodes(1))
    assert "typo: found no bag" in cli.fails(
        "show", tmp_path / "monday", tmp_path / "typo", "-o", tmp_path / "out"
    )
    assert (tmp_path / "out/other.html").exists(), "several bags, several pictures"
    write_bag(tmp_path / "other/bag", make_episodes(1))
    assert "would both become other" in cli.fails(
        "show", tmp_path / "monday", tmp_path / "other", "-o", tmp_path / "out"
    )
    (tmp_path / "file").write_text("")
    assert rlif("show", bag, "-o", tmp_path / "file") == 1, "and no traceback"


def test_show_writes_picture_and_page(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(4, images=True))
    assert "2 episodes" in cli.succeeds("show", bag, "-o", tmp_path / "out", "--episodes", "2-3")
    pixels = np.asarray(Image.open(tmp_path / "out/peg.png").convert("RGB")).reshape(-1, 3)
    for source in (Source.POLICY, Source.OPERATOR):
        wanted = [int(SOURCE_COLOURS[source][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 100, source
    assert Page((tmp_path / "out/peg.html").read_text()).all("svg")


def test_show_labels_of_a_function_with_parameters(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(1))
    scheme = ("--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2")
    assert rlif("show", bag, "-o", tmp_path, *scheme) == 0
    assert len(Page((tmp_path / "peg.html").read_text()).all("path")) == 2


def test_show_more_episodes_than_are_drawn_are_counted(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(3, length=2))
    assert "the last 2 of 3 episodes (--last): " in cli.succeeds(
        "show", bag, "-o", tmp_path, "--last", 2
    )
