# SPDX-License-Identifier: Apache-2.0
"""The learner's thread: what it says in which order, and that it never dies silently."""

import threading
import time
from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest
import torch
from waiting import scaled, wait_until

from rlif_learner import learner_loop
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.counts import SCORED_EPISODES
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome
from rlif_learner.learner_loop import (
    LearnerLoop,
    LoopConfig,
    TrainingEndedError,
)
from rlif_learner.status_notes import RATED_UPDATES
from rlif_learner.training import Trainer, TrainingConfig
from rlif_policy.checkpoint_files import MismatchError
from rlif_policy.weights import unpack_weights

episode = doubles.episode
DEADLINE = scaled(20.0)  # s


class Rig:
    """A loop and what came out of it, in order."""

    def __init__(
        self, fails_at=None, error=ArithmeticError, store=None, known=True, no_room=(), **config
    ):  # fmt: skip
        self.no_room = list(no_room)  # raised by the first tries to make buffers
        self.log, self.notes, self.changed = [], [], threading.Condition()
        self.algorithm = doubles.CountingAlgorithm(fails_at, error)
        self.trainer = None
        self.robots = config.get("robots", ())
        self.loop = LearnerLoop(
            self.make, self.on_weights, self.on_status, LoopConfig(**config), store,
            self.make(doubles.STATE_DIM) if known else None,
        )  # fmt: skip
        self.loop.start()

    def make(self, state_dim):
        if self.no_room:
            raise self.no_room.pop()
        interleaved = bool(self.robots)
        buffers = Buffers(
            ReplayBuffer(1000, state_dim, doubles.ACTION_DIM, interleaved=interleaved)
        )
        self.trainer = Trainer(self.algorithm, buffers, TrainingConfig(robots=self.robots))
        return self.trainer

    def on_weights(self, weights):
        self.note(("weights", weights))

    def on_status(self, status, version, note):
        self.notes.append(note)
        self.note(("status", status))

    def note(self, entry):
        with self.changed:
            self.log.append(entry)
            self.changed.notify_all()

    def wait(self, condition, what):
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE), f"waited in vain for {what}"

    def caught_up_with(self, steps):
        self.wait(
            lambda: any(k == "status" and v.steps == steps and v.caught_up for k, v in self.log),
            f"{steps} steps",
        )

    def send(self, steps):
        for step in steps:
            self.loop.receive(step)

    def noted(self, words):
        self.wait(lambda: any(words in note for note in self.notes), words)

    def failed(self):
        return wait_until(self.loop.failure, "the failure")

    def progress(self, store):
        """Steps and updates of the newest checkpoint."""
        manifest = store.verify(store.paths()[-1])
        return manifest["extra"]["steps"], manifest["values"]["updates"]

    def versions(self):
        return [value.version for kind, value in self.log if kind == "weights"]


@pytest.fixture
def make_rig(monkeypatch, tmp_path):  # rigs write there until they are stopped
    monkeypatch.setattr(learner_loop, "STATUS_PERIOD", 0.05)
    made = []

    def make(**config):
        made.append(Rig(**config))
        return made[-1]

    yield make
    for rig in made:
        if rig.loop.failure() is None:
            rig.loop.stop(DEADLINE)


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


def slow(algorithm, gate):
    """Its updates wait for `gate`, a semaphore."""
    update = algorithm.update

    def wait_and_update(buffers):
        assert gate.acquire(timeout=DEADLINE)
        return update(buffers)

    algorithm.update = wait_and_update


@pytest.mark.parametrize("publish_every", [0, 1000])
def test_weights_are_published_by_time_while_the_learner_is_behind(
    make_rig, monkeypatch, publish_every
):
    """Regression: version 2 for a quarter of an hour, since the backlog was never worked through."""
    monkeypatch.setattr(learner_loop, "PUBLISH_PERIOD", 0.0)
    rig, gate = make_rig(publish_every=publish_every), threading.Semaphore(0)
    slow(rig.algorithm, gate)
    rig.send([*episode(1, 4, 0), *episode(2, 40, 5)])
    gate.release()  # after this one all Steps are taken in
    wait_until(lambda: rig.algorithm.updates == 1, "an update")
    for version in rig.versions()[-1] + np.arange(1, 4):
        gate.release()
        rig.wait(lambda v=version: rig.versions()[-1] >= v, f"version {version}")
        assert not rig.trainer.caught_up
    gate.release(100)


def test_weights_do_not_change_within_an_episode_where_only_ends_publish(make_rig, monkeypatch):
    """What the policy does in an episode must not depend on the machine's speed."""
    monkeypatch.setattr(learner_loop, "PUBLISH_PERIOD", 0.0)
    rig = make_rig(publish_every=0)
    *running, end = episode(1, 20, 0)
    rig.send(running)
    rig.caught_up_with(20)
    assert rig.versions() == [1]
    rig.loop.receive(end)
    rig.wait(lambda: len(rig.versions()) >= 2, "the episode's weights")


def test_a_backlog_that_is_too_long_is_dropped_when_an_episode_begins_and_reported(make_rig):
    rig, gate = make_rig(longest_backlog=1e-9), threading.Semaphore(0)
    slow(rig.algorithm, gate)
    gate.release(2)  # the first one is not timed
    rig.send(episode(1, 9, 0))
    wait_until(lambda: rig.algorithm.updates == 2, "two updates")
    rig.loop.receive(episode(2, 9, 10)[0])
    gate.release(2)  # the one that waits, and the one that is due for the new Step
    rig.noted("behind: the machine makes ")
    assert rig.trainer.buffers.online.total == 11, "the Steps stay"
    assert rig.trainer.dropped_updates == 7
    gate.release(100)
    rig.send(episode(2, 9, 10)[1:])
    rig.caught_up_with(20)
    rig.wait(lambda: rig.notes[-1] == "", "the note's end")
    assert rig.trainer.status().updates == 13


def test_a_machine_that_is_too_slow_is_reported_once_and_chases_no_backlog(make_rig):
    rig, gate = make_rig(longest_backlog=1e9, step_rate=1e9), threading.Semaphore(0)
    slow(rig.algorithm, gate)
    gate.release(RATED_UPDATES)
    rig.send(episode(1, 19, 0))
    rig.noted("updates_per_step asks for 1 per Step, 1e+09 per second")
    rig.send(episode(2, 9, 20))
    gate.release(100)
    rig.caught_up_with(30)
    # 13 of the 14 that are due wait when the episode begins, one is under way.
    assert rig.trainer.dropped_updates == 13 and rig.algorithm.updates == 17
    assert len({note for note in rig.notes if note}) == 1, "one text, which stays"
    assert rig.notes[-1], "it is still too slow, though it has caught up"


def test_a_backlog_is_not_dropped_unless_asked(make_rig):
    rig = make_rig()
    for number in range(1, 5):
        rig.send(episode(number, 9, 10 * (number - 1)))
    rig.caught_up_with(40)
    assert rig.trainer.status().updates == 40


def test_buffers_without_room_drop_steps_and_are_tried_again(make_rig, monkeypatch):
    """Regression: a full disk at the first Step ended the training."""
    full = OSError(28, "image_directory: needs 1.00 GB: No space left on device")
    rig = make_rig(known=False, no_room=[full])
    rig.send(episode(1, 3, 0))
    rig.noted("no buffers, tried again after 10 s: [Errno 28] image_directory: needs 1.00 GB")
    assert rig.trainer is None and rig.loop.failure() is None
    rig.loop._make_at = 0.0
    rig.send(episode(2, 3, 4))
    rig.caught_up_with(4)
    assert rig.trainer.counts.lost == 4


def test_a_checkpoint_comes_by_time_where_anything_is_new(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(store=store, checkpoint_period=0.05)
    rig.send(episode(1, 6, 0))
    rig.wait(lambda: store.paths() and rig.progress(store) == (7, 7), "a checkpoint of all of it")
    saved = len(store.paths())
    statuses = len(rig.log)
    rig.wait(lambda: len(rig.log) >= statuses + 4, "more statuses, 0.05 s apart")
    assert len(store.paths()) == saved, "nothing was new"


def test_a_checkpoint_by_time_that_fails_is_reported_and_tried_again(
    make_rig, tmp_path, monkeypatch
):
    store = CheckpointStore(tmp_path)
    whole, problems = store.save, [OSError("No space left on device")]

    def save(*args, **kwargs):
        if problems:
            raise problems.pop()
        return whole(*args, **kwargs)

    monkeypatch.setattr(store, "save", save)
    rig = make_rig(store=store, checkpoint_period=0.05)
    rig.send(episode(1, 6, 0))
    rig.noted("no checkpoint by time, tried again 0.05 s later: No space left on device")
    rig.wait(lambda: store.paths() and rig.progress(store) == (7, 7), "the next one")
    rig.wait(lambda: rig.notes[-1] == "", "the note's end")


def test_a_status_comes_although_nothing_happens(make_rig):
    rig = make_rig()
    rig.wait(lambda: sum(k == "status" for k, _ in rig.log) >= 2, "two statuses")


def test_an_exception_ends_the_thread_and_is_kept(make_rig):
    rig = make_rig(fails_at=3)
    rig.send(episode(1, 10, 0))
    assert isinstance(rig.failed(), ArithmeticError)
    with pytest.raises(ArithmeticError, match="critic_loss not finite"):
        rig.loop.stop(DEADLINE)


def test_a_thread_that_fails_saves_first(make_rig, tmp_path):
    """Regression: the last checkpoint was skipped."""
    store = CheckpointStore(tmp_path)
    rig = make_rig(fails_at=3, store=store)
    rig.send(episode(1, 10, 0))
    assert isinstance(rig.failed(), ArithmeticError)
    manifest = store.verify(store.last_good())
    assert (manifest["values"]["updates"], manifest["extra"]["steps"]) == (3, 11)


def test_a_failure_is_not_hidden_by_one_of_the_last_checkpoint(make_rig, tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)

    def save(*args, **kwargs):
        raise RuntimeError("no save either")

    monkeypatch.setattr(store, "save", save)
    rig = make_rig(fails_at=3, store=store)
    rig.send(episode(1, 10, 0))
    assert isinstance(rig.failed(), ArithmeticError)
    assert "no save either" in str(rig.failed().__cause__)


def test_an_update_that_is_not_finite_ends_the_updates_and_nothing_else(make_rig, tmp_path):
    """Regression: it ended the thread, without a checkpoint, and the Steps from then on were lost."""
    store = CheckpointStore(tmp_path)
    rig = make_rig(fails_at=3, error=NonFiniteError, store=store, publish_every=0)
    rig.send(episode(1, 10, 0))
    rig.noted("stopped: no more updates, Steps are still recorded: critic_loss not finite")
    first = store.verify(store.last_good())
    assert first["values"]["updates"] == 3
    weights = [value for kind, value in rig.log if kind == "weights"][-1]
    published = unpack_weights(weights.data, weights.sha256, doubles.SPEC)
    for name, tensor in rig.algorithm.policy.state_dict().items():
        assert torch.equal(published[name], tensor), "the last good weights, of update 3"
    assert weights.version == first["extra"]["policy_version"]
    rig.send(episode(2, 20, 11))
    rig.caught_up_with(32)  # nobody waits for updates that do not come
    assert rig.loop.failure() is None and "stopped" in rig.notes[-1]
    rig.loop.stop(DEADLINE)
    last = store.verify(store.last_good())
    assert (last["values"]["updates"], last["extra"]["steps"]) == (3, 32)
    assert last["buffers"]["online"]["state"]["total"] == 32
    fresh = rig.make(doubles.STATE_DIM)
    store.load(store.last_good(), fresh.algorithm, fresh.buffers)
    assert len(fresh.buffers.online) == 30


def test_weights_that_are_not_finite_are_neither_published_nor_saved(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(fails_at=3, error=NonFiniteError, store=store, publish_every=0)
    rig.wait(rig.versions, "the initial weights")
    with torch.no_grad():
        next(rig.algorithm.policy.parameters()).fill_(float("nan"))
    rig.send(episode(1, 10, 0))
    rig.noted("the policy keeps version 1: weights are not finite")
    assert rig.versions() == [1] and store.paths() == []
    with pytest.raises(ValueError, match="not finite"):
        rig.loop.save(DEADLINE)
    with pytest.raises(ValueError, match="not finite"):
        rig.loop.stop(DEADLINE)


def broken(step, kind):
    """A Step that no buffer takes."""
    if kind == "shape":
        return replace(step, state=np.zeros(7, np.float32))
    if kind == "action":
        return replace(step, action=np.array([0.0, np.inf], np.float32))
    return replace(step, state=np.full(doubles.STATE_DIM, np.nan, np.float32))


@pytest.mark.parametrize("kind", ["shape", "state", "action"])
def test_a_step_that_cannot_be_taken_in_is_dropped_and_joins_nothing(make_rig, kind):
    """Regression: one Step with a NaN ended the training."""
    rig = make_rig()
    steps = episode(1, 8, 0, takeover=5)
    steps[4] = broken(steps[4], kind)  # before the take-over: nobody knows what was wrong
    rig.send([*steps, *episode(2, 4, 9)])
    rig.caught_up_with(13)
    rig.noted("Steps dropped: 1, the last: ")
    status = [value for kind, value in rig.log if kind == "status"][-1]
    assert (status.lost_steps, status.steps, status.updates) == (1, 13, 13)
    buffer = rig.trainer.buffers.online
    assert buffer.total == 13 and not buffer.columns["valid"][3], "joined across the gap"
    assert not buffer.columns["reward"].any()
    assert len(buffer) == 3 + 3 + 4
    assert rig.loop.failure() is None


def test_with_the_last_step_of_an_episode_dropped_the_next_one_need_not_wait(make_rig):
    rig = make_rig(publish_every=0)
    steps = episode(1, 4, 0)
    steps[-1] = broken(steps[-1], "state")
    rig.send(steps)
    rig.wait(
        lambda: any(
            k == "status" and v.steps + v.lost_steps == 5 and v.caught_up for k, v in rig.log
        ),
        "a status that counts all of the episode",
    )
    rig.wait(lambda: len(rig.versions()) == 2, "the episode's weights")


def test_a_step_that_none_could_be_made_of_is_dropped_in_its_turn(make_rig):
    rig = make_rig()
    steps = episode(1, 5, 0)
    rig.send(steps[:2])
    rig.loop.drop(steps[2], "source: found 9")
    rig.send(steps[3:])
    rig.caught_up_with(5)
    rig.noted("Steps dropped: 1, the last: source: found 9")
    assert rig.trainer.counts.lost == 1
    assert rig.trainer.buffers.online.columns["valid"][:4].tolist() == [True, False, True, True]


def test_before_the_size_of_the_state_is_known_dropped_steps_count_too(make_rig):
    rig = make_rig(known=False)
    steps = episode(1, 5, 3)
    rig.loop.drop(steps[0], "source: found 9")
    rig.loop.receive(replace(steps[1], state=np.zeros(0, np.float32)))
    rig.noted("Steps dropped: 2, the last: step 1 of episode 1: no state")
    rig.wait(lambda: any(k == "status" and v.lost_steps == 2 for k, v in rig.log), "the count")
    rig.send(steps[2:])
    rig.caught_up_with(4)
    assert rig.trainer.counts.lost == 2


def test_a_checkpoint_of_an_evaluation_is_scored_and_kept(make_rig, tmp_path):
    """Regression: no checkpoint ever had a score, so that none was ever the best."""
    store = CheckpointStore(tmp_path, keep_last=1)
    rig = make_rig(store=store, checkpoint_every=5)
    sequence = 0
    for successes in (9, 4):
        for number in range(1, 1 + SCORED_EPISODES):
            outcome = Outcome.SUCCESS if number <= successes else Outcome.FAILURE
            rig.send(episode(number, 3, sequence, evaluation=True, outcome=outcome))
            sequence += 4
        rig.send(episode(100 + successes, 20, sequence))
        sequence += 21
        rig.caught_up_with(21 if successes == 9 else 42)
    rig.loop.stop(DEADLINE)
    assert store.manifest(store.best())["score"] == 0.9
    assert store.manifest(store.best())["values"]["updates"] == 0
    kept = [(m["score"], m["values"]["updates"]) for m in map(store.manifest, store.paths())]
    assert kept == [(0.9, 0), (None, 42)]


def test_a_checkpoint_that_is_asked_for_after_an_evaluation_has_its_score(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(store=store)
    rig.send(episode(1, 4, 0))
    rig.caught_up_with(5)
    for number in range(SCORED_EPISODES):
        rig.send(episode(10 + number, 1, 5 + 2 * number, evaluation=True, outcome=Outcome.SUCCESS))
    assert store.manifest(rig.loop.save(DEADLINE))["score"] == 1.0


def test_whoever_asks_an_ended_thread_for_a_checkpoint_hears_at_once(make_rig, tmp_path):
    """Regression: it waited for all of its time, a minute in the node."""
    rig = make_rig(fails_at=0, store=CheckpointStore(tmp_path))
    rig.send(episode(1, 3, 0))
    rig.failed()
    with pytest.raises(TrainingEndedError, match="has ended: critic_loss not finite"):
        rig.loop.save(DEADLINE)
    other = make_rig(store=CheckpointStore(tmp_path / "other"))
    other.loop.stop(DEADLINE)
    with pytest.raises(TrainingEndedError, match="has ended: it was asked to"):
        other.loop.save(DEADLINE)


def test_whoever_waits_for_a_checkpoint_when_the_thread_ends_hears_it(make_rig, tmp_path):
    failing, go_on = threading.Event(), threading.Event()

    def error(words):
        failing.set()
        assert go_on.wait(DEADLINE)
        return ArithmeticError(words)

    rig = make_rig(fails_at=2, error=error, store=CheckpointStore(tmp_path))
    rig.send(episode(1, 3, 0))
    assert failing.wait(DEADLINE)
    answer = rig.loop.request_save()
    go_on.set()
    assert isinstance(answer.exception(DEADLINE), TrainingEndedError)
    assert isinstance(rig.failed(), ArithmeticError)


def test_a_checkpoint_on_request_and_one_at_the_end(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(store=store)
    for step in episode(1, 6, 0):
        rig.loop.receive(step)
    rig.caught_up_with(7)
    path = rig.loop.save(DEADLINE)
    manifest = store.verify(path)
    assert manifest["extra"]["steps"] == 7
    assert manifest["extra"]["policy_version"] == max(rig.versions())
    rig.loop.stop(DEADLINE)
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
        make_rig().loop.save(DEADLINE)


@pytest.mark.parametrize(
    "values",
    [
        {"publish_every": -1},
        {"checkpoint_every": -1},
        {"checkpoint_period": -1.0},
        {"longest_backlog": float("nan")},
        {"torch_threads": 0},
    ],
)
def test_a_wrong_setting_is_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        LoopConfig(**values)


# ---- several robots

TWO = ("arm_1", "arm_2")


def of(robot, steps):
    return [replace(step, robot=robot) for step in steps]


def newest(rig, kind):
    return next(value for k, value in reversed(rig.log) if k == kind)


def test_each_robot_gets_weights_at_the_end_of_its_own_episode(make_rig):
    rig = make_rig(publish_every=0, robots=TWO)
    rig.wait(lambda: rig.versions() == [1], "the first weights")
    assert rig.log[0][1].robots == TWO
    one, two = of("arm_1", episode(1, 4, 0)), of("arm_2", episode(1, 9, 50))
    rig.send(two[:5])
    rig.caught_up_with(5)
    assert rig.versions() == [1, 2] and newest(rig, "weights").robots == ("arm_1",), (
        "no episode of arm_1 runs; that of arm_2 does"
    )
    rig.send(one)
    rig.caught_up_with(10)
    rig.wait(
        lambda: newest(rig, "status").robots[0].policy_version == rig.versions()[-1], "weights"
    )
    assert newest(rig, "weights").robots == ("arm_1",)
    rig.send(two[5:])
    rig.caught_up_with(15)
    rig.wait(lambda: newest(rig, "status").robots[1].policy_version > 1, "weights of arm_2")
    assert newest(rig, "weights").robots == TWO, "one set for both: no episode runs"


def test_status_has_a_row_for_each_robot(make_rig):
    rig = make_rig(robots=(*TWO, "arm_3"))
    success = episode(1, 4, 0, takeover=1, outcome=Outcome.SUCCESS)
    mixed = zip(of("arm_1", success), of("arm_2", episode(7, 4, 90)), strict=True)
    rig.send([step for pair in mixed for step in pair if step.sequence != 92])
    rig.caught_up_with(9)
    status = newest(rig, "status")
    assert (status.steps, status.lost_steps) == (9, 1)
    rows = {row.robot: row for row in status.robots}
    assert [(r.steps, r.lost_steps, r.episodes) for r in rows.values()] == [
        (5, 0, 1),
        (4, 1, 1),
        (0, 0, 0),
    ]
    assert rows["arm_1"].success_rate == 1.0 and rows["arm_2"].success_rate == 0.0
    assert rows["arm_1"].intervention_rate == 0.25 and np.isnan(rows["arm_3"].success_rate)
    assert 0.0 <= rows["arm_2"].age < DEADLINE and np.isnan(rows["arm_3"].age)
    assert np.isnan(rows["arm_1"].latency), "the stamps are of another clock"


def test_latency_is_from_the_stamp_to_the_buffer(make_rig):
    rig = make_rig(robots=TWO)
    stamp = time.time_ns() - 2 * 10**9
    rig.send([replace(step, stamp=stamp) for step in of("arm_1", episode(1, 2, 0))])
    rig.caught_up_with(3)
    assert 2.0 <= newest(rig, "status").robots[0].latency < 2.0 + DEADLINE


def test_steps_of_another_size_are_refused_by_the_name_of_the_robot(make_rig):
    rig = make_rig(robots=TWO)
    rig.send(of("arm_1", episode(1, 4, 0)))
    rig.send(of("arm_2", episode(1, 4, 0, state_dim=7)))
    rig.noted("arm_2: state of step")
    rig.caught_up_with(5)
    rows = {row.robot: row for row in newest(rig, "status").robots}
    assert (rows["arm_1"].lost_steps, rows["arm_2"].lost_steps) == (0, 5)
    assert 0.0 <= rows["arm_2"].age < DEADLINE, "its Steps do come"


def test_a_robot_that_restarts_or_leaves_does_not_hold_up_the_others(make_rig):
    rig = make_rig(publish_every=0, robots=TWO)
    rig.send(of("arm_2", episode(1, 9, 0))[:4])  # and no more of it
    rig.send(of("arm_1", episode(1, 4, 30)))
    rig.caught_up_with(9)
    rig.send(of("arm_1", episode(1, 4, 0)))  # a recorder that counts anew
    rig.caught_up_with(14)
    status = newest(rig, "status")
    assert status.lost_steps == 0 and [row.steps for row in status.robots] == [10, 4]
    rig.wait(
        lambda: newest(rig, "status").robots[0].policy_version == rig.versions()[-1], "weights"
    )
    assert status.robots[1].policy_version == 1, "its episode has not ended"
    assert len(rig.trainer.buffers.online) == 3 + 4 + 4


def test_training_of_several_robots_goes_on_from_a_checkpoint(make_rig, tmp_path):
    store = CheckpointStore(tmp_path)
    rig = make_rig(store=store, robots=TWO)
    mixed = zip(of("arm_1", episode(1, 9, 0)), of("arm_2", episode(1, 9, 100)), strict=True)
    steps = [step for pair in mixed for step in pair]
    rig.send(steps[:11])
    rig.caught_up_with(11)
    path = rig.loop.save(DEADLINE)
    buffers = Buffers(ReplayBuffer(1000, 4, 2, interleaved=True))
    trainer = Trainer(doubles.CountingAlgorithm(), buffers, TrainingConfig(robots=TWO))
    trainer.restore(store.load(path, trainer.algorithm, trainer.buffers))
    for step in steps[11:]:
        trainer.receive(step)
    rig.send(steps[11:])
    rig.caught_up_with(20)
    assert trainer.counters() == rig.trainer.counters()
    for name, column in trainer.buffers.online.columns.items():
        np.testing.assert_array_equal(column, rig.trainer.buffers.online.columns[name], name)
    alone = Buffers(ReplayBuffer(1000, 4, 2))
    with pytest.raises(
        MismatchError, match=r"online buffer.robots is \['arm_1', 'arm_2'\], expected"
    ):
        store.load(path, doubles.CountingAlgorithm(), alone)


def test_a_robot_stays_caught_up_whatever_others_send(make_rig):
    """Regression: a pacing robot waited for the updates of everybody."""
    rig = make_rig(robots=TWO)
    rig.send(of("arm_1", episode(1, 4, 0)))
    rig.caught_up_with(5)
    rig.wait(lambda: newest(rig, "status").robots[0].caught_up, "the end of its episode")
    gate = threading.Semaphore(0)
    slow(rig.algorithm, gate)
    *running, end = of("arm_2", episode(1, 200, 0))
    rig.send(running)

    def behind():
        gate.release()
        newer = newest(rig, "status")
        return newer if newer.steps > 5 and not newer.caught_up else None

    status = wait_until(behind, "a status of a learner that is behind")
    assert [row.caught_up for row in status.robots] == [True, False]
    gate.release(300)
    rig.loop.receive(end)
    rig.caught_up_with(206)
    rig.wait(lambda: newest(rig, "status").robots[1].caught_up, "the end of its episode")


def test_a_robot_in_an_evaluation_episode_gets_its_weights_after_it(make_rig, monkeypatch):
    monkeypatch.setattr(learner_loop, "PUBLISH_PERIOD", 0.0)
    rig = make_rig(publish_every=0, robots=TWO)
    rig.send(of("arm_1", episode(1, 4, 0)))
    rig.caught_up_with(5)
    rig.wait(lambda: newest(rig, "weights").robots == TWO, "weights for both")
    before = rig.versions()[-1]
    evaluation = of("arm_1", episode(2, 4, 5, evaluation=True))
    rig.send(evaluation[:3])
    rig.send(of("arm_2", episode(1, 4, 0)))
    rig.caught_up_with(10)
    rig.wait(lambda: newest(rig, "status").robots[1].policy_version > before, "weights of arm_2")
    assert newest(rig, "status").robots[0].policy_version == before
    rig.send(evaluation[3:])
    rig.send(of("arm_2", episode(2, 4, 5)))
    rig.caught_up_with(15)
    rig.wait(lambda: newest(rig, "weights").robots == TWO, "weights for both")


def test_an_evaluation_that_began_before_the_announcement_holds_back_only_its_weights(make_rig):
    rig, gate = make_rig(publish_every=0, robots=TWO), threading.Semaphore(0)
    slow(rig.algorithm, gate)
    evaluation = of("arm_1", episode(2, 4, 5, evaluation=True))
    rig.send([*of("arm_1", episode(1, 4, 0)), *evaluation[:3]])
    gate.release(100)
    rig.caught_up_with(5)
    assert newest(rig, "status").robots[0].policy_version == 1
    rig.send(evaluation[3:])
    rig.wait(lambda: newest(rig, "status").robots[0].policy_version == 2, "weights")


def test_weights_that_went_to_one_robot_do_not_put_off_those_of_another(monkeypatch):
    """Regression: robots that ended an episode every few seconds kept the others' from going out."""
    monkeypatch.setattr(learner_loop, "PUBLISH_PERIOD", 3600.0)
    published = []
    buffers = Buffers(ReplayBuffer(10, 4, 2, interleaved=True))
    trainer = Trainer(doubles.CountingAlgorithm(), buffers, TrainingConfig(robots=TWO))
    loop = LearnerLoop(
        lambda _: trainer, lambda weights: published.append(weights.robots), lambda *_: None,
        LoopConfig(robots=TWO), trainer=trainer,
    )  # fmt: skip
    trainer.algorithm.update(buffers)
    loop._publish_weights(trainer, ["arm_1"])
    for _ in range(2):
        trainer.algorithm.update(buffers)
        loop._publish_overdue(trainer)
    assert published == [("arm_1",), TWO], "both, and then none before the period is over"
