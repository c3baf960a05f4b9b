"""Pictures of episodes: what they say is what is in the Steps."""

from __future__ import annotations

import builtins
import html.parser
import importlib.util
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest
from PIL import Image

from rlif_bags.commands import show as show_command
from rlif_bags.drawing.show import COLOURS, NEGATIVE, html_page, view_of, views
from rlif_bags.reading.info import StepSummary
from rlif_learner.data.steps import Outcome, Source

run = partial(helpers.run, show_command)


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


def test_a_tick_that_gave_no_step_is_missing_too() -> None:
    """The recorder could not make it: its number in the episode is left out, none in sequence."""
    steps = [
        replace(s, step_index=s.step_index + (s.step_index > 2)) for s in helpers.make_episodes(1)
    ]
    assert view_of(steps).missing == 1
    summary = StepSummary()
    for step in [*steps, *helpers.make_episodes(2)[len(steps) :]]:
        summary.add(step)
    assert summary.missing == 1


def test_many_episodes_become_several_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: hundreds took minutes, and were too high for a picture."""
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(51, length=2))
    assert run(bag, "-o", tmp_path / "out", "--last", 51) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["peg-1.png", "peg-2.png"]
    said = capsys.readouterr().out
    assert "51 episodes" in said and "peg-1.png" in said and "peg-2.png" in said


def test_a_run_stands_for_its_bag_and_nothing_is_written_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = helpers.write_bag(tmp_path / "monday/bag", helpers.make_episodes(1))
    assert run(tmp_path / "monday", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out/monday.png").exists()
    capsys.readouterr()
    before = sorted(bag.iterdir())
    monkeypatch.chdir(bag)
    assert run(".") == 1
    assert "nothing is written into" in capsys.readouterr().err and sorted(bag.iterdir()) == before
    helpers.write_bag(tmp_path / "monday/other", helpers.make_episodes(1))
    assert run(tmp_path / "monday", "-o", tmp_path / "out") == 1
    assert "found 2 bags, bag, other; name one" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(bag, "-o", tmp_path / "file") == 1, "and no traceback"


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
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(4, images=True))
    assert run(bag, "-o", tmp_path / "out", "--episodes", "2-3") == 0
    assert "2 episodes" in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "out/peg.png").convert("RGB")).reshape(-1, 3)
    for source in (Source.POLICY, Source.OPERATOR):
        wanted = [int(COLOURS[source][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 100, source
    assert Page((tmp_path / "out/peg.html").read_text()).all("svg")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--episodes", "99"], "no such episode"), (["--last", "0"], "at least 1")],
)
def test_nothing_to_draw_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(1))
    assert run(bag, "-o", tmp_path, *words) == 1
    assert message in capsys.readouterr().err


def test_labels_of_a_function_with_its_parameters(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(1))
    scheme = ("--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2")
    assert run(bag, "-o", tmp_path, *scheme) == 0
    assert len(Page((tmp_path / "peg.html").read_text()).all("path")) == 2


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
PAINT = (30, 180, 60)  # of the cameras' frames


def near(pixels: np.ndarray, colour: tuple[int, ...] | str) -> np.ndarray:
    """Where a picture has this colour, give or take what JPEG does to it."""
    if isinstance(colour, str):
        colour = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return (np.abs(pixels.astype(int) - colour) < 12).all(axis=2)


@pytest.mark.skipif(BROWSER is None, reason=f"found no browser; looked for {', '.join(BROWSERS)}")
def test_a_real_browser_shows_what_is_in_the_page(tmp_path: Path) -> None:
    """Frames are decoded, the timeline has its proportions, the label stands where it belongs."""
    image = np.full((48, 64, 3), PAINT, np.uint8)
    steps = [replace(s, images=(image,)) for s in helpers.make_episodes(1)]
    bag = helpers.write_bag(tmp_path / "peg", steps)
    assert BROWSER is not None and run(bag, "-o", tmp_path) == 0
    screenshot = tmp_path / "page.png"
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,500",
         "--enable-logging=stderr", f"--screenshot={screenshot}",
         (tmp_path / "peg.html").resolve().as_uri()],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert result.returncode == 0 and screenshot.exists(), result.stderr[-2000:]
    assert "CONSOLE" not in result.stderr, "the page has nothing to complain about"
    pixels = np.asarray(Image.open(screenshot).convert("RGB"))
    assert near(pixels, PAINT).sum() > 20_000, "the frames"
    rows = near(pixels, COLOURS[Source.OPERATOR]).sum(axis=1)
    bar = int(np.argmax(rows))  # a row through the timeline; the legend's square is smaller
    policy, operator = (near(pixels, COLOURS[s])[bar] for s in (Source.POLICY, Source.OPERATOR))
    assert policy.sum() / operator.sum() == pytest.approx(3 / 2, rel=0.05)
    assert np.flatnonzero(policy).max() < np.flatnonzero(operator).min()
    label = near(pixels, NEGATIVE)[bar - 20 : bar]
    columns = np.flatnonzero(label.any(axis=0))
    left = np.flatnonzero(policy).min()
    step = policy.sum() / 3
    assert left + 2 * step - 2 <= columns.min() and columns.max() <= left + 3 * step + 2


def test_without_rerun_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name == "rerun":
            raise ImportError("No module named 'rerun'")
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(1))
    assert run(bag, "-o", tmp_path / "out", "--rerun") == 1
    assert "pip install 'rerun-sdk" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None,
    reason="Rerun is not installed (pip install rerun-sdk)",
)
def test_a_file_for_rerun_holds_all_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = helpers.write_bag(tmp_path / "peg", helpers.make_episodes(3, images=True))
    file = tmp_path / "out.rrd"
    words = (bag, "-o", tmp_path / "out", "--episodes", "2-3", "--rerun", file)
    assert run(*words) == 0 and str(file) in capsys.readouterr().out
    from rerun.chunk import RrdReader

    rows: Counter[str] = Counter()
    for chunk in RrdReader(file).stream():
        rows[str(chunk.entity_path)] += chunk.num_rows
    expected = {"camera_0": 12, "camera_1": 12, "state": 12, "action": 10, "reward": 10,
                "driver": 10, "events": 4}  # fmt: skip
    assert {k.strip("/"): n for k, n in rows.items() if k.strip("/") in expected} == expected
    assert run(*words) == 1, "never written over"
