"""The learner's thread: what it says in which order, and that it never dies silently."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest

from rlif_learner.buffer import Buffers, ReplayBuffer
from rlif_learner.checkpoint import CheckpointStore
from rlif_learner.learner_loop import LearnerLoop, LoopConfig
from rlif_learner.training import Trainer, TrainingConfig
from rlif_policy.weights import unpack_weights

_spec = importlib.util.spec_from_file_location(
    "doubles", Path(__file__).with_name("learner_doubles.py")
)
doubles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(doubles)
episode = doubles.episode


class Rig:
    """A loop and what came out of it, in order."""

    def __init__(self, fails_at=None, store=None, known=True, **config):
        self.log, self.notes, self.changed = [], [], threading.Condition()
        self.algorithm = doubles.CountingAlgorithm(fails_at)
        self.loop = LearnerLoop(
            self.make, self.on_weights, self.on_status, LoopConfig(**config), store,
            self.make(doubles.STATE_DIM) if known else None,
        )  # fmt: skip
        self.loop.start()

    def make(self, state_dim):
        buffers = Buffers(ReplayBuffer(1000, state_dim, doubles.ACTION_DIM))
        return Trainer(self.algorithm, buffers, TrainingConfig())

    def on_weights(self, weights):
        self.note(("weights", weights))

    def on_status(self, status, version, note):
        self.notes.append(note)
        self.note(("status", status))

    def note(self, entry):
        with self.changed:
            self.log.append(entry)
            self.changed.notify_all()

    def wait(self, condition, what, deadline=10.0):
        with self.changed:
            assert self.changed.wait_for(condition, deadline), f"in vain for {what}"

    def caught_up_with(self, steps):
        self.wait(
            lambda: any(k == "status" and v.steps == steps and v.caught_up for k, v in self.log),
            f"{steps} steps",
        )

    def versions(self):
        return [value.version for kind, value in self.log if kind == "weights"]


@pytest.fixture
def make_rig():
    made = []

    def make(**config):
        made.append(Rig(**config))
        return made[-1]

    yield make
    for rig in made:
        if rig.loop.failure() is None:
            rig.loop.stop(10.0)


def test_initial_weights_come_before_the_first_status(make_rig):
    rig = make_rig()
    rig.wait(lambda: len(rig.log) >= 2, "weights and a status")
    assert [kind for kind, _ in rig.log[:2]] == ["weights", "status"]
    assert rig.log[1][1].caught_up
    weights = rig.log[0][1]
    unpack_weights(weights.data, weights.sha256, doubles.SPEC)


def test_without_the_size_of_the_state_weights_come_with_the_first_step(make_rig):
    rig = make_rig(known=False)
    rig.wait(lambda: rig.log, "a status")
    assert rig.log[0][0] == "status" and rig.log[0][1].caught_up
    rig.loop.receive(episode(1, 3, 0)[0])
    rig.wait(lambda: rig.versions() == [1], "initial weights")


def test_at_the_end_of_an_episode_weights_come_before_caught_up(make_rig):
    """The next episode starts on `caught_up`: it must be driven by what was learned."""
    rig = make_rig(publish_every=0)
    sequence = 0
    for number in range(1, 6):
        steps = episode(number, 4, sequence)
        sequence += len(steps)
        for step in steps:
            rig.loop.receive(step)
        rig.caught_up_with(sequence)
        index = next(
            i for i, (k, v) in enumerate(rig.log)
            if k == "status" and v.steps == sequence and v.caught_up
        )  # fmt: skip
        before = [value.version for kind, value in rig.log[:index] if kind == "weights"]
        assert before[-1] == number + 1, "the episode's weights are not out yet"
    assert rig.versions() == sorted(set(rig.versions()))


def test_weights_are_published_every_so_many_updates(make_rig):
    rig = make_rig(publish_every=5)
    for step in episode(1, 22, 0)[:-1]:
        rig.loop.receive(step)
    rig.wait(lambda: rig.algorithm.updates >= 20 and len(rig.versions()) >= 5, "weights")
    assert rig.versions() == [1, 2, 3, 4, 5]


def test_a_status_comes_although_nothing_happens(make_rig):
    rig = make_rig()
    rig.wait(lambda: sum(k == "status" for k, _ in rig.log) >= 2, "two statuses", 5.0)


def test_an_exception_ends_the_thread_and_is_kept(make_rig):
    rig = make_rig(fails_at=3)
    for step in episode(1, 10, 0):
        rig.loop.receive(step)
    end = time.monotonic() + 10.0
    while rig.loop.failure() is None:
        assert time.monotonic() < end, "the failure is not seen"
    assert isinstance(rig.loop.failure(), ArithmeticError)
    with pytest.raises(ArithmeticError, match="critic_loss not finite"):
        rig.loop.stop(5.0)


def test_a_step_of_another_robot_ends_the_thread_with_its_name(make_rig):
    rig = make_rig()
    rig.loop.receive(episode(1, 3, 0, state_dim=7)[0])
    end = time.monotonic() + 10.0
    while rig.loop.failure() is None:
        assert time.monotonic() < end, "the failure is not seen"
    assert "found shape (7,), expected (4,)" in str(rig.loop.failure())


def test_a_checkpoint_on_request_and_one_at_the_end(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(store=store)
    for step in episode(1, 6, 0):
        rig.loop.receive(step)
    rig.caught_up_with(7)
    path = rig.loop.save(10.0)
    manifest = store.verify(path)
    assert manifest["extra"]["steps"] == 7
    assert manifest["extra"]["policy_version"] == max(rig.versions())
    rig.loop.stop(10.0)
    assert len(store.paths()) == 2
    assert rig.loop.failure() is None


def test_a_full_disk_at_a_periodic_checkpoint_does_not_end_the_training(
    make_rig, tmp_path, monkeypatch
):
    store = CheckpointStore(tmp_path)
    whole, full = store.save, threading.Event()
    full.set()

    def save(*args, **kwargs):
        if full.is_set():
            raise OSError("No space left on device")
        return whole(*args, **kwargs)

    monkeypatch.setattr(store, "save", save)
    rig = make_rig(store=store, checkpoint_every=5)
    for step in episode(1, 8, 0):
        rig.loop.receive(step)
    rig.caught_up_with(9)  # the next episode does not wait for the disk
    assert rig.notes[-1] == (
        "no checkpoint at update 5, tried again 5 updates later: No space left on device"
    )
    assert store.paths() == []
    full.clear()
    for step in episode(2, 8, 9):
        rig.loop.receive(step)
    rig.caught_up_with(18)
    assert len(store.paths()) >= 1 and rig.notes[-1] == ""
    assert rig.loop.failure() is None


def test_without_a_directory_a_checkpoint_is_refused_in_words(make_rig):
    with pytest.raises(ValueError, match="checkpoint_directory"):
        make_rig().loop.save(1.0)


@pytest.mark.parametrize(
    "values", [{"publish_every": -1}, {"checkpoint_every": -1}, {"torch_threads": 0}]
)
def test_a_wrong_setting_is_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        LoopConfig(**values)
