# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost: resuming is exact, and no bad checkpoint gets in."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import threading
from dataclasses import replace

import checkpoint_runs as runs
import numpy as np
import pytest
import torch
from waiting import scaled

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.data import checkpoint
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore, DamagedError, MismatchError
from rlif_learner.data.sampling import Buffers
from rlif_policy import checkpoint_files
from rlif_policy.networks import PolicySpec

SPEC, CONFIG = runs.SPEC, runs.CONFIG
make_buffers, fresh_run, advance = runs.make_buffers, runs.fresh_run, runs.advance
everything, advance_without_learning = runs.everything, runs.advance_without_learning
step_number = runs.step_number


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


def test_a_checkpoint_of_a_gpu_goes_on_here_with_other_random_numbers(saved):
    """Regression: a traceback, after buffers and weights had been overwritten. The state of a GPU's
    generator has 16 bytes."""
    store, path, learner, buffers = saved
    manifest, tensors = checkpoint.read_state(path)
    tensors["generator"] = torch.arange(16, dtype=torch.uint8)
    found = []
    for _ in range(2):
        again, buffers = fresh_run(seed=99)
        store.load(path, again, buffers)
        with pytest.warns(UserWarning, match="another kind of device than cpu"):
            again.load_state(tensors, manifest["values"])
        advance(again, buffers)
        found.append(everything(again, buffers))
    assert found[0] == found[1], "the same ones each time"


def test_the_actor_is_restored(saved):
    """Regression: resume rebuilt the critics and the step count, and a random actor."""
    store, path, learner, _ = saved
    again, buffers = fresh_run(seed=99)
    state = np.ones(3)
    assert not np.array_equal(again.actor.act(state), learner.actor.act(state))
    store.load(path, again, buffers)
    assert np.array_equal(again.actor.act(state), learner.actor.act(state))


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


def test_damage_found_on_the_way_leaves_empty_buffers_empty(saved):
    """A segment is read once, as it is put in; one that is damaged may come last."""
    store, path, *_ = saved
    file = store.segments / store.verify(path)["buffers"]["prior"]["segments"][-1]["file"]
    file.write_bytes(file.read_bytes()[:-1])
    learner, buffers = RLPD(CONFIG, SPEC, 99), make_buffers()
    before = everything(learner, buffers)
    with pytest.raises(DamagedError, match=f"{file.name}.*last good checkpoint: none"):
        store.load(path, learner, buffers)
    assert everything(learner, buffers) == before
    advance_without_learning(buffers)
    assert len(buffers.online) == 2


def test_loading_reads_each_segment_once(saved, monkeypatch):
    store, path, *_ = saved
    reads, original = [], checkpoint.read_checked

    def read(file, sha256):
        reads.append(file)
        return original(file, sha256)

    monkeypatch.setattr(checkpoint, "read_checked", read)
    store.load(path, RLPD(CONFIG, SPEC, 99), make_buffers())
    assert len(reads) == len(set(reads))


def rewrite_manifest(path, change):
    """As if it had been written so: with its hash."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(text)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize("part", [0, -1])
def test_segments_that_do_not_cover_the_buffer_are_refused(saved, part):
    store, path, *_ = saved
    rewrite_manifest(path, lambda m: m["buffers"]["online"]["segments"].pop(part))
    run = RLPD(CONFIG, SPEC, 99), make_buffers()
    before = everything(*run)
    with pytest.raises(DamagedError, match="no segment holds step .* of the online buffer"):
        store.load(path, *run)
    assert everything(*run) == before
    assert store.last_good() == store.paths()[0]


def test_two_stores_of_one_run_are_both_complete(tmp_path):
    """Regression: what the one had saved, the other took for saved, and left out."""
    stores = [CheckpointStore(tmp_path / name) for name in ("one", "two")]
    learner, buffers = fresh_run()
    for turn in range(8):
        advance(learner, buffers)
        path = stores[turn % 2].save(learner, buffers)
        again = fresh_run(seed=99)
        stores[turn % 2].load(path, *again)
        assert everything(*again) == everything(learner, buffers), f"turn {turn}"


def test_one_store_for_two_runs_in_turn_is_complete(tmp_path):
    store, runs = CheckpointStore(tmp_path, keep_last=9), [fresh_run(seed) for seed in (0, 1)]
    for turn in range(6):
        run = runs[turn % 2]
        for _ in range(1 + turn % 2):
            advance(*run)
        again = fresh_run(seed=99)
        store.load(store.save(*run), *again)
        assert everything(*again) == everything(*run), f"turn {turn}"


def test_segments_that_another_store_removed_are_written_again(tmp_path):
    """Two stores in one directory: the second prunes what the first has not named yet."""
    first, (learner, buffers) = CheckpointStore(tmp_path), fresh_run()
    advance(learner, buffers)
    first.save(learner, buffers)
    for segment in first.segments.iterdir():
        segment.unlink()
    again = fresh_run(seed=99)
    first.load(first.save(learner, buffers), *again)
    assert everything(*again) == everything(learner, buffers)


def test_steps_are_added_while_a_checkpoint_goes_to_the_disk(tmp_path, monkeypatch):
    """Regression: whoever added a step waited for the disk."""
    store, (learner, buffers) = CheckpointStore(tmp_path), fresh_run()
    advance(learner, buffers)
    monkeypatch.setattr(checkpoint, "SEGMENT_BYTES", 400)  # several parts
    original, added = os.fsync, []

    def fsync(descriptor):
        original(descriptor)
        if len(added) < 5:
            adding = threading.Thread(target=advance_without_learning, args=(buffers, 1))
            adding.start()
            adding.join(10)
            assert not adding.is_alive(), "adding waits for the disk"
            added.append(1)

    monkeypatch.setattr(os, "fsync", fsync)
    path = store.save(learner, buffers)
    monkeypatch.undo()
    again, same = fresh_run(seed=99), fresh_run()
    store.load(path, *again)
    advance(*same)
    saved_to = again[1].online.total
    advance_without_learning(same[1], saved_to - 3)
    assert saved_to > 3 and everything(*again) == everything(*same), "of one moment"
    store.load(store.save(learner, buffers), *again)
    assert everything(*again) == everything(learner, buffers)


def test_rows_that_could_not_be_written_are_written_the_next_time(tmp_path, monkeypatch):
    store, (learner, buffers) = CheckpointStore(tmp_path), fresh_run()
    advance(learner, buffers)
    store.save(learner, buffers)
    monkeypatch.setattr(checkpoint, "SEGMENT_BYTES", 400)
    original, calls = os.fsync, []

    def fail(descriptor):
        calls.append(1)
        if len(calls) == 5:
            raise OSError("disk is full")
        original(descriptor)

    for _ in range(3):
        advance(learner, buffers)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        store.save(learner, buffers)
    monkeypatch.undo()
    again = fresh_run(seed=99)
    store.load(store.save(learner, buffers), *again)
    assert everything(*again) == everything(learner, buffers)


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
    failure = Buffers(ReplayBuffer(50, 3, 1, ((4, 4, 3),), failure_reward=-20.0), buffers.prior)
    with pytest.raises(MismatchError, match=r"failure_reward is 0.0, expected -20.0"):
        store.load(path, learner, failure)
    monkeypatch.setattr(checkpoint_files, "FORMAT", 2)
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


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused(saved, score):
    store, path, learner, buffers = saved
    with pytest.raises(ValueError, match=f"score: found {score}, expected a finite number"):
        store.save(learner, buffers, score=score)
    assert store.paths()[-1] == path and store.best() is None


def test_a_checkpoint_that_does_not_know_a_newer_setting_has_its_default(saved):
    _, path, learner, buffers = saved
    rewrite_manifest(path, lambda m: m["config"].pop("clip_positive_values"))
    again = fresh_run(seed=99)
    CheckpointStore(path.parents[1]).load(path, *again)
    assert everything(*again) == everything(learner, buffers)


def test_a_checkpoint_of_another_format_is_neither_the_last_good_one_nor_in_the_way(saved):
    """Regression: `last_good` failed on it."""
    store, path, learner, buffers = saved
    good = store.paths()[0]
    rewrite_manifest(path, lambda m: [m.update(format=2), m.pop("score"), m.pop("buffers")])
    assert store.last_good() == good and store.best() is None
    with pytest.raises(MismatchError, match="found format 2, expected 1"):
        store.load(path, *fresh_run(seed=99))
    with pytest.raises(MismatchError, match="found format 2, expected 1"):
        store.manifest(path)
    before = set(store.segments.iterdir())
    newest = store.save(learner, buffers)
    assert before <= set(store.segments.iterdir()), "who knows what the other one needs"
    assert store.last_good() == newest


def test_a_damaged_manifest_is_refused_with_the_last_good_one_offered(saved):
    store, path, *_ = saved
    good = store.paths()[0]
    assert store.manifest(path)["extra"] == {"steps": 10}
    (path / "manifest.json").unlink()
    with pytest.raises(DamagedError, match=f"manifest.json.*last good checkpoint: {good}"):
        store.manifest(path)


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


SEED = 0
CLOCK_KILLS = 5


@pytest.fixture(scope="module")
def children():
    """Starts processes that have imported everything: what is killed is the run, not the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["rlif_learner.algorithms.rlpd", "rlif_learner.data.checkpoint", "pytest"]
    )
    return context


class Reference:
    """A run that is never saved, resumed or killed: its state after each number of updates."""

    def __init__(self):
        self.run, self.states = runs.fresh_run(), []

    def state(self, updates):
        while len(self.states) <= updates:
            self.states.append(runs.everything(*self.run))
            runs.advance(*self.run)
        return self.states[updates]


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    return Reference()


def check_resumed(root, reference):
    """All of the state is that of the reference, at an update after which a checkpoint is due."""
    learner, buffers = runs.resume(CheckpointStore(root))
    assert learner.updates % runs.SAVE_EVERY == 0
    assert runs.everything(learner, buffers) == reference.state(learner.updates)
    return learner.updates


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_killed_at_every_stage_resumes_exactly(tmp_path, children, reference):
    """Each child goes on in the directory as the kill before left it.

    Regression: two of ten kills came at the same moment; none within an update or a removal.
    """
    stages, rng = sorted(runs.STAGES), random.Random(SEED)
    rng.shuffle(stages)
    resumed = []
    for stage in stages:
        child = children.Process(
            target=runs.run_watched, args=(tmp_path, stage, rng.randrange(3), runs.MOST_UPDATES)
        )
        child.start()
        child.join(scaled(60))
        assert child.exitcode == -signal.SIGKILL, f"not killed {stage}"
        resumed.append(check_resumed(tmp_path, reference))
    assert resumed == sorted(resumed), "a kill must not cost an older checkpoint"
    assert resumed[-1] * runs.STEPS_PER_UPDATE > runs.CAPACITY, (
        "the buffer must have wrapped around"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_killed_by_the_clock_resumes_exactly(tmp_path, children, reference):
    """At moments that no test chose, in compiled code or in the system's."""
    rng = random.Random(SEED)
    for _ in range(CLOCK_KILLS):
        begins = children.Event()
        child = children.Process(target=runs.run_until_killed, args=(tmp_path, begins))
        child.start()
        assert begins.wait(scaled(60)), "the child did not begin"
        child.join(rng.uniform(0.0, 0.3))  # it does not end: this is the clock
        os.kill(child.pid, signal.SIGKILL)
        child.join(scaled(60))
        assert child.exitcode == -signal.SIGKILL
        check_resumed(tmp_path, reference)
