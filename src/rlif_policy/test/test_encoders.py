# SPDX-License-Identifier: Apache-2.0
"""Image encoders: shapes, gradients, what never moves, and the random shift against a plain loop."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import trunks
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_policy.encoders import (
    ENCODERS,
    POOLINGS,
    EncoderSpec,
    ImageEncoder,
    SpatialSoftmax,
)
from rlif_policy.networks import Actor, PolicySpec

EFFICIENTNET = pytest.param("efficientnet_b3", marks=pytest.mark.slow)
SIZE = (33, 47, 3)  # odd, and a map of more than one place for every trunk


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_encoder(spec, images=(SIZE,), seed=0):
    """With random weights where pretrained ones would be."""
    encoder = ImageEncoder(spec, images, generator(seed))
    if spec.pretrained:
        encoder.load_trunk(trunks.random_tensors(spec.name))
    return encoder


def pictures(images=(SIZE,), leading=(), seed=0):
    return [
        torch.randint(0, 256, (*leading, *shape), generator=generator(seed + i), dtype=torch.uint8)
        for i, shape in enumerate(images)
    ]


# ---- shapes


# Every pooling with the smallest trunk, and each trunk with one camera's and with a shared head: a
# pooling takes any map.
KINDS = [
    *itertools.product(["small"], POOLINGS, [False, True], [1, 2]),
    ("resnet18", "spatial_softmax", False, 2),
    ("resnet18", "spatial_embedding", True, 2),
    ("resnet18", "average", False, 1),
    *(
        pytest.param("efficientnet_b3", *kind, marks=pytest.mark.slow)
        for kind in (
            ("spatial_embedding", False, 2),
            ("spatial_softmax", True, 1),
            ("average", True, 2),
        )
    ),
]


@pytest.mark.parametrize(("name", "pooling", "shared", "cameras"), KINDS)
def test_encoder_of_each_kind_gives_features_of_each_camera(name, pooling, shared, cameras):
    spec = EncoderSpec(name, pooling, 5, shared, channels=4, embeddings=2)
    images = (SIZE,) * cameras
    encoder = make_encoder(spec, images)
    assert encoder.size == 5 * cameras
    assert len(encoder.trunks) == len(encoder.heads) == (1 if shared else cameras)
    with torch.no_grad():
        many = pictures(images, (2, 3))
        found = encoder(many)
        one = encoder([image[1, 2] for image in many])
    assert found.shape == (2, 3, 5 * cameras) and found.dtype == torch.float32
    assert one.shape == (5 * cameras,)
    torch.testing.assert_close(found[1, 2], one, atol=1e-4, rtol=1e-4)
    assert (found.abs() < 1.0).all()  # tanh
    assert (found.flatten(0, 1).std(dim=0) > 1e-4).all()  # of different images


@pytest.mark.parametrize("height", [8, 9, 12, 31, 64])
@pytest.mark.parametrize("width", [8, 10, 33])
def test_encoder_small_takes_images_of_any_size(height, width):
    encoder = make_encoder(EncoderSpec(channels=2, features=3), ((height, width, 1),))
    assert encoder.map_shapes == [(2, height // 4, width // 4)]
    with torch.no_grad():
        assert encoder(pictures(encoder.images, (2,))).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet18", EFFICIENTNET])
def test_encoder_with_a_map_of_one_place_refuses_spatial_softmax(name):
    """Regression: batch normalisation, not yet told that it is not trained, refused such a map."""
    small = ((32, 32, 3),)
    encoder = make_encoder(EncoderSpec(name, "average", 3), small)
    assert encoder.map_shapes[0][1:] == (1, 1)
    with torch.no_grad():
        assert encoder(pictures(small, (2,))).shape == (2, 3)
    with pytest.raises(ValueError, match="spatial_softmax.*one place.*larger images"):
        ImageEncoder(EncoderSpec(name), small, generator())


def test_encoder_unless_shared_has_a_trunk_and_a_head_for_each_camera():
    images = ((16, 24, 3), (12, 12, 3))
    encoder = make_encoder(EncoderSpec(features=4), images)
    seen = pictures(images)
    with torch.no_grad():
        before = encoder(seen)
        for parameter in (*encoder.trunks[1].parameters(), *encoder.heads[1].parameters()):
            parameter.add_(0.1)
        after = encoder(seen)
    assert torch.equal(before[:4], after[:4]) and not torch.equal(before[4:], after[4:])

    shared = make_encoder(EncoderSpec(features=4, shared=True), (SIZE, SIZE))
    (image,) = pictures()
    with torch.no_grad():
        both = shared([image, image])
    assert torch.equal(both[:4], both[4:])


def test_encoder_with_a_frozen_trunk_shares_it_with_cameras_and_copies():
    spec, images = EncoderSpec("resnet18", features=4, frozen=True), (SIZE, (40, 36, 3))
    encoder = make_encoder(spec, images)
    assert (len(encoder.trunks), len(encoder.heads)) == (1, 2)
    other = encoder.copy()
    assert other.trunks is encoder.trunks
    assert other.map_shapes == encoder.map_shapes == [(512, 2, 2), (512, 2, 2)]
    seen = pictures(images, (2,))
    with torch.no_grad():  # ready to use
        torch.testing.assert_close(other(seen), encoder(seen))


@pytest.mark.parametrize("spec", [EncoderSpec(features=4), EncoderSpec("resnet18", frozen=True)])
def test_encoder_copy_with_other_weights_leaves_the_first_as_it_is(spec):
    encoder, donor = make_encoder(spec, (SIZE,)), make_encoder(spec, (SIZE,), seed=5)
    seen = pictures((SIZE,), (2,))
    with torch.no_grad():
        before, wanted = encoder(seen), donor(seen)
        other = encoder.copy()
        other.load_exported({f"a.{n}": v for n, v in donor.state_dict().items()}, "a.")
        assert torch.equal(encoder(seen), before) and not torch.equal(before, wanted)
        torch.testing.assert_close(other(seen), wanted)


# ---- what is in it


def test_encoder_with_the_same_seed_has_the_same_weights():
    found = []
    for global_seed, seed in ((0, 3), (1, 3), (0, 4)):
        torch.manual_seed(global_seed)
        encoder = make_encoder(EncoderSpec(pooling="spatial_embedding"), (SIZE, SIZE), seed)
        found.append(torch.nn.utils.parameters_to_vector(encoder.parameters()).detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "frozen"), [("small", False), ("resnet18", False), ("resnet18", True)]
)
def test_encoder_gradients_reach_trunk_and_head_but_no_frozen_trunk(name, frozen):
    encoder = make_encoder(EncoderSpec(name, features=4, frozen=frozen), (SIZE, SIZE))
    # The sum of normalised numbers has no slope: weighted.
    (encoder(pictures(encoder.images, (3,))) * torch.linspace(-1, 1, 8)).sum().backward()
    slopes = {
        name: parameter.grad is not None and bool((parameter.grad != 0).any())
        for name, parameter in encoder.named_parameters()
    }
    heads = {name for name in slopes if name.startswith("heads.")}
    assert all(slopes[name] for name in heads), slopes
    trunk = {name: slopes[name] for name in slopes if name.startswith("trunks.")}
    assert set(trunk.values()) == {not frozen}, trunk
    trained = {id(parameter) for parameter in encoder.trained()}
    assert trained == {
        id(p) for n, p in encoder.named_parameters() if not frozen or n.startswith("heads.")
    }


@pytest.mark.parametrize("name", ["resnet18", EFFICIENTNET])
def test_encoder_in_training_keeps_the_statistics_of_batch_normalisation(name):
    """And so a batch does not change what is made of each image, in whatever mode the rest is."""
    spec = PolicySpec(2, 1, (4,), images=(SIZE,), encoder=EncoderSpec(name, features=4))
    actor = Actor(spec)
    actor.encoder = encoder = make_encoder(spec.encoder)
    before = {n: b.clone() for n, b in encoder.named_buffers()}
    assert any(n.endswith("running_var") for n in before)
    actor.train()
    assert not any(module.training for module in encoder.modules())
    seen = pictures(leading=(4,))
    found = encoder(seen)
    found.square().sum().backward()
    for n, buffer in encoder.named_buffers():
        assert torch.equal(buffer, before[n]), n
    with torch.no_grad():
        torch.testing.assert_close(encoder([seen[0][1]]), found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_in_low_precision_gives_close_float32(name):
    encoder = make_encoder(EncoderSpec(name, "average", 6))
    seen = pictures(leading=(4,))
    with torch.no_grad():
        expected = encoder(seen)
        encoder.low_precision = True
        found = encoder(seen)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.0)
    assert (found - expected).abs().mean() < 0.02 < expected.std()


def test_encoder_maps_of_a_frozen_trunk_give_the_features_of_the_images():
    images = (SIZE, (40, 36, 3))
    encoder = make_encoder(EncoderSpec("resnet18", features=6, frozen=True), images)
    many = pictures(images, (3,))
    maps = [encoder.maps([image[i] for image in many]) for i in range(3)]
    assert all(m.dtype == torch.float16 for pair in maps for m in pair)
    assert [tuple(m.shape) for m in maps[0]] == encoder.map_shapes
    with torch.no_grad():
        expected = encoder(many)
        found = encoder([torch.stack(camera) for camera in zip(*maps, strict=True)])
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0.0)
        assert not torch.allclose(found, expected.flip(0), atol=5e-2)


def test_encoder_without_its_pretrained_weights_raises():
    encoder = ImageEncoder(EncoderSpec("resnet18", features=4), (SIZE,), generator())
    with pytest.raises(ValueError, match="resnet18.*not loaded.*load_trunk"):
        encoder(pictures())
    with pytest.raises(ValueError, match="not loaded"):
        encoder.maps(pictures())


# ---- what the poolings are


def test_spatial_softmax_of_one_active_place_gives_it():
    pooling = SpatialSoftmax(EncoderSpec(), (2, 5, 9), generator())
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 4, 0] = maps[0, 1, 2, 8] = 50.0
    # x and y of each channel: below on the left; in the middle on the right.
    torch.testing.assert_close(pooling(maps)[0], torch.tensor([-1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(pooling(torch.ones(1, 2, 5, 9))[0], torch.zeros(4))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 5), st.integers(0, 9))
def test_poolings_of_random_maps_equal_plain_sums(channels, height, width, seed):
    shape, spec = (channels, height, width), EncoderSpec(embeddings=3)
    made = {name: kind(spec, shape, generator(seed)) for name, kind in POOLINGS.items()}
    maps = torch.randn(2, *shape, generator=generator(seed))
    places = [(y, x) for y in range(height) for x in range(width)]

    def scale(i, size):
        return 2.0 * i / (size - 1) - 1.0 if size > 1 else -1.0

    with torch.no_grad():
        made["spatial_softmax"].sharpness.copy_(torch.rand(channels, 1) + 0.5)
        for b in range(2):
            average, embedded, wheres = [], [], []
            for c in range(channels):
                values = np.array([float(maps[b, c, y, x]) for y, x in places])
                average.append(values.mean())
                kernel = made["spatial_embedding"].kernel[c].numpy()
                embedded += [(values * kernel[:, e]).sum() for e in range(3)]
                weights = np.exp(values * float(made["spatial_softmax"].sharpness[c]))
                weights /= weights.sum()
                wheres.append(weights @ [scale(x, width) for _, x in places])
                wheres.append(weights @ [scale(y, height) for y, _ in places])
            for name, expected in (
                ("average", average), ("spatial_embedding", embedded), ("spatial_softmax", wheres)
            ):  # fmt: skip
                np.testing.assert_allclose(made[name](maps)[b].numpy(), expected, atol=1e-5)
    for name, pooling in made.items():
        assert pooling(maps).shape == (2, pooling.size), name


# ---- what is refused


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "found 0, expected 2"),
        ([torch.zeros(33, 47, 3, dtype=torch.uint8)], "found 1, expected 2"),
        ([torch.zeros(33, 47, 3, dtype=torch.uint8)] * 3, "found 3, expected 2"),
        (
            [torch.zeros(33, 47, 3, dtype=torch.uint8), torch.zeros(47, 33, 3, dtype=torch.uint8)],
            r"\(47, 33, 3\) torch.uint8 of camera 1, expected \[..., 33, 47, 3\]",
        ),
        ([torch.zeros(33, 47, 3)] * 2, r"torch.float32 of camera 0, expected \[..., 4, 8, 11\]"),
    ],
)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_encoder_with_images_of_another_count_or_size_raises(pooling, images, words):
    """Regression: the average took images of any size, the others died in a product of matrices."""
    encoder = make_encoder(EncoderSpec(pooling=pooling, channels=4), (SIZE, SIZE))
    with pytest.raises(ValueError, match=words):
        encoder(images)


@pytest.mark.parametrize(
    ("spec", "images", "words"),
    [
        (EncoderSpec(), (), "no camera"),
        (EncoderSpec(shared=True), (SIZE, (8, 8, 3)), "encoder.shared.*one size"),
        (EncoderSpec("resnet18"), ((64, 64, 1),), r"3 channels \(RGB\) for resnet18"),
        (EncoderSpec(), ((7, 64, 3),), "at least 8 pixels"),
    ],
)
def test_encoder_for_cameras_that_do_not_fit_names_them(spec, images, words):
    with pytest.raises(ValueError, match=words):
        ImageEncoder(spec, images, generator())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "resnet19"), ("pooling", "max"), ("features", 0), ("features", 2.0),
        ("channels", True), ("embeddings", -1), ("shared", 1), ("frozen", "yes"),
    ],
)  # fmt: skip
def test_encoder_spec_with_a_bad_field_names_it(field, value):
    with pytest.raises(ValueError, match=f"encoder.{field}: found {value!r}"):
        EncoderSpec(**{field: value})


def test_encoder_spec_with_random_weights_refuses_frozen():
    with pytest.raises(ValueError, match="encoder.frozen: .*'small'.*one of resnet18"):
        EncoderSpec(frozen=True)


@given(
    st.builds(
        EncoderSpec, name=st.sampled_from(list(ENCODERS)), pooling=st.sampled_from(list(POOLINGS)),
        features=st.integers(1, 999), shared=st.booleans(), trunk=st.sampled_from(["", "0f" * 32]),
    )
)  # fmt: skip
def test_encoder_spec_of_its_own_mapping_is_equal(spec):
    assert EncoderSpec.from_mapping(spec.to_mapping()) == spec


def test_encoder_spec_with_an_unknown_field_names_it():
    with pytest.raises(ValueError, match=r"unknown fields \['feature'\].*features"):
        EncoderSpec.from_mapping({"feature": 3})


def test_encoder_of_a_spec_has_its_sizes():
    spec = EncoderSpec(pooling="spatial_embedding", features=7, channels=5, embeddings=3)
    encoder = make_encoder(spec)
    assert encoder.heads[0].bottleneck.weight.shape == (7, 5 * 3)
    assert make_encoder(replace(spec, pooling="average")).heads[0].bottleneck.in_features == 5
