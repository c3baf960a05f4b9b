"""Films of episodes: what is seen in a frame is what is in the Steps, when it was, in the file too."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import bag_episodes as helpers
import numpy as np
import pytest
import torch
from checkpoint_runs import CONFIG
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from rlif_bags.commands import film as film_command
from rlif_bags.drawing import film_files
from rlif_bags.drawing.critic_values import NoCriticError, load_critic
from rlif_bags.drawing.film import (
    BAR,
    GREY,
    HOLD,
    OPERATOR,
    OUTCOMES,
    POLICY,
    Film,
    NoImagesError,
    Take,
    find_takes,
    make_layout,
)
from rlif_bags.drawing.film_files import write_film
from rlif_bags.reading.files import BagError
from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig
from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore, MismatchError
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import PolicySpec
from rlif_policy.pretrained import PretrainedError, fingerprint, load_trunk

run = partial(helpers.run, film_command)
LENGTH = 6  # actions of an episode
SHAPES = ((16, 16, 3), (8, 16, 3))
SPEC = PolicySpec(state_dim=3, action_dim=2, hidden=(8, 8))
SEEING = replace(
    SPEC, images=SHAPES, encoder=EncoderSpec(channels=4, features=5, pooling="average")
)


def seen_steps(episode: int = 1, length: int = LENGTH, shapes: Any = SHAPES) -> list[StepRecord]:
    """An episode with two cameras of random pixels; the operator drives from step 3 on."""
    rng = np.random.default_rng(episode)
    return [
        replace(
            helpers.make_step(100 * episode + i, i, length, episode),
            images=tuple(rng.integers(0, 256, shape, np.uint8) for shape in shapes),
        )
        for i in range(length + 1)
    ]


def rising(steps: Sequence[StepRecord]) -> np.ndarray:
    """Values from -1 up to 0; none of the last step."""
    values = np.linspace(-1.0, 0.0, len(steps))
    return np.where([s.is_last for s in steps], np.nan, values)


def take(episode: int = 1, **more: Any) -> Take:
    steps = seen_steps(episode, **more)
    return Take(steps, ("wrist", "fixed"), rising(steps), 10.0)


def pixels(frame: Image.Image) -> np.ndarray:
    return np.asarray(frame.convert("RGB")).astype(int)


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def where(frame: Image.Image, colour: str) -> np.ndarray:
    return (pixels(frame) == rgb(colour)).all(axis=2)


# ---- frames


def test_there_is_a_frame_of_each_step_of_each_episode() -> None:
    film = Film([take(1), take(2, length=4)], 10.0)
    frames = list(film.frames())
    assert len(frames) == 7 + 5 == len(film.shown()) == len(film.ends())
    assert {f.size for f in frames} == {(film.layout.width, film.layout.height)}
    assert film.layout.width % 2 == film.layout.height % 2 == 0
    assert [(t.id, i) for t, i in film.shown()][6:8] == [(1, 6), (2, 0)]


def test_the_pixels_of_the_cameras_are_enlarged_and_nothing_else() -> None:
    film = Film([take()])
    for frame, step in zip(film.frames(), film.takes[0].steps, strict=True):
        for box, image in zip(film.layout.cameras, step.images, strict=True):
            seen = pixels(frame.crop((box.x, box.y, box.right, box.bottom)))
            factor = box.height // image.shape[0]
            assert factor >= 16 and box.width == factor * image.shape[1]
            assert (seen == np.kron(image, np.ones((factor, factor, 1), int))).all()


@pytest.mark.parametrize("shape", [(480, 640, 3), (128, 128, 1), (64, 64, 3), (5, 7, 3)])
@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_any_camera_has_its_place_beside_the_others(shape: Any, cameras: int) -> None:
    steps = seen_steps(shapes=(shape,) * cameras)
    names = ("a", "b", "c")[:cameras]
    film = Film([Take(steps, names, rising(steps))], 10.0)
    (first, *_), layout = film.frames(), film.layout
    assert layout.panel is not None and first.size == (layout.width, layout.height)
    boxes = [*layout.cameras, layout.panel]
    assert all(one.right < other.x for one, other in pairwise(boxes)), "none covers another"
    assert boxes[0].x >= 0 and boxes[-1].right <= layout.width <= 1100
    assert max(box.bottom for box in boxes) < layout.bar.y <= layout.height - BAR


def test_a_grey_camera_is_grey() -> None:
    steps = seen_steps(shapes=((16, 16, 1),))
    film = Film([Take(steps, ("one",))], 10.0)
    box = film.layout.cameras[0]
    seen = pixels(next(film.frames()))[box.y : box.bottom : 16, box.x : box.right : 16]
    assert (seen == steps[0].images[0]).all(), "three equal channels"


def test_the_band_and_the_bar_show_who_drives_and_how_it_ended() -> None:
    film = Film([take()])
    frames, band, bar = list(film.frames()), film.layout.band, film.layout.bar
    expected = [POLICY] * 3 + [OPERATOR] * 3 + [OUTCOMES[Outcome.SUCCESS][1]]
    for frame, colour in zip(frames, expected, strict=True):
        for corner in ((0, 0), (0, band.bottom - 1), (band.right - 1, band.bottom - 1)):
            assert list(frame.getpixel(corner)) == rgb(colour)
    assert len({where(frames[i], "#ffffff")[: band.bottom].sum() for i in (0, 3, 6)}) == 3, "words"
    for i, frame in enumerate(frames):
        row = frame.crop((bar.x, bar.y + 4, bar.right, bar.y + 5))
        share = [where(row, colour).sum() / bar.width for colour in (POLICY, OPERATOR)]
        driven = min(i + 1, LENGTH)
        assert share == pytest.approx([min(driven, 3) / 6, max(driven - 3, 0) / 6], abs=0.01)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o != Outcome.RUNNING])
def test_every_outcome_has_its_band(outcome: Outcome) -> None:
    steps = seen_steps()
    steps[-1] = replace(steps[-1], outcome=outcome)
    *_, last = Film([Take(steps, ("a", "b"))], 10.0).frames()
    assert list(last.getpixel((0, 0))) == rgb(OUTCOMES[outcome][1])


def test_an_episode_whose_end_was_not_recorded_ends_with_who_drove() -> None:
    *_, last = Film([Take(seen_steps()[:-1], ("a", "b"))], 10.0).frames()
    assert list(last.getpixel((0, 0))) == rgb(OPERATOR)


# ---- the critic's value


def test_the_curve_grows_to_the_value_of_the_step() -> None:
    film = Film([take()])
    assert film.axes is not None and film.layout.panel is not None
    for i, frame in enumerate(film.frames()):
        known = min(i, LENGTH - 1)  # the last step has no value: the curve stands
        colour = POLICY if known < 3 else OPERATOR
        x, y = film.axes.place(known / 10.0, float(film.takes[0].values[known]))  # type: ignore[index]
        assert list(frame.getpixel((round(x), round(y)))) == rgb(colour), i
        plot = film.axes.plot
        later = frame.crop((round(x) + 7, plot.y, plot.right, plot.bottom))
        assert not where(later, colour).any(), "nothing is drawn of what is to come"
        for past in range(1, known):
            value = float(film.takes[0].values[past - 1 : past + 1].mean())  # type: ignore[index]
            x, y = film.axes.place((past - 0.5) / 10.0, value)
            then = POLICY if past < 3 else OPERATOR
            assert list(frame.getpixel((round(x), round(y)))) == rgb(then), (i, past)


def test_the_curve_breaks_where_a_step_is_missing() -> None:
    whole = take()
    del whole.steps[2]  # type: ignore[attr-defined]
    film = Film([Take(whole.steps, whole.cameras, np.zeros(LENGTH))], 10.0)
    assert film.axes is not None
    *_, last = film.frames()
    drawn = []
    for seconds in (0.05, 0.15, 0.25, 0.35):
        x, y = film.axes.place(seconds, 0.0)
        drawn.append(list(last.getpixel((round(x), round(y)))) in (rgb(POLICY), rgb(OPERATOR)))
    assert drawn == [True, False, False, True]


def test_all_episodes_have_the_same_axes() -> None:
    low, high = take(1), replace(take(2, length=20), values=np.full(21, 3.0))
    film = Film([low, high])
    assert film.axes is not None
    assert film.axes.low < -1.0 and film.axes.high > 3.0 and film.axes.seconds == 2.0


@pytest.mark.parametrize("values", [np.full(7, np.nan), np.zeros(7), np.full(7, -5.0)])
def test_any_values_can_be_drawn(values: np.ndarray) -> None:
    film = Film([replace(take(), values=values)])
    assert len(list(film.frames())) == 7


def test_without_a_critic_there_is_no_panel() -> None:
    film = Film([replace(take(), values=None)])
    assert film.layout.panel is None and film.axes is None
    assert film.layout.width < Film([take()]).layout.width
    assert len(list(film.frames())) == 7


# ---- time, files


def test_it_runs_in_real_time() -> None:
    whole = take()
    del whole.steps[2]  # type: ignore[attr-defined]
    ends = Film([Take(whole.steps, whole.cameras)], 10.0).ends()
    assert ends == pytest.approx([0.1, 0.3, 0.4, 0.5, 0.6, 0.6 + HOLD]), "a hole lasts as it did"


def test_of_fast_control_some_steps_are_shown() -> None:
    film = Film([take(length=31)], 50.0)
    assert film.every == 3 and film.fps == pytest.approx(50 / 3)
    shown = [i for _, i in film.shown()]
    assert shown == [*range(0, 31, 3), 31], "the last one among them"
    assert film.ends()[-1] == pytest.approx(31 / 50 + HOLD)


def test_a_gif_has_all_frames_at_their_time_and_few_bytes(tmp_path: Path) -> None:
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


def test_a_gif_that_is_too_large_is_made_coarser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Film([take()])
    write_film(film, tmp_path / "fine.gif")
    monkeypatch.setattr(film_files, "MAX_GIF", 1)
    write_film(film, tmp_path / "coarse.gif")
    assert (tmp_path / "coarse.gif").stat().st_size < (tmp_path / "fine.gif").stat().st_size
    with Image.open(tmp_path / "coarse.gif") as gif:
        assert gif.n_frames == 7


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV is not installed")
def test_an_mp4_has_the_same_frames(tmp_path: Path) -> None:
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


def test_what_exists_is_never_written_over_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    film = Film([take()])
    (tmp_path / "film.gif").write_text("mine")
    with pytest.raises(BagError, match="exists already"):
        write_film(film, tmp_path / "film.gif")
    with pytest.raises(ValueError, match=r"found '.avi', expected .gif or .mp4"):
        write_film(film, tmp_path / "film.avi")
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]
    assert (tmp_path / "film.gif").read_text() == "mine"


def test_episodes_that_do_not_go_together_are_refused() -> None:
    other = Take(seen_steps(2, shapes=((8, 8, 3),)), ("a",), np.zeros(7))
    with pytest.raises(ValueError, match=r"episode 2, step 0: found images of \[\(8, 8, 3\)\]"):
        Film([take(), other], 10.0)
    with pytest.raises(ValueError, match="some with values and some without"):
        Film([take(1), replace(take(2), values=None)], 10.0)
    with pytest.raises(ValueError, match="rate: found 0"):
        Film([replace(take(), rate=0.0)])
    with pytest.raises(ValueError, match="found 3, expected one for each of 7 steps"):
        Take(seen_steps(), ("a", "b"), np.zeros(3))
    with pytest.raises(ValueError, match="no episode"):
        Film([])


def test_the_layout_of_a_page() -> None:
    layout = make_layout([(64, 64, 3), (64, 64, 3)], panel=True)
    assert layout.width <= 838, "a README shows no more pixels than that"
    assert all(box.height == box.width == 256 for box in layout.cameras)


# ---- out of a bag


def bag_of(tmp_path: Path, *episodes: list[StepRecord]) -> Path:
    steps = [replace(s, sequence=n) for n, s in enumerate(s for e in episodes for s in e)]
    return helpers.write_bag(tmp_path / "bag", steps)


def test_episodes_of_a_bag(tmp_path: Path) -> None:
    bad = seen_steps(2)
    bad[-1] = replace(bad[-1], outcome=Outcome.DISCARDED)
    bag = bag_of(tmp_path, seen_steps(1), bad, *(seen_steps(n) for n in range(3, 7)))
    assert [t.id for t in find_takes(bag)] == [1, 3, 4], "not the one that was discarded"
    found = find_takes(bag, [2, 5], values=rising)
    assert [t.id for t in found] == [2, 5], "unless it is named"
    helpers.assert_equal_steps(
        [replace(s, sequence=0) for s in found[1].steps],
        [replace(s, sequence=0) for s in seen_steps(5)],
    )
    np.testing.assert_array_equal(found[0].values, rising(bad))
    assert found[0].rate == 10.0 and found[0].cameras == ("camera_0", "camera_1")
    with pytest.raises(BagError, match=r"no episode 9 to show, only those from 1 to 6"):
        find_takes(bag, [1, 9])


def test_a_bag_without_images_has_no_film(tmp_path: Path) -> None:
    bag = helpers.write_bag(tmp_path / "bag", helpers.make_episodes(2))
    with pytest.raises(NoImagesError, match=r"bag: the Steps of episode 1 hold no images; record"):
        find_takes(bag)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = bag_of(tmp_path, *(seen_steps(n) for n in range(1, 6)))
    assert run(bag, "-o", tmp_path / "film.gif", "--episodes", "1,4-5") == 0
    assert "3 episodes, 6 s" in capsys.readouterr().out
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 21
        without = gif.size
    assert run(bag, "-o", tmp_path / "film.gif") == 1
    assert "exists already" in capsys.readouterr().err
    store(tmp_path / "run", RLPD(CONFIG, SPEC))
    assert run(bag, "-o", tmp_path / "valued.gif", "--checkpoint", tmp_path / "run") == 0
    with Image.open(tmp_path / "valued.gif") as gif:
        assert gif.width > without[0] and gif.n_frames == 21
    for words in ("1,x", "", "3-", "5-4"):
        with pytest.raises(SystemExit):
            run(bag, "-o", tmp_path / "no.gif", "--episodes", words)


def test_the_command_says_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = bag_of(tmp_path, seen_steps())
    words = (bag, "-o", tmp_path / "film.gif", "--checkpoint", tmp_path / "run")
    assert run(*words) == 1 and "checkpoint: found none" in capsys.readouterr().err
    store(tmp_path / "run", RLPD(CONFIG, replace(SPEC, state_dim=4)))
    assert run(*words) == 1 and "is of another network" in capsys.readouterr().err
    assert not (tmp_path / "film.gif").exists()
    store(tmp_path / "bc", BC(ImitationConfig(), SPEC))
    assert run(*words[:-1], tmp_path / "bc") == 0, "a film all the same"
    assert "no critic's value" in capsys.readouterr().out


# ---- the critic of a checkpoint


def store(path: Path, learner: Any) -> Path:
    spec = learner.spec
    buffers = Buffers(ReplayBuffer(8, spec.state_dim, spec.action_dim), None)
    return CheckpointStore(path).save(learner, buffers)


@pytest.mark.parametrize("spec", [SPEC, SEEING], ids=["state", "images"])
def test_values_are_those_of_the_learners_critic(tmp_path: Path, spec: PolicySpec) -> None:
    learner, steps = RLPD(CONFIG, spec, seed=5), seen_steps(length=100)
    store(tmp_path, learner)
    found = load_critic(tmp_path).values(steps)
    assert found.shape == (101,) and np.isnan(found[-1])
    for i in (0, 63, 64, 99):
        step = steps[i]
        with torch.no_grad():
            images = [torch.from_numpy(image)[None] for image in step.images]
            wide = learner.actor.widen(torch.from_numpy(step.state)[None], images)
            action = torch.from_numpy(step.action)[None]
            expected = [float(q) for q in learner.critic(wide, action).flatten()]
        assert len(expected) == CONFIG.ensemble_size
        assert found[i] == pytest.approx(np.mean(expected), abs=1e-5)
    assert len(np.unique(found[:-1])) == 100, "each step has its own"


def test_pretrained_frozen_weights_come_from_where_the_learner_had_them(tmp_path: Path) -> None:
    spec = EncoderSpec("resnet18", "average", features=4, frozen=True)
    for number in range(2):
        save_file(resnet18(weights=None).state_dict(), tmp_path / f"{number}.safetensors")
    trunk = load_trunk(spec, str(tmp_path / "0.safetensors"))
    spec = replace(spec, trunk=fingerprint(trunk))
    shapes = ((64, 64, 3),)
    learner = RLPD(CONFIG, replace(SPEC, images=shapes, encoder=spec), trunk=trunk)
    store(tmp_path / "run", learner)
    steps = seen_steps(shapes=shapes)
    found = load_critic(tmp_path / "run", str(tmp_path / "0.safetensors")).values(steps)
    with torch.no_grad():
        image, state = torch.from_numpy(steps[0].images[0]), torch.from_numpy(steps[0].state)
        wide = learner.actor.widen(state, [image])[None]
        expected = learner.critic(wide, torch.from_numpy(steps[0].action)[None]).mean()
    assert found[0] == pytest.approx(float(expected), abs=1e-4)
    with pytest.raises(PretrainedError, match="fingerprint"):
        load_critic(tmp_path / "run", str(tmp_path / "1.safetensors"))


def test_steps_of_another_robot_are_refused(tmp_path: Path) -> None:
    store(tmp_path, RLPD(CONFIG, SEEING))
    critic = load_critic(tmp_path)
    with pytest.raises(MismatchError, match=r"images: 8x8x3, expected .* images: 16x16x3, 8x16x3"):
        critic.values(seen_steps(shapes=((8, 8, 3),)))
    with pytest.raises(MismatchError, match="images: none, expected"):
        critic.values(helpers.make_episodes(1))
    store(tmp_path / "blind", RLPD(CONFIG, replace(SPEC, state_dim=4)))
    with pytest.raises(MismatchError, match="found Steps .* states of 3, .* expected states of 4"):
        load_critic(tmp_path / "blind").values(seen_steps())


def test_weights_of_another_network_than_the_spec_says_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path, RLPD(CONFIG, SEEING))
    tensors = load_file(path / "state.safetensors")
    tensors["encoder.trunks.0.0.weight"] = torch.zeros(4, 3, 3, 3)
    del tensors["encoder.heads.0.bottleneck.weight"]
    rewrite(path, tensors)
    with pytest.raises(MismatchError, match=r"is of another network .* is missing, expected .* is "
                       r"\[4, 3, 3, 3\], expected \[4, 3, 8, 8\]"):  # fmt: skip
        load_critic(path)


def test_a_spec_of_another_version_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, RLPD(CONFIG, SPEC))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["config"]["fancy"] = 3
    rewrite(path, load_file(path / "state.safetensors"), manifest)
    with pytest.raises(MismatchError, match=r"another version .* unknown settings \['fancy'\]"):
        load_critic(path)


def rewrite(path: Path, tensors: dict[str, torch.Tensor], manifest: Any = None) -> None:
    """As a version would have written it that holds this."""
    learner = RLPD(CONFIG, SPEC)
    manifest = manifest or json.loads((path / "manifest.json").read_text())

    class Stored:
        spec = type("Spec", (), {"to_json": lambda self: json.dumps(manifest["spec"])})()
        config = type("Config", (), {"to_mapping": lambda self: manifest["config"]})()
        state_values = learner.state_values

        def state_tensors(self) -> dict[str, torch.Tensor]:
            return tensors

    Stored.__name__ = manifest["algorithm"]
    root = path.parent.parent
    buffers = Buffers(ReplayBuffer(8, 3, 2), None)
    new = CheckpointStore(root).save(Stored(), buffers)  # type: ignore[arg-type]
    for name in ("manifest.json", "manifest.sha256", "state.safetensors"):
        (new / name).replace(path / name)


def test_imitation_has_no_critic(tmp_path: Path) -> None:
    store(tmp_path, BC(ImitationConfig(), SPEC))
    with pytest.raises(NoCriticError, match="is of BC, which has no critic"):
        load_critic(tmp_path)


def test_nobody_drives_is_a_band_too() -> None:
    steps = [replace(s, source=Source.NONE) for s in seen_steps()]
    first = next(Film([Take(steps, ("a", "b"))], 10.0).frames())
    assert list(first.getpixel((0, 0))) == rgb(GREY)
