# SPDX-License-Identifier: Apache-2.0
"""Stored actors are read as they were saved, or refused: never another one in their place."""

import hashlib
import json

import numpy as np
import pytest
from policies import STATE, pictures, seeing
from safetensors.torch import save
from torch.nn.utils import parameters_to_vector

from rlif_policy.inference import NumpyActor
from rlif_policy.networks import Actor, PolicySpec, encoder_part
from rlif_policy.stored_actor import find_checkpoint, read_actor
from rlif_policy.weights import WeightsError

SPEC = PolicySpec(2, 1, (4,), state_scale=(0.25, 5.0))


def write_manifest(folder, **values):
    text = json.dumps(values).encode()
    (folder / "manifest.json").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def write_state(folder, actor, version=0, without=()):
    """As much of a checkpoint as a policy reads, in the learner's format."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"actor": parameters_to_vector(actor.decision_parameters()).detach()}
    state |= actor.normaliser_part()
    state |= {n: v.contiguous() for n, v in encoder_part(actor.export_state_dict()).items()}
    data = save({name: value for name, value in state.items() if name not in without})
    (folder / "state.safetensors").write_bytes(data)
    write_manifest(
        folder, format=1, spec=json.loads(actor.spec.to_json()),
        state_sha256=hashlib.sha256(data).hexdigest(), extra={"policy_version": version},
    )  # fmt: skip


def write_checkpoint(folder, seed):
    write_state(folder, Actor(SPEC, seed), seed)


@pytest.fixture
def run(tmp_path):
    """A run with three checkpoints."""
    for number in (1, 2, 3):
        write_checkpoint(tmp_path / "checkpoints" / f"{number:06d}", number)
    return tmp_path


def test_read_actor_takes_the_newest_of_a_run_or_one_by_its_name(run):
    for path, number in ((run, 3), (run / "checkpoints", 3), (run / "checkpoints/000002", 2)):
        stored = read_actor(path)
        assert (stored.spec, stored.version) == (SPEC, number)
        expected = Actor(SPEC, number).state_dict()
        assert all((stored.tensors[name] == expected[name]).all() for name in expected)


def test_read_actor_takes_the_normaliser_of_the_demonstrations_and_the_specs_where_there_is_none(
    tmp_path,
):
    actor = Actor(PolicySpec(2, 1, (4,)))
    actor.normaliser.fit(np.array([[0.0, 1.0], [4.0, 3.0]], np.float32))
    write_state(tmp_path / "000001", actor)
    found = read_actor(tmp_path / "000001").tensors
    assert found["normaliser.offset"].tolist() == [2.0, 2.0]
    assert found["normaliser.scale"].tolist() == [2.0, 1.0]
    write_state(tmp_path / "000002", Actor(SPEC), without=actor.normaliser_part())  # earlier ones
    assert read_actor(tmp_path / "000002").tensors["normaliser.scale"].tolist() == [0.25, 5.0]


def alter(file, kind):
    data = bytearray(file.read_bytes())
    file.unlink()
    if kind == "flip":
        data[len(data) // 3] ^= 0x10
    if kind != "gone":
        file.write_bytes(data if kind == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["flip", "cut", "gone"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "state.safetensors"])
def test_read_actor_of_a_damaged_checkpoint_names_the_file_and_the_last_good_one(run, name, kind):
    newest, good = run / "checkpoints/000003", run / "checkpoints/000001"
    alter(newest / name, kind)
    alter(run / "checkpoints/000002" / "state.safetensors", "flip")
    for path in (run, newest):
        with pytest.raises(WeightsError, match=f"{newest}/manifest.*|{newest}/state.*") as refused:
            read_actor(path)
        assert str(refused.value).endswith(f"The last good checkpoint: {good}")


def test_read_actor_with_one_digit_changed_in_the_manifest_raises(run):
    """Regression: it was taken, and the policy saw another state."""
    file = run / "checkpoints/000003/manifest.json"
    file.write_text(file.read_text().replace("0.25", "0.35"))
    with pytest.raises(WeightsError, match="manifest.json.*does not match its hash"):
        read_actor(run)


def test_find_checkpoint_without_its_manifest_is_still_the_newest(run):
    """Regression: the one before it was taken, and nobody knew."""
    newest = run / "checkpoints/000003"
    (newest / "manifest.json").unlink()
    assert find_checkpoint(run) == newest
    for name in ("manifest.sha256", "state.safetensors"):
        (newest / name).unlink()
    assert find_checkpoint(run) == newest


def test_find_checkpoint_ignores_what_is_being_written_or_removed(run):
    for name in (".partial-000004", ".old-000001"):
        write_checkpoint(run / "checkpoints" / name, 9)
    assert find_checkpoint(run).name == "000003"


def test_read_actor_without_a_checkpoint_names_the_folder(tmp_path):
    with pytest.raises(WeightsError, match="found none at"):
        read_actor(tmp_path)
    write_manifest(tmp_path, format=1)
    with pytest.raises(WeightsError, match="found no spec, state_sha256.*checkpoint: none"):
        read_actor(tmp_path)


@pytest.mark.parametrize("frozen", [pytest.param(False, marks=pytest.mark.slow), True])
def test_read_actor_with_an_encoder_gives_the_same_actions(resnet_file, tmp_path, frozen):
    actor, trunk = seeing(4, resnet_file, frozen=frozen)
    write_state(tmp_path, actor)
    stored = read_actor(tmp_path)
    assert stored.spec == actor.spec
    found = NumpyActor(stored.spec, stored.tensors, trunk if frozen else None)
    np.testing.assert_allclose(
        found.act(STATE, images=pictures()), actor.act(STATE, images=pictures()), atol=2e-6
    )
    write_state(tmp_path, actor, without=["encoder.heads.0.norm.bias"])
    with pytest.raises(WeightsError, match="missing .*encoder.heads.0.norm.bias"):
        read_actor(tmp_path)
