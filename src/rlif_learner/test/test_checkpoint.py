"""Nothing is lost: exact resume after a kill at any moment, and no bad checkpoint gets in."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlif_learner import checkpoint
from rlif_learner.buffer import Buffers, ReplayBuffer
from rlif_learner.checkpoint import CheckpointStore, DamagedError, MismatchError
from rlif_learner.config import RLPDConfig
from rlif_learner.rlpd import RLPD
from rlif_learner.steps import StepRecord
from rlif_policy.networks import PolicySpec

SPEC = PolicySpec(state_dim=3, action_dim=1, hidden=(8, 8))
CONFIG = RLPDConfig(hidden=(8, 8), ensemble_size=3, utd=2, batch_size=8)
EPISODE = 12


def step_number(n):
    """The n-th step of a run: a function of n alone, so that a resumed run sees the same."""
    rng = np.random.default_rng(n)
    t, last = n % EPISODE, n % EPISODE == EPISODE - 1
    onset = t == 6
    return StepRecord(
        n, 1 + n // EPISODE, t, t == 0, last, 3 if last else 0, 0 if last else 1 + (5 < t < 8),
        onset, int(onset), False, rng.normal(size=3).astype(np.float32),
        np.zeros(0) if last else rng.uniform(-1, 1, 1), (rng.integers(0, 255, (4, 4, 3), np.uint8),),
    )  # fmt: skip


def make_buffers(capacity=50):
    return Buffers(*(ReplayBuffer(capacity, 3, 1, ((4, 4, 3),)) for _ in range(2)))


def fresh_run(seed=0):
    buffers = make_buffers()
    buffers.prior.add_episode(step_number(n) for n in range(2 * EPISODE))
    return RLPD(CONFIG, SPEC, seed), buffers


def advance(learner, buffers):
    """Three steps and an update."""
    for _ in range(3):
        buffers.online.add_step(step_number(buffers.online.total))
    learner.update(buffers)


def everything(learner, buffers):
    """All of the state, as comparable bytes."""
    found = {k: v.numpy().tobytes() for k, v in learner.state_tensors().items()}
    found["values"] = json.dumps(learner.state_values(), sort_keys=True).encode()
    for name, buffer in (("online", buffers.online), ("prior", buffers.prior)):
        found[f"{name} state"] = json.dumps(buffer.state()).encode()
        found[f"{name} length"] = str(len(buffer)).encode()
        oldest = max(0, buffer.total - buffer.capacity)
        for key, rows in buffer.read_rows(range(oldest, buffer.total)).items():
            found[f"{name} {key}"] = rows.tobytes()
    return found


def resume(store):
    learner, buffers = fresh_run(seed=99)
    path = store.last_good()
    if path is None:
        return fresh_run()
    store.load(path, learner, buffers)
    return learner, buffers


@pytest.fixture
def saved(tmp_path):
    """A run of 10 updates with a checkpoint after 5 and after 10."""
    store, (learner, buffers) = CheckpointStore(tmp_path), fresh_run()
    for i in range(1, 11):
        advance(learner, buffers)
        if i % 5 == 0:
            path = store.save(learner, buffers, extra={"steps": i})
    return store, path, learner, buffers


def test_resume_is_exact_and_goes_on_exactly(saved):
    store, path, learner, buffers = saved
    again = fresh_run(seed=99)
    assert CheckpointStore(store.root).load(path, *again) == {"steps": 10}
    assert everything(*again) == everything(learner, buffers)
    for _ in range(10):  # beyond the wrap-around of the buffer
        advance(learner, buffers)
        advance(*again)
    assert everything(*again) == everything(learner, buffers)


def test_the_actor_is_restored(saved):
    """Regression: resume rebuilt the critics and the step count, and a random actor."""
    store, path, learner, _ = saved
    again, buffers = fresh_run(seed=99)
    state = np.ones(3)
    assert not np.array_equal(again.actor.act(state), learner.actor.act(state))
    store.load(path, again, buffers)
    assert np.array_equal(again.actor.act(state), learner.actor.act(state))


TOTAL_UPDATES = 12


def run_to_end(root, kill_after):
    """The whole run, with a checkpoint at every other update; killed at the n-th file operation."""
    operations = 0

    def count():
        nonlocal operations
        operations += 1
        if operations == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        def call(*args, **kwargs):
            count()
            result = function(*args, **kwargs)
            count()
            return result

        return call

    originals = os.fsync, os.rename
    os.fsync, os.rename = map(counted, originals)
    try:
        store = CheckpointStore(root, keep_last=2)
        learner, buffers = resume(store)
        while learner.updates < TOTAL_UPDATES:
            advance(learner, buffers)
            count()
            if learner.updates % 2 == 0:
                store.save(learner, buffers)
    finally:
        os.fsync, os.rename = originals
    return operations, learner, buffers


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    operations, *run = run_to_end(tmp_path_factory.mktemp("whole"), kill_after=0)
    return operations, everything(*run)


@pytest.mark.parametrize("attempt", range(10))
def test_killed_at_a_random_moment_and_resumed_equals_never_killed(
    attempt, tmp_path, uninterrupted
):
    operations, expected = uninterrupted
    moment = random.Random(attempt).randint(1, operations)
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=run_to_end, args=(tmp_path, moment))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, f"not killed at operation {moment} of {operations}"
    _, *run = run_to_end(tmp_path, kill_after=0)
    assert everything(*run) == expected


def test_kill_between_updates_keeps_the_old_until_the_new_is_complete(tmp_path):
    """Regression: a checkpoint deleted the old buffer before it wrote the new one."""
    store, (learner, buffers) = CheckpointStore(tmp_path, keep_last=1), fresh_run()
    advance(learner, buffers)
    first = store.save(learner, buffers)
    original, advances = os.rename, learner.updates

    def fail(*args):
        raise OSError("disk is full")

    advance(learner, buffers)
    os.rename = fail
    try:
        with pytest.raises(OSError, match="disk is full"):
            store.save(learner, buffers)
    finally:
        os.rename = original
    assert CheckpointStore(tmp_path).last_good() == first
    again = fresh_run(seed=99)
    CheckpointStore(tmp_path).load(first, *again)
    assert again[0].updates == advances
    store.save(learner, buffers)  # and the next one is complete
    CheckpointStore(tmp_path).load(store.last_good(), *again)
    assert everything(*again) == everything(learner, buffers)


@pytest.mark.parametrize("kind", ["flip", "cut", "gone"])
@pytest.mark.parametrize(
    "which", ["manifest.json", "manifest.sha256", "state.safetensors", "segment"]
)
def test_damage_is_recognised_and_the_last_good_one_offered(saved, which, kind):
    store, path, *_ = saved
    good = store.paths()[0]
    shared = {s["file"] for s in store.verify(good)["buffers"]["online"]["segments"]}
    own = [
        s for s in store.verify(path)["buffers"]["online"]["segments"] if s["file"] not in shared
    ]
    file = store.segments / own[0]["file"] if which == "segment" else path / which
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0x10
    file.unlink()
    if kind != "gone":
        file.write_bytes(data if kind == "flip" else data[: len(data) // 2])
    learner, buffers = fresh_run(seed=99)
    before = everything(learner, buffers)
    with pytest.raises(DamagedError, match=f"{file.stem}.*last good checkpoint.*{good.name}"):
        store.load(path, learner, buffers)
    assert everything(learner, buffers) == before
    store.load(store.last_good(), learner, buffers)
    assert learner.updates == 5


def test_other_configuration_is_refused_with_each_difference_named(saved):
    store, path, *_ = saved
    other = RLPD(replace(CONFIG, utd=4, tau=0.1), SPEC)
    with pytest.raises(MismatchError, match=r"config.tau is 0.005, expected 0.1; config.utd is 2"):
        store.load(path, other, make_buffers())


def test_other_network_buffer_scheme_and_format_are_refused(saved, monkeypatch):
    store, path, learner, buffers = saved
    other = RLPD(CONFIG, PolicySpec(3, 1, (16, 16)))
    with pytest.raises(MismatchError, match=r"spec.hidden is \[8, 8\], expected \[16, 16\]"):
        store.load(path, other, make_buffers())
    with pytest.raises(MismatchError, match="online buffer.capacity is 50, expected 60"):
        store.load(path, learner, make_buffers(60))
    with pytest.raises(MismatchError, match="buffers is"):
        store.load(path, learner, Buffers(buffers.online))
    scheme = Buffers(ReplayBuffer(50, 3, 1, ((4, 4, 3),), scheme="every_step"), buffers.prior)
    with pytest.raises(MismatchError, match="scheme is 'onset', expected 'every_step'"):
        store.load(path, learner, scheme)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(MismatchError, match="format 1, expected 2"):
        store.load(path, learner, buffers)


def test_a_checkpoint_writes_only_the_new_steps(tmp_path):
    store, (learner, buffers) = CheckpointStore(tmp_path), fresh_run()
    buffers = Buffers(ReplayBuffer(5000, 3, 1, ((4, 4, 3),)), buffers.prior)
    for total in (2000, 3000):
        while buffers.online.total < total:
            buffers.online.add_step(step_number(buffers.online.total))
        before = set(store.segments.iterdir())
        store.save(learner, buffers)
        new = set(store.segments.iterdir()) - before
    row = sum(column[:1].nbytes for column in buffers.online.columns.values())
    assert len(new) == 1  # of the online buffer; prior data did not change
    assert sum(path.stat().st_size for path in new) < 1.05 * 1000 * row + 2000


def test_keeps_the_last_and_the_best_and_no_segment_too_many(tmp_path):
    store, (learner, buffers) = CheckpointStore(tmp_path, keep_last=2), fresh_run()
    for score in (0.1, 0.9, 0.2, None, 0.3):
        for _ in range(12):
            advance(learner, buffers)
        store.save(learner, buffers, score=score)
    assert [path.name for path in store.paths()] == ["000002", "000004", "000005"]
    assert store.best().name == "000002"
    needed = {
        segment["file"]
        for path in store.paths()
        for buffer in store.verify(path)["buffers"].values()
        for segment in buffer["segments"]
    }
    assert needed == {path.name for path in store.segments.iterdir()}


def test_a_run_never_removes_what_another_run_has_written(saved):
    """Regression: a fresh learner in a used directory numbered on, and pruned the first run's."""
    store, path, learner, buffers = saved
    first, expected = store.paths(), everything(learner, buffers)
    other, (fresh, empty) = CheckpointStore(store.root, keep_last=1), fresh_run(seed=7)
    for _ in range(3):
        advance(fresh, empty)
        newest = other.save(fresh, empty, score=1.0)
    assert other.paths() == [*first, newest]
    again = fresh_run(seed=99)
    store.load(path, *again)
    assert everything(*again) == expected
    resumed = CheckpointStore(store.root, keep_last=1)  # to go on makes them its own
    resumed.load(path, *again)
    latest = resumed.save(*again)
    assert resumed.paths() == [newest, latest], "the best one, and the last"


def test_segments_that_were_overwritten_in_all_checkpoints_are_removed(tmp_path):
    store, (learner, buffers) = CheckpointStore(tmp_path, keep_last=1), fresh_run()
    for _ in range(5):
        for _ in range(12):
            advance(learner, buffers)
        store.save(learner, buffers)
    oldest = buffers.online.total - buffers.online.capacity
    online = [path.name for path in store.segments.glob("online-*")]
    assert len(online) == 2
    assert all(int(name.split("-")[2].split(".")[0]) > oldest for name in online)


def test_no_pickle_on_the_disk(saved):
    store, *_ = saved
    suffixes = {path.suffix for path in store.root.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".sha256", ".safetensors"}
