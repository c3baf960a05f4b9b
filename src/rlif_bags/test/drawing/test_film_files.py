# SPDX-License-Identifier: Apache-2.0
"""Films as GIF and MP4 files."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from film_takes import pixels, rising, take
from PIL import Image

from rlif_bags.drawing import film_files
from rlif_bags.drawing.film import (
    Film,
    Take,
)
from rlif_bags.drawing.film_files import write_film
from rlif_bags.reading.files import BagError


@pytest.mark.slow
def test_write_film_gif_has_all_frames_at_their_time(tmp_path: Path) -> None:
    still = [replace(s, images=take().steps[0].images) for s in take(length=60).steps]
    film = Film([take(1), Take(still, ("a", "b"), rising(still), 10.0)], 30.0)
    write_film(film, tmp_path / "film.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]
    with Image.open(tmp_path / "film.gif") as gif:
        expected = list(film.frames())
        assert gif.n_frames == len(expected) and gif.info["loop"] == 0
        times = []
        for i, frame in enumerate(expected):
            gif.seek(i)
            times.append(gif.info["duration"] / 1000)
            off = np.abs(pixels(gif) - pixels(frame))
            top = film.layout.band.bottom
            assert (pixels(gif)[0, 0] == pixels(frame)[0, 0]).all(), "the band, exactly"
            assert np.median(off[:top]) == 0 and off.mean() < 6.0
            assert (off[film.layout.bar.y :] == 0).all(), "the bar, exactly"
    assert np.cumsum(times) == pytest.approx(film.ends(), abs=0.006)
    # What does not change costs nothing: 30 frames of noise that stands still.
    assert (tmp_path / "film.gif").stat().st_size < 400_000


@pytest.mark.slow
def test_write_film_large_gif_is_made_coarser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Film([take()])
    write_film(film, tmp_path / "fine.gif")
    monkeypatch.setattr(film_files, "MAX_GIF", 1)
    write_film(film, tmp_path / "coarse.gif")
    assert (tmp_path / "coarse.gif").stat().st_size < (tmp_path / "fine.gif").stat().st_size
    with Image.open(tmp_path / "coarse.gif") as gif:
        assert gif.n_frames == 7


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV is not installed")
def test_write_film_mp4_has_the_same_frames(tmp_path: Path) -> None:
    import av

    film = Film([take(1), take(2)])
    write_film(film, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == round(film.ends()[-1] * 10) == 2 * (6 + 15)
    expected = list(film.frames())
    for at, index in ((0, 0), (3, 3), (6, 6), (20, 6), (21, 7)):
        off = np.abs(frames[at].astype(int) - pixels(expected[index]))
        assert off[: film.layout.band.bottom].mean() < 4.0, at


def test_write_film_existing_file_or_unknown_ending_is_refused(tmp_path: Path) -> None:
    film = Film([take()])
    (tmp_path / "film.gif").write_text("mine")
    with pytest.raises(BagError, match="exists already"):
        write_film(film, tmp_path / "film.gif")
    with pytest.raises(ValueError, match=r"found '.avi', expected .gif or .mp4"):
        write_film(film, tmp_path / "film.avi")
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]
    assert (tmp_path / "film.gif").read_text() == "mine"
