"""Stored actors are read as they were saved, or refused: never another one in their place."""

import hashlib
import json

import pytest
from safetensors.torch import save
from torch.nn.utils import parameters_to_vector

from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.stored_actor import find_checkpoint, read_actor
from rlif_policy.weights import WeightsError

SPEC = PolicySpec(2, 1, (4,), state_scale=(0.25, 5.0))


def write_manifest(folder, **values):
    text = json.dumps(values).encode()
    (folder / "manifest.json").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def write_checkpoint(folder, seed):
    """As much of one as a policy looks at, in the learner's format."""
    folder.mkdir(parents=True)
    actor = Actor(SPEC, seed)
    state = save({"actor": parameters_to_vector(actor.parameters()).detach()})
    (folder / "state.safetensors").write_bytes(state)
    write_manifest(
        folder, spec=json.loads(SPEC.to_json()), state_sha256=hashlib.sha256(state).hexdigest(),
        extra={"policy_version": seed},
    )  # fmt: skip
    return actor


@pytest.fixture
def run(tmp_path):
    """A run with three checkpoints."""
    for number in (1, 2, 3):
        write_checkpoint(tmp_path / "checkpoints" / f"{number:06d}", number)
    return tmp_path


def test_the_newest_of_a_run_and_one_by_its_name(run):
    for path, number in ((run, 3), (run / "checkpoints", 3), (run / "checkpoints/000002", 2)):
        stored = read_actor(path)
        assert (stored.spec, stored.version) == (SPEC, number)
        expected = Actor(SPEC, number).state_dict()
        assert all((stored.tensors[name] == expected[name]).all() for name in expected)


def alter(file, kind):
    data = bytearray(file.read_bytes())
    file.unlink()
    if kind == "flip":
        data[len(data) // 3] ^= 0x10
    if kind != "gone":
        file.write_bytes(data if kind == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["flip", "cut", "gone"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "state.safetensors"])
def test_damage_is_named_and_the_last_good_one_offered(run, name, kind):
    newest, good = run / "checkpoints/000003", run / "checkpoints/000001"
    alter(newest / name, kind)
    alter(run / "checkpoints/000002" / "state.safetensors", "flip")
    for path in (run, newest):
        with pytest.raises(WeightsError, match=f"{newest}/manifest.*|{newest}/state.*") as refused:
            read_actor(path)
        assert str(refused.value).endswith(f"The last good checkpoint: {good}")


def test_one_digit_of_the_normaliser_is_enough(run):
    """Regression: it was taken, and the policy saw another state."""
    file = run / "checkpoints/000003/manifest.json"
    file.write_text(file.read_text().replace("0.25", "0.35"))
    with pytest.raises(WeightsError, match="manifest.json is damaged"):
        read_actor(run)


def test_a_newest_one_without_its_manifest_is_still_the_newest(run):
    """Regression: the one before it was taken, and nobody knew."""
    newest = run / "checkpoints/000003"
    (newest / "manifest.json").unlink()
    assert find_checkpoint(run) == newest
    for name in ("manifest.sha256", "state.safetensors"):
        (newest / name).unlink()
    assert find_checkpoint(run) == newest


def test_what_is_being_written_or_removed_is_no_checkpoint(run):
    for name in (".partial-000004", ".old-000001"):
        write_checkpoint(run / "checkpoints" / name, 9)
    assert find_checkpoint(run).name == "000003"


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(WeightsError, match="found none at"):
        read_actor(tmp_path)
    write_manifest(tmp_path, format=1)
    with pytest.raises(WeightsError, match="found no spec, state_sha256.*checkpoint: none"):
        read_actor(tmp_path)
