# SPDX-License-Identifier: Apache-2.0
"""Pretrained trunks: from wherever they come, they are torchvision's, or refused in words."""

from __future__ import annotations

import builtins
import pickle
import urllib.error

import pytest
import torch
import trunks
from safetensors.torch import save_file

from rlif_policy.encoders import EncoderSpec, ImageEncoder
from rlif_policy.pretrained import PretrainedError, fingerprint, load_frozen, load_trunk

RESNET = EncoderSpec("resnet18")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], value), name


def state():
    """A copy of the good state dict, to be spoiled."""
    return dict(trunks.random_model("resnet18").state_dict())


# ---- the same network


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("efficientnet_b3", marks=pytest.mark.slow)]
)
def test_load_trunk_gives_the_map_of_torchvisions_own_model(name, tmp_path):
    model = trunks.random_model(name)
    spec = EncoderSpec(name, frozen=True)
    encoder = ImageEncoder(spec, ((70, 45, 3),), torch.Generator())
    encoder.load_trunk(load_trunk(spec, str(trunks.random_file(tmp_path, name))))
    image = torch.randint(0, 256, (2, 70, 45, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((image / 255.0 - mean) / std).permute(0, 3, 1, 2)
    maps = {}
    last = model.layer4 if name == "resnet18" else model.features
    handle = last.register_forward_hook(lambda _, __, out: maps.update(last=out))
    try:
        with torch.no_grad():
            model(pixels)
    finally:
        handle.remove()
    for i in range(2):
        found = encoder.maps([image[i]])[0].float()
        expected = maps["last"][i]
        assert found.shape == expected.shape and expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=2e-3)


# ---- sources


def test_load_trunk_from_files_packages_and_torchvision_gives_the_same(
    resnet_file, tmp_path, monkeypatch
):
    expected = trunks.random_tensors("resnet18")
    tensors = {name: value.contiguous() for name, value in state().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    package = tmp_path / "some_weights" / "inside"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "resnet.pth").write_bytes(resnet_file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(resnet_file.parent))
    monkeypatch.setattr(
        "torchvision.models.ResNet18_Weights.get_state_dict", lambda *_, **__: state()
    )
    sources = (
        str(resnet_file), f"~/{resnet_file.name}", str(tmp_path / "weights.safetensors"),
        "package:some_weights/inside/resnet.pth", "torchvision",
    )  # fmt: skip
    for source in sources:
        assert_equal(load_trunk(RESNET, source), expected)


def test_load_trunk_takes_its_own_names_and_other_precisions(tmp_path):
    own = trunks.random_tensors("resnet18")
    torch.save({name: value.double() for name, value in own.items()}, tmp_path / "own.pth")
    found = load_trunk(RESNET, str(tmp_path / "own.pth"))
    assert_equal(found, own)
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}


def test_load_trunk_without_counters_of_batch_normalisation_gives_the_same(resnet_file, tmp_path):
    """Regression: files of old, torchvision's own among them, do not have them."""
    without = {n: v for n, v in state().items() if "num_batches_tracked" not in n}
    assert len(without) == 102
    torch.save(without, tmp_path / "old.pth")
    found, expected = (load_trunk(RESNET, str(p)) for p in (tmp_path / "old.pth", resnet_file))
    assert_equal(found, expected)
    assert fingerprint(found) == fingerprint(expected)
    ImageEncoder(RESNET, ((64, 64, 3),), torch.Generator()).load_trunk(found)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/resnet.pth", "found no file /nowhere/resnet.pth.*package:NAME/FILE"),
        ("package:no_such_weights/a.pth", "no installed package 'no_such_weights': pip install"),
        ("package:torch/no_such_file.pth", "found no file .*no_such_file.pth"),
        ("package:", "no installed package ''"),
        ("package:torch", "found no file .*torch"),
        ("package:.torch/a.pth", "no installed package '.torch'"),
    ],
)
def test_load_trunk_from_what_is_missing_names_it(source, words):
    with pytest.raises(PretrainedError, match=words):
        load_trunk(RESNET, source)


def test_load_trunk_with_a_bad_tensor_names_it(tmp_path):
    changes = {
        r"no tensor 'layer2.0.conv1.weight', expected torchvision's state dict of resnet18":
            lambda s: s.pop("layer2.0.conv1.weight"),
        r"conv1.weight of .* is \(64, 1, 7, 7\), expected \(64, 3, 7, 7\) of resnet18":
            lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
        r"of .* is not finite":
            lambda s: s.update({"bn1.running_var": torch.full((64,), float("nan"))}),
    }  # fmt: skip
    for words, change in changes.items():
        spoiled = state()
        change(spoiled)
        torch.save(spoiled, tmp_path / "spoiled.pth")
        with pytest.raises(PretrainedError, match=words) as refused:
            load_trunk(RESNET, str(tmp_path / "spoiled.pth"))
        assert "spoiled.pth" in str(refused.value)


class Evil:
    """Runs what it likes where it is unpickled."""

    def __reduce__(self):
        return builtins.print, ("executed",)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", pickle.dumps(Evil(), 2), "cut"])
def test_load_trunk_of_another_file_raises_and_runs_nothing(
    suffix, content, resnet_file, tmp_path, capsys
):
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(resnet_file.read_bytes()[:100_000] if content == "cut" else content)
    with pytest.raises(PretrainedError, match=f"{broken} cannot be read"):
        load_trunk(RESNET, str(broken))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": torch.zeros(1)}}, torch.zeros(2)])
def test_load_trunk_of_no_state_dict_raises(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(PretrainedError, match=r"other.pth holds no state dict of tensors"):
        load_trunk(RESNET, str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"), TimeoutError("timed out"),
        RuntimeError("invalid hash value"), pickle.UnpicklingError("cut off"), EOFError("cut off"),
    ],
)  # fmt: skip
def test_load_trunk_without_internet_gives_the_command_that_fetches(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(PretrainedError) as refused:
        load_trunk(RESNET, "torchvision")
    text = str(refused.value)
    assert "not in its cache" in text and str(error) in text
    (command,) = (line for line in text.splitlines() if line.strip().startswith("python -c"))
    code = command.split('"')[1]
    compile(code, "command", "exec")
    assert "get_model_weights" in code and "resnet18" in code
    assert "checkpoints/resnet18-f37072fd.pth" in text and "encoder_weights" in text


def test_load_trunk_of_a_network_from_scratch_raises():
    with pytest.raises(PretrainedError, match="'small'.*from scratch"):
        load_trunk(EncoderSpec(), "torchvision")


# ---- which trunk it is


def test_fingerprint_depends_on_every_weight_and_nothing_else(resnet_file):
    trunk = load_trunk(RESNET, str(resnet_file))
    whole = fingerprint(trunk)
    assert len(whole) == 64
    assert fingerprint(dict(reversed(list(trunk.items())))) == whole
    # As they lie in memory does not matter.
    strided = {
        n: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for n, v in trunk.items()
    }
    assert fingerprint(strided) == whole

    few = {name: value.flatten()[:4].clone() for name, value in trunk.items()}  # to be quick
    seen = {fingerprint(few)}
    for name, value in few.items():
        changed = value.clone()
        changed[-1] += 1
        seen.add(fingerprint({**few, name: changed}))
    seen.add(fingerprint({f"{name}x": value for name, value in few.items()}))
    seen.add(fingerprint({**few, "1.bias": few["1.bias"].view(2, 2)}))
    assert len(seen) == len(few) + 3


def test_load_frozen_of_another_trunk_raises(resnet_file, tmp_path):
    spec, trunk = trunks.random_trunk(resnet_file, frozen=True)
    assert fingerprint(load_frozen(spec, str(resnet_file))) == fingerprint(trunk)
    other = trunks.random_file(tmp_path, seed=1)
    with pytest.raises(
        PretrainedError, match=rf"{other} holds a resnet18.*same weights as the learner"
    ):
        load_frozen(spec, str(other))


def test_load_frozen_without_a_frozen_trunk_is_none():
    assert load_frozen(None, "/nowhere") is load_frozen(RESNET, "/nowhere") is None
