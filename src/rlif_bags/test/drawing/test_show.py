# SPDX-License-Identifier: Apache-2.0
"""Pictures of episodes and the HTML page."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_pages import Page
from PIL import Image
from step_bags import make_episodes, rlif, write_bag
from waiting import scaled

from rlif_bags.drawing.colours import NEGATIVE, SOURCE_COLOURS
from rlif_bags.drawing.show import html_page, view_of
from rlif_learner.data.steps import Outcome, Source


def test_view_of_tells_source_and_labels() -> None:
    view = view_of(make_episodes(1, images=True), frames=3)
    assert [s.name[0] for s in view.sources] == list("PPPOO")
    assert view.negative == (2,) and view.interventions == 1 and view.missing == 0
    assert view.outcome == Outcome.SUCCESS and len(view.frames) == 3
    assert "episode 1, success, 5 steps, 1 interventions, 40 % operator" in view.caption


def test_view_of_frames_are_spread_over_the_episode() -> None:
    steps = make_episodes(1, images=True)
    view = view_of(steps, frames=2, camera=1)
    assert [int(f[0, 0, 0]) for f in view.frames] == [1, 6], "the first and the last one"
    assert len(view_of(steps, frames=100).frames) == len(steps)
    with pytest.raises(ValueError, match="camera"):
        view_of(steps, camera=2)


def test_view_of_steps_without_images_has_no_frames() -> None:
    assert view_of(make_episodes(1)).frames == ()


def test_view_of_missing_steps_are_in_the_caption() -> None:
    steps = make_episodes(1)
    assert "1 steps missing" in view_of([*steps[:2], *steps[3:]]).caption


def test_html_page_holds_all_it_shows() -> None:
    view = view_of(make_episodes(1, images=True), frames=4)
    text = html_page([view, view], "<bag> & more")
    page = Page(text)
    sources = [image["src"] or "" for image in page.all("img")]
    assert len(sources) == 8 and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    rectangles = page.all("rect")[:2]
    assert [(r["x"], r["width"], r["fill"]) for r in rectangles] == [
        ("0", "3", SOURCE_COLOURS[Source.POLICY]), ("3", "2", SOURCE_COLOURS[Source.OPERATOR]),
    ]  # fmt: skip
    assert len(page.all("path")) == 2 and not page.all("script") and not page.all("link")
    assert "http" not in text and "&lt;bag&gt; &amp; more" in text


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
PAINT = (30, 180, 60)  # of the cameras' frames


def near(pixels: np.ndarray, colour: tuple[int, ...] | str) -> np.ndarray:
    """Where a picture has this colour, give or take what JPEG does to it."""
    if isinstance(colour, str):
        colour = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return (np.abs(pixels.astype(int) - colour) < 12).all(axis=2)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f"found no browser; looked for {', '.join(BROWSERS)}")
def test_html_page_is_shown_by_a_browser(tmp_path: Path) -> None:
    """Frames are decoded, the timeline has its proportions, the label stands where it belongs."""
    image = np.full((48, 64, 3), PAINT, np.uint8)
    steps = [replace(s, images=(image,)) for s in make_episodes(1)]
    bag = write_bag(tmp_path / "peg", steps)
    assert BROWSER is not None and rlif("show", bag, "-o", tmp_path) == 0
    screenshot = tmp_path / "page.png"
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,500",
         "--enable-logging=stderr", f"--screenshot={screenshot}",
         (tmp_path / "peg.html").resolve().as_uri()],
        capture_output=True, text=True, timeout=scaled(100),
    )  # fmt: skip
    assert result.returncode == 0 and screenshot.exists(), result.stderr[-2000:]
    assert "CONSOLE" not in result.stderr, "the page has nothing to complain about"
    pixels = np.asarray(Image.open(screenshot).convert("RGB"))
    assert near(pixels, PAINT).sum() > 20_000, "the frames"
    rows = near(pixels, SOURCE_COLOURS[Source.OPERATOR]).sum(axis=1)
    bar = int(np.argmax(rows))  # a row through the timeline; the legend's square is smaller
    policy, operator = (
        near(pixels, SOURCE_COLOURS[s])[bar] for s in (Source.POLICY, Source.OPERATOR)
    )
    assert policy.sum() / operator.sum() == pytest.approx(3 / 2, rel=0.05)
    assert np.flatnonzero(policy).max() < np.flatnonzero(operator).min()
    label = near(pixels, NEGATIVE)[bar - 20 : bar]
    columns = np.flatnonzero(label.any(axis=0))
    left = np.flatnonzero(policy).min()
    step = policy.sum() / 3
    assert left + 2 * step - 2 <= columns.min() and columns.max() <= left + 3 * step + 2
