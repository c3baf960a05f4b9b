# SPDX-License-Identifier: Apache-2.0
"""Frames of films show what is in the Steps, when it was."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from film_takes import LENGTH, bag_of, pixels, rgb, rising, seen_steps, take, where
from step_bags import assert_equal_steps, make_episodes, write_bag

from rlif_bags.drawing.colours import GREY, OPERATOR, OUTCOMES, POLICY
from rlif_bags.drawing.film import (
    BAR,
    HOLD,
    Film,
    Take,
    find_takes,
    make_layout,
)
from rlif_bags.reading.files import BagError
from rlif_learner.data.steps import Outcome, Source, StepRecord

pytestmark = pytest.mark.slow  # together: each draws pictures


def test_film_has_a_frame_for_each_step() -> None:
    film = Film([take(1), take(2, length=4)], 10.0)
    frames = list(film.frames())
    assert len(frames) == 7 + 5 == len(film.shown()) == len(film.ends())
    assert {f.size for f in frames} == {(film.layout.width, film.layout.height)}
    assert film.layout.width % 2 == film.layout.height % 2 == 0
    assert [(t.id, i) for t, i in film.shown()][6:8] == [(1, 6), (2, 0)]


def test_film_camera_pixels_are_enlarged_and_nothing_else() -> None:
    film = Film([take()])
    for frame, step in zip(film.frames(), film.takes[0].steps, strict=True):
        for box, image in zip(film.layout.cameras, step.images, strict=True):
            seen = pixels(frame.crop((box.x, box.y, box.right, box.bottom)))
            factor = box.height // image.shape[0]
            assert factor >= 16 and box.width == factor * image.shape[1]
            assert (seen == np.kron(image, np.ones((factor, factor, 1), int))).all()


@pytest.mark.parametrize("shape", [(480, 640, 3), (128, 128, 1), (64, 64, 3), (5, 7, 3)])
@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_make_layout_any_cameras_do_not_overlap(shape: Any, cameras: int) -> None:
    steps = seen_steps(shapes=(shape,) * cameras)
    names = ("a", "b", "c")[:cameras]
    film = Film([Take(steps, names, rising(steps))], 10.0)
    (first, *_), layout = film.frames(), film.layout
    assert layout.panel is not None and first.size == (layout.width, layout.height)
    boxes = [*layout.cameras, layout.panel]
    assert all(one.right < other.x for one, other in pairwise(boxes)), "none covers another"
    assert boxes[0].x >= 0 and boxes[-1].right <= layout.width <= 1100
    assert max(box.bottom for box in boxes) < layout.bar.y <= layout.height - BAR


def test_film_grey_camera_is_grey() -> None:
    steps = seen_steps(shapes=((16, 16, 1),))
    film = Film([Take(steps, ("one",))], 10.0)
    box = film.layout.cameras[0]
    seen = pixels(next(film.frames()))[box.y : box.bottom : 16, box.x : box.right : 16]
    assert (seen == steps[0].images[0]).all(), "three equal channels"


def test_film_band_and_bar_show_source_and_outcome() -> None:
    film = Film([take()])
    frames, band, bar = list(film.frames()), film.layout.band, film.layout.bar
    expected = [POLICY] * 3 + [OPERATOR] * 3 + [OUTCOMES[Outcome.SUCCESS][1]]
    for frame, colour in zip(frames, expected, strict=True):
        for corner in ((0, 0), (0, band.bottom - 1), (band.right - 1, band.bottom - 1)):
            assert list(frame.getpixel(corner)) == rgb(colour)
    assert len({where(frames[i], "#ffffff")[: band.bottom].sum() for i in (0, 3, 6)}) == 3, (
        "their texts"
    )
    for i, frame in enumerate(frames):
        row = frame.crop((bar.x, bar.y + 4, bar.right, bar.y + 5))
        share = [where(row, colour).sum() / bar.width for colour in (POLICY, OPERATOR)]
        driven = min(i + 1, LENGTH)
        assert share == pytest.approx([min(driven, 3) / 6, max(driven - 3, 0) / 6], abs=0.01)


LAST = seen_steps()[-1]
CUT = [replace(s, source=Source.NONE) for s in seen_steps()[:-1]]


@pytest.mark.parametrize(
    ("steps", "colour"),
    [
        *(([*CUT, replace(LAST, outcome=o)], colour) for o, (_, colour) in OUTCOMES.items()),
        (seen_steps()[:-1], OPERATOR),  # the end was not recorded
        (CUT, GREY),
    ],
)
def test_film_last_frame_has_the_band_of_outcome_or_source(
    steps: list[StepRecord], colour: str
) -> None:
    assert set(OUTCOMES) == set(Outcome) - {Outcome.RUNNING}
    *_, last = Film([Take(steps, ("a", "b"))], 10.0).frames()
    assert list(last.getpixel((0, 0))) == rgb(colour)


def place(film: Film, seconds: float, value: float) -> tuple[int, int]:
    """Where in a frame, in pixels, the panel shows this."""
    assert film.panel is not None and film.layout.panel is not None
    box = film.layout.panel
    x, y = film.panel.axes.transData.transform((seconds, value))
    return box.x + int(x), box.bottom - 1 - int(y)


def test_film_curve_grows_to_the_value_of_the_step() -> None:
    film = Film([take()])
    values = film.takes[0].values
    assert values is not None and film.layout.panel is not None
    for i, frame in enumerate(film.frames()):
        known = min(i, LENGTH - 1)  # the last step has no value: the curve stands
        colour = POLICY if known < 3 else OPERATOR
        x, y = place(film, known / 10.0, values[known])
        assert list(frame.getpixel((x, y))) == rgb(colour), i
        box = film.layout.panel
        later = frame.crop((x + 7, box.y, box.right, box.bottom))
        assert not where(later, colour).any(), "nothing is drawn of what is to come"
        for past in range(1, known):
            at = place(film, (past - 0.5) / 10.0, values[past - 1 : past + 1].mean())
            then = POLICY if past < 3 else OPERATOR
            assert list(frame.getpixel(at)) == rgb(then), (i, past)


def test_film_curve_breaks_where_a_step_is_missing() -> None:
    whole = take()
    del whole.steps[2]  # type: ignore[attr-defined]
    film = Film([Take(whole.steps, whole.cameras, np.zeros(LENGTH))], 10.0)
    *_, last = film.frames()
    drawn = [
        list(last.getpixel(place(film, seconds, 0.0))) in (rgb(POLICY), rgb(OPERATOR))
        for seconds in (0.05, 0.15, 0.25, 0.35)
    ]
    assert drawn == [True, False, False, True]


def test_film_all_episodes_share_the_axes() -> None:
    low, high = take(1), replace(take(2, length=20), values=np.full(21, 3.0))
    film = Film([low, high])
    assert film.panel is not None
    (bottom, top), (_, seconds) = film.panel.axes.get_ylim(), film.panel.axes.get_xlim()
    assert bottom < -1.0 and top > 3.0 and seconds == 2.0


@pytest.mark.parametrize("values", [np.full(7, np.nan), np.zeros(7), np.full(7, -5.0)])
def test_film_any_values_can_be_drawn(values: np.ndarray) -> None:
    film = Film([replace(take(), values=values)])
    assert len(list(film.frames())) == 7


def test_film_without_critic_has_no_panel() -> None:
    film = Film([replace(take(), values=None)])
    assert film.layout.panel is None and film.panel is None
    assert film.layout.width < Film([take()]).layout.width
    assert len(list(film.frames())) == 7


def test_film_runs_in_real_time() -> None:
    whole = take()
    del whole.steps[2]  # type: ignore[attr-defined]
    ends = Film([Take(whole.steps, whole.cameras)], 10.0).ends()
    assert ends == pytest.approx([0.1, 0.3, 0.4, 0.5, 0.6, 0.6 + HOLD]), "a hole lasts as it did"


def test_film_of_fast_control_shows_some_steps() -> None:
    film = Film([take(length=31)], 50.0)
    assert film.every == 3 and film.fps == pytest.approx(50 / 3)
    shown = [i for _, i in film.shown()]
    assert shown == [*range(0, 31, 3), 31], "the last one among them"
    assert film.ends()[-1] == pytest.approx(31 / 50 + HOLD)


def test_film_episodes_that_differ_are_refused() -> None:
    other = Take(seen_steps(2, shapes=((8, 8, 3),)), ("a",), np.zeros(7))
    with pytest.raises(ValueError, match=r"episode 2, step 0: found images of \[\(8, 8, 3\)\]"):
        Film([take(), other], 10.0)
    with pytest.raises(ValueError, match="rate: found 0"):
        Film([replace(take(), rate=0.0)])


def test_make_layout_fits_a_page() -> None:
    layout = make_layout([np.zeros((64, 64, 3), np.uint8)] * 2, panel=True)
    assert layout.width <= 838, "a README shows no more pixels than that"
    assert all(box.height == box.width == 256 for box in layout.cameras)


def test_find_takes_leaves_discarded_out_unless_named(tmp_path: Path) -> None:
    bad = seen_steps(2)
    bad[-1] = replace(bad[-1], outcome=Outcome.DISCARDED)
    bag = bag_of(tmp_path, seen_steps(1), bad, *(seen_steps(n) for n in range(3, 7)))
    assert [t.id for t in find_takes(bag)] == [1, 3, 4], "not the one that was discarded"
    found = find_takes(bag, [2, 5], values=rising)
    assert [t.id for t in found] == [2, 5], "unless it is named"
    assert_equal_steps(
        [replace(s, sequence=0) for s in found[1].steps],
        [replace(s, sequence=0) for s in seen_steps(5)],
    )
    np.testing.assert_array_equal(found[0].values, rising(bad))
    assert found[0].rate == 10.0 and found[0].cameras == ("camera_0", "camera_1")
    with pytest.raises(BagError, match=r"no episode 9 to show, only those from 1 to 6"):
        find_takes(bag, [1, 9])


def test_find_takes_without_images_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_episodes(2))
    with pytest.raises(BagError, match=r"bag: the Steps of episode 1 hold no images; record"):
        find_takes(bag)
