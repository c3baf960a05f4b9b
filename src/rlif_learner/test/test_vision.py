# SPDX-License-Identifier: Apache-2.0
"""What is learned from images besides RLPD: settings, the frozen trunk's features, imitation, bags."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import trunks
import vision_doubles as doubles
from vision_doubles import IMAGES, SCALES, make_spec, vision_config

from rlif_bags.step_writer import StepWriter
from rlif_bags.train import Data, OfflineConfig, load, make_trainer
from rlif_learner import vision as vision_module
from rlif_learner.config import RLPDConfig
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome
from rlif_learner.making import DATA, make_algorithm
from rlif_learner.training import Trainer, TrainingConfig
from rlif_learner.vision import (
    NAMES,
    VisionConfig,
    as_stored,
    low_precision,
    make_buffer,
    make_vision,
)
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.pretrained import PretrainedError, fingerprint
from rlif_policy.processor import LEVELS, detect


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return trunks.random_file(tmp_path_factory.mktemp("weights"))


def make_trainer_of(config, algorithm="rlpd", settings=None, **training):
    vision = make_vision(config)
    settings = settings or {"hidden": (16,), "ensemble_size": 2, "utd": 1, "batch_size": 8}
    learner = make_algorithm(algorithm, settings, "rlpd", make_spec(vision), 0, trunk=vision.trunk)
    buffers = Buffers(*(make_buffer(60, learner.actor) for _ in range(2)))
    return Trainer(learner, buffers, TrainingConfig(**training), DATA[algorithm])


# ---- settings


def test_the_settings_become_a_spec(file):
    vision = make_vision(vision_config(encoder_pooling="average", encoder_shared=True))
    assert vision.encoder == EncoderSpec("small", "average", 6, True)
    assert vision.images == IMAGES and vision.trunk is None
    assert make_vision(VisionConfig(cameras=("wrist",))) == make_vision(VisionConfig())
    assert make_vision(VisionConfig()).images == ()
    tuned = make_vision(vision_config(file, "resnet18"))
    assert tuned.encoder.trunk == "" and tuned.trunk is not None
    frozen = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    assert frozen.encoder.trunk == fingerprint(frozen.trunk) == fingerprint(tuned.trunk)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": "vit"}, f"encoder: found 'vit', expected one of {', '.join(NAMES)}"),
        ({"encoder": "small", "cameras": ()}, "cameras: found none with encoder 'small'"),
        ({"encoder_frozen": True}, "encoder.frozen"),
        ({"encoder_pooling": "max"}, "encoder.pooling"),
        ({"encoder": "resnet18", "encoder_weights": "/nowhere.pth"}, "no file /nowhere.pth"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        make_vision(VisionConfig(**{"encoder": "small", "cameras": ("wrist",), **settings}))


def test_what_a_buffer_keeps(file):
    seeing = Actor(make_spec(make_vision(vision_config())))
    blind = Actor(PolicySpec(3, 2, (16,)))
    assert make_buffer(9, seeing).image_shapes == IMAGES
    assert make_buffer(9, blind).image_shapes == ()
    assert make_buffer(9, blind, IMAGES[:1]).image_shapes == IMAGES[:1]
    vision = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    frozen = make_buffer(9, Actor(make_spec(vision), trunk=vision.trunk), IMAGES)
    assert frozen.image_shapes == ((512, 2, 2),) * 2
    assert {frozen.columns[f"image_{i}"].dtype for i in range(2)} == {np.dtype(np.float16)}


# ---- features of a frozen trunk


@pytest.fixture
def frozen(file):
    return make_trainer_of(vision_config(file, "resnet18", encoder_frozen=True), prior_episodes=1)


def expected_maps(image):
    """By torchvision's own model."""
    model = trunks.random_model("resnet18")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255.0 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        return torch.nn.Sequential(*list(model.children())[:-2])(pixels)[0].numpy()


@pytest.mark.slow
def test_the_buffers_hold_what_the_trunk_makes_of_each_image(frozen):
    episodes = [doubles.noise_episode(n, 4, IMAGES) for n in (1, 2)]
    for step in [*episodes[0], *episodes[1]]:
        frozen.receive(step)
    encoder, expected = frozen.algorithm.actor.encoder, {}
    for buffer, episode in zip(
        (frozen.buffers.prior, frozen.buffers.online), episodes, strict=True
    ):
        assert buffer.total == 5
        for row, step in enumerate(episode):
            again = encoder.maps([torch.from_numpy(image) for image in step.images])
            for i, image in enumerate(step.images):
                stored = buffer.columns[f"image_{i}"][row]
                np.testing.assert_array_equal(stored, again[i].numpy())
                expected[row, i] = expected_maps(image)  # at the end those of the online episode
                np.testing.assert_allclose(stored, expected[row, i], atol=5e-3, rtol=2e-3)
        kept = {name: column.dtype for name, column in buffer.columns.items() if "image" in name}
        assert kept == dict.fromkeys(("image_0", "image_1"), np.dtype(np.float16))
    batch = frozen.buffers.online.sample(16, np.random.default_rng(0))
    for b in range(16):  # of each transition, those of its own steps
        now, after = (int(s[b, 0]) - 2000 % 256 for s in (batch.states, batch.next_states))
        for i in range(2):
            for found, row in ((batch.images[i][b], now), (batch.next_images[i][b], after)):
                np.testing.assert_allclose(found, expected[row, i], atol=5e-3, rtol=2e-3)


def test_value_of_a_step_is_the_mean_of_all_critics_of_what_it_executed(frozen):
    first, second = (doubles.noise_episode(n, 4, IMAGES) for n in (1, 2))
    for step in (*first, *second):
        frozen.receive(step)
    step, algorithm = first[1], frozen.algorithm
    assert frozen.value(step) is None, "of critics that were never trained"
    frozen.update()
    maps = algorithm.actor.encoder.maps([torch.from_numpy(image) for image in step.images])
    with torch.no_grad():
        features = algorithm.actor.encode(
            torch.from_numpy(step.state)[None], [m[None] for m in maps]
        )
        values = algorithm.critic(features, torch.from_numpy(step.action)[None])
    for evaluation in (False, True):
        found = frozen.value(replace(step, evaluation=evaluation))
        assert found == pytest.approx(values.mean().item(), abs=1e-6)
    assert frozen.value(first[-1]) is None, "it has no action"
    assert frozen.value(replace(step, evaluation=True, images=step.images[:1])) is None
    assert frozen.value(replace(step, evaluation=True, state=step.state[:1])) is None


def test_evaluation_and_what_was_discarded_are_not_even_looked_at(frozen):
    def fail(_):
        raise AssertionError("it was looked at")

    frozen.algorithm.actor.encoder.maps = fail
    for step in doubles.noise_episode(1, 3, IMAGES, evaluation=True):
        frozen.receive(step)
    (last,) = doubles.noise_episode(2, 3, ((9, 9, 3),))[-1:]
    frozen.receive(replace(last, outcome=Outcome.DISCARDED))  # the images of which are of no use
    assert frozen.buffers.prior.total == frozen.buffers.online.total == 0


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((), r"found \(\) of \[\], expected \(\(33, 40, 3\), \(33, 40, 3\)\) of uint8"),
        (IMAGES[:1], r"found \(\(33, 40, 3\),\)"),
        ((IMAGES[0], (40, 33, 3)), r"\(40, 33, 3\)\)"),
    ],
)
def test_images_of_other_sizes_are_refused_before_the_trunk_sees_them(frozen, images, words):
    step = doubles.noise_episode(1, 3, images)[0]
    with pytest.raises(ValueError, match=f"step 0 of episode 1: .*{words}"):
        frozen.receive(step)
    assert frozen.buffers.prior.total == 0 and frozen.counts.steps == 0


def test_images_that_are_no_bytes_are_refused(frozen):
    step = doubles.noise_episode(1, 3, IMAGES)[0]
    step = replace(step, images=tuple(image.astype(np.float32) / 255 for image in step.images))
    with pytest.raises(ValueError, match=r"of \['float32'\], expected .* of uint8"):
        frozen.receive(step)


def test_a_trunk_that_is_not_frozen_leaves_images_as_they_are():
    actor = Actor(make_spec(make_vision(vision_config())))
    step = doubles.noise_episode(1, 3, IMAGES)[0]
    assert as_stored(actor)(step) is step
    assert as_stored(Actor(PolicySpec(3, 2, (16,))))(step) is step


@pytest.mark.parametrize("kind", [{}, {"encoder": "resnet18", "encoder_frozen": True}])
def test_images_are_stored_in_the_policys_order_whatever_the_recorders(file, kind):
    """Regression: Steps of [fixed, wrist] were learned from as if they were of [wrist, fixed]."""
    vision = make_vision(vision_config(file, **kind))
    assert vision.cameras == ("wrist", "fixed")
    actor = Actor(replace(make_spec(vision), cameras=vision.cameras), trunk=vision.trunk)
    step = replace(doubles.noise_episode(1, 3, IMAGES)[0], cameras=("wrist", "fixed"))
    expected = as_stored(actor)(step).images
    wrist, fixed = step.images
    for images, names in (
        ((fixed, wrist), ("fixed", "wrist")), ((fixed, fixed, wrist), ("top", "fixed", "wrist")),
        ((wrist, fixed), ()),
    ):  # fmt: skip
        found = as_stored(actor)(replace(step, images=images, cameras=names)).images
        assert len(found) == 2 and all(map(np.array_equal, found, expected))
    with pytest.raises(ValueError, match="step 0 of episode 1: .*top, wrist.*fixed is missing"):
        as_stored(actor)(replace(step, cameras=("top", "wrist")))


def of_processor(monkeypatch, flags, torch_uses_it=True):
    found = detect(f"flags : {flags}", "x86_64")
    monkeypatch.setattr(vision_module, "processor", lambda: found)
    monkeypatch.setattr(
        torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: torch_uses_it, raising=False
    )


def test_low_precision_with_such_products_is_bfloat16_unless_float16_is_asked_for(monkeypatch):
    flags = " ".join({flag for level in LEVELS for flag in level.needs})
    for precision, expected in (("float32", False), ("bfloat16", True), ("auto", True)):
        of_processor(monkeypatch, flags)
        config = RLPDConfig(hidden=(8,), ensemble_size=2, precision=precision)
        assert low_precision(config, torch.device("cpu")) == expected
    of_processor(monkeypatch, flags, torch_uses_it=False)
    with pytest.warns(UserWarning, match="found 'auto'"):
        assert not low_precision(config, torch.device("cpu"))
    with pytest.warns(UserWarning, match="found 'float16'"):
        assert not low_precision(replace(config, precision="float16"), torch.device("cpu"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto", "float16"])
def test_low_precision_without_such_products_is_float32(monkeypatch, precision):
    """Regression: bfloat16 took five times as long as float32 on a processor that has none."""
    of_processor(monkeypatch, "fpu avx2")
    config = RLPDConfig(hidden=(8,), ensemble_size=2, precision=precision)
    cpu = torch.device("cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not low_precision(config, cpu)
    assert bool(said) == (precision != "float32")
    assert not said or f"found '{precision}'" in str(said[0].message)
    # On a GPU all formats are there; float16 is refused before.
    assert low_precision(config, torch.device("cuda")) == (precision != "float32")


def test_what_a_frozen_trunk_makes_of_an_image_is_what_the_policy_sees(file):
    """Regression: it was stored from bfloat16 products, where those were asked for."""
    vision = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    encoder = Actor(make_spec(vision), trunk=vision.trunk).encoder
    images = [torch.from_numpy(i) for i in doubles.noise_episode(1, 3, IMAGES)[0].images]
    before = encoder.maps(images)
    encoder.low_precision = True
    assert all(map(torch.equal, encoder.maps(images), before))


@pytest.mark.slow
def test_features_go_through_a_checkpoint_bit_for_bit(file, frozen, tmp_path):
    for n in (1, 2, 3):
        for step in doubles.noise_episode(n, 5, IMAGES):
            frozen.receive(step)
    for _ in range(2):
        frozen.update()
    path = CheckpointStore(tmp_path).save(frozen.algorithm, frozen.buffers, extra=frozen.counters())
    again = make_trainer_of(vision_config(file, "resnet18", encoder_frozen=True), prior_episodes=1)
    again.restore(CheckpointStore(tmp_path).load(path, again.algorithm, again.buffers))
    for found, expected in (
        (again.buffers.online, frozen.buffers.online), (again.buffers.prior, frozen.buffers.prior)
    ):  # fmt: skip
        for name, column in expected.columns.items():
            np.testing.assert_array_equal(found.columns[name], column, err_msg=name)
    for trainer in (again, frozen):
        trainer.update()
    for name, tensor in frozen.algorithm.state_tensors().items():
        assert torch.equal(again.algorithm.state_tensors()[name], tensor), name


def test_features_lie_in_files_where_asked_for(file, tmp_path):
    vision = make_vision(vision_config(file, "resnet18", encoder_frozen=True))
    actor = Actor(make_spec(vision), trunk=vision.trunk)
    buffer = make_buffer(20, actor, memmap_dir=str(tmp_path))
    see = as_stored(actor)
    steps = doubles.noise_episode(1, 4, IMAGES)
    for step in steps:
        buffer.add_step(see(step))
    assert (tmp_path / "image_1.bin").stat().st_size == 20 * 512 * 2 * 2 * 2
    np.testing.assert_array_equal(buffer.columns["image_1"][2], see(steps[2]).images[1])


# ---- bags


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("algorithm", ["rlpd", "bc"])
def test_bags_are_learned_from_with_their_images(file, frozen, algorithm, tmp_path):
    bag = tmp_path / "bag"
    steps = [s for n in (1, 2) for s in doubles.noise_episode(n, 8, IMAGES, first=20 * n)]
    with StepWriter(bag) as writer:
        for step in steps:
            writer.write(step, 10**9 * step.sequence)
    small = {"utd": 1, "batch_size": 8}
    settings = {**small, "hidden": (16,), "ensemble_size": 2} if algorithm == "rlpd" else small
    config = OfflineConfig(
        algorithm=algorithm, hidden=(16,), settings=settings,
        vision=vision_config(file, "resnet18" if frozen else "small", encoder_frozen=frozen), **SCALES,
    )  # fmt: skip
    trainer = make_trainer(config, Data([bag]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of arrays that must not be written to
        load(trainer, Data([bag]), print)
    buffer = trainer.buffers.prior if algorithm == "bc" else trainer.buffers.online
    assert buffer.total == len(steps)
    for row, step in enumerate(steps):
        expected = as_stored(trainer.algorithm.actor)(step).images
        for i in range(2):
            np.testing.assert_array_equal(buffer.columns[f"image_{i}"][row], expected[i])
    for _ in range(2):
        trainer.update()
    assert all(np.isfinite(v) for v in trainer.metrics.values())


def test_parameters_of_a_file_become_the_encoder():
    config, left = OfflineConfig.from_parameters(
        {
            "encoder": "small", "encoder_pooling": "average", "cameras": ["wrist"],
            "image_width": 16, "image_height": 12, "rlpd": {"random_shift": 1}, "control_rate": 10.0,
        }
    )  # fmt: skip
    vision = make_vision(config.vision)
    assert vision.images == ((12, 16, 3),) and vision.encoder.pooling == "average"
    assert config.settings == {"random_shift": 1}
    assert left == ["control_rate"]


def test_weights_that_cannot_be_had_end_it_in_words(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(PretrainedError, match="python -c"):
        make_vision(VisionConfig(encoder="resnet18", cameras=("wrist",)))
