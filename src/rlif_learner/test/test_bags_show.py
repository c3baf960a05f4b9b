"""Pictures of episodes: what they say is what is in the Steps."""

from __future__ import annotations

import argparse
import html.parser
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlif_learner.bags_show import COLOURS, html_page, view_of, views
from rlif_learner.commands import show as show_command
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


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    show_command.add_arguments(parser)
    return show_command.run(parser.parse_args([str(w) for w in words]))


class Page(html.parser.HTMLParser):
    """Tags of a page, with their attributes; fails where they do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_view_tells_who_drove_and_what_was_labelled() -> None:
    view = view_of(helpers.make_episodes(1, images=True), frames=3)
    assert [s.name[0] for s in view.sources] == list("PPPOO")
    assert view.negative == (2,) and view.interventions == 1 and view.missing == 0
    assert view.outcome == Outcome.SUCCESS and len(view.frames) == 3
    assert "episode 1, success, 5 steps, 1 interventions, 40 % operator" in view.caption


def test_frames_are_spread_over_the_episode() -> None:
    steps = helpers.make_episodes(1, images=True)
    view = view_of(steps, frames=2, camera=1)
    assert [int(f[0, 0, 0]) for f in view.frames] == [1, 6], "the first and the last one"
    assert len(view_of(steps, frames=100).frames) == len(steps)
    with pytest.raises(ValueError, match="camera"):
        view_of(steps, camera=2)


def test_steps_without_images_have_a_timeline_all_the_same() -> None:
    assert view_of(helpers.make_episodes(1)).frames == ()


def test_missing_steps_are_said() -> None:
    steps = helpers.make_episodes(1)
    assert "1 steps missing" in view_of([*steps[:2], *steps[3:]]).caption


def test_only_what_is_wanted() -> None:
    steps = helpers.make_episodes(5)
    assert [v.id for v in views(steps, range(2, 4))] == [2, 3]


def test_the_page_holds_all_it_shows() -> None:
    view = view_of(helpers.make_episodes(1, images=True), frames=4)
    text = html_page([view, view], "<bag> & more")
    page = Page(text)
    sources = [image["src"] or "" for image in page.all("img")]
    assert len(sources) == 8 and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    rectangles = page.all("rect")[:2]
    assert [(r["x"], r["width"], r["fill"]) for r in rectangles] == [
        ("0", "3", COLOURS[Source.POLICY]), ("3", "2", COLOURS[Source.OPERATOR]),
    ]  # fmt: skip
    assert len(page.all("path")) == 2 and not page.all("script") and not page.all("link")
    assert "http" not in text and "&lt;bag&gt; &amp; more" in text


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(4, images=True))
    assert run(bag, "-o", tmp_path / "out", "--episodes", "2-3") == 0
    assert "2 episodes" in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "out/bag.png").convert("RGB")).reshape(-1, 3)
    for source in (Source.POLICY, Source.OPERATOR):
        wanted = [int(COLOURS[source][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 100, source
    assert Page((tmp_path / "out/bag.html").read_text()).all("svg")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--episodes", "99"], "no such episode"), (["--last", "0"], "at least 1")],
)
def test_nothing_to_draw_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(1))
    assert run(bag, "-o", tmp_path, *words) == 1
    assert message in capsys.readouterr().err
