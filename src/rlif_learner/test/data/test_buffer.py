# SPDX-License-Identifier: Apache-2.0
"""The replay buffer against a naive list of transitions, and its limits."""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from waiting import scaled

from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.sampling import DRIVEN, sample_mixed, sample_union
from rlif_learner.data.steps import Source, StepRecord, discards, follows, is_stored

SOURCES = {"P": Source.POLICY, "O": Source.OPERATOR, "^": Source.OPERATOR, "N": Source.NONE}


def make_step(sequence, episode_id, t, letter, outcome=0, last=False, evaluation=False, images=()):
    """A step whose state and action tell which one it is."""
    return StepRecord(
        sequence, episode_id, t, t == 0, last, outcome, 0 if last else SOURCES[letter],
        letter == "^" and not last, 0, evaluation,
        np.array([sequence, episode_id], np.float32),
        np.zeros(0) if last else np.array([sequence / 1e4], np.float32), images,
    )  # fmt: skip


def make_episode(drivers, sequence=0, episode_id=1, outcome=3, evaluation=False, images=()):
    """T actions are T + 1 steps; `_` is a step that was lost."""
    steps = [
        make_step(sequence + t, episode_id, t, letter, evaluation=evaluation, images=images)
        for t, letter in enumerate(drivers)
        if letter != "_"
    ]
    t = len(drivers)
    end = make_step(sequence + t, episode_id, t, "N", outcome, True, evaluation, images)
    return [*steps, end]


@st.composite
def histories(draw):
    """Episodes of any length, outcome and loss, some for evaluation, some never finished."""
    steps, sequence = [], 0
    for episode_id in range(1, draw(st.integers(1, 6)) + 1):
        drivers = draw(st.text("PPPO^N_", min_size=1, max_size=10))
        outcome, evaluation = draw(st.sampled_from([1, 2, 3, 4])), draw(st.integers(0, 4)) == 0
        new = make_episode(drivers, sequence, episode_id, outcome, evaluation)
        cut = draw(st.integers(0, 1))
        steps += new[: len(new) - cut]
        sequence += len(drivers) + 1
    return steps


def naive_transitions(steps, capacity, scheme="onset"):
    """All transitions within the newest `capacity` steps, as (state, action, r, next, terminal).

    The last one is left out where its label may still change.
    """
    learned = [step for step in steps if not step.evaluation]
    labels = label_rewards(learned, scheme)
    discarded = {step.episode_id for step in learned if discards(step)}
    stored = [i for i, step in enumerate(learned) if not discards(step)]
    rewards, terminals = (column[stored] for column in labels)
    learned = [learned[i] for i in stored]
    pairs = []
    for i in range(max(0, len(learned) - capacity), len(learned) - 1):
        one, two = learned[i], learned[i + 1]
        if one.episode_id in discarded:
            assert not rewards[i] and not terminals[i]
        elif follows(two, one) and not undecided(steps, learned, i):
            pairs.append((*one.state, *one.action, rewards[i], *two.state, float(terminals[i])))
    return pairs


def undecided(steps, learned, i):
    """A policy step with nothing but undriven steps, unbroken, up to the very end."""
    if learned[i].source != Source.POLICY or steps[-1].evaluation:
        return False
    if any(discards(s) for s in steps[steps.index(learned[i]) :]):
        return False  # an end, of whichever episode
    after = learned[i + 1 :]
    unbroken = all(follows(b, a) for a, b in zip(learned[i:], after, strict=False))
    return unbroken and all(s.source == Source.NONE and not s.is_last for s in after)


def stored_transitions(buffer):
    rows = np.flatnonzero(buffer.columns["valid"])
    batch = buffer._gather(rows, (len(rows),))
    columns = [t.flatten(1) if t.dim() > 1 else t[:, None] for t in batch.tensors()]
    return [tuple(row) for row in torch.cat(columns, 1).tolist()]


@given(histories(), st.integers(2, 40), st.sampled_from(["onset", "every_step"]))
def test_buffer_holds_exactly_the_naive_transitions(steps, capacity, scheme):
    buffer = ReplayBuffer(capacity, 2, 1, scheme=scheme)
    for i, step in enumerate(steps):
        buffer.add_step(step)
        naive = naive_transitions(steps[: i + 1], capacity, scheme)
        expected = [tuple(np.float32(v).item() for v in row) for row in naive]
        assert sorted(stored_transitions(buffer)) == sorted(expected)
        assert len(buffer) == len(expected)


@given(histories(), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_samples_are_stored_transitions(steps, capacity, seed):
    buffer = ReplayBuffer(capacity, 2, 1)
    buffer.add_episode(steps)
    rng = np.random.default_rng(seed)
    if not len(buffer):
        with pytest.raises(ValueError, match="transition|empty"):
            buffer.sample(4, rng)
        return
    stored = set(stored_transitions(buffer))
    batch = buffer.sample(64, rng)
    columns = [t.reshape(64, -1) for t in batch.tensors()]
    assert {tuple(row) for row in torch.cat(columns, 1).tolist()} <= stored


def test_sampling_is_uniform_and_reaches_every_transition():
    buffer = ReplayBuffer(100, 2, 1)
    buffer.add_episode(make_episode("P" * 9))
    buffer.add_episode(make_episode("P" * 10, 10, 2))
    counts = Counter(buffer.sample(19_000, np.random.default_rng(0)).states[:, 0].tolist())
    assert len(counts) == 19
    assert all(850 < count < 1150 for count in counts.values())


def test_last_transition_of_an_episode_is_stored():
    buffer = ReplayBuffer(10, 2, 1)
    buffer.add_episode(make_episode("PPP", outcome=1))
    assert (2.0, 1.0) in {row[:2] for row in stored_transitions(buffer)}
    assert sum(row[-1] for row in stored_transitions(buffer)) == 1.0


def test_a_transition_can_be_sampled_while_its_episode_is_running():
    buffer = ReplayBuffer(10, 2, 1)
    for step, known in zip(make_episode("PPPP")[:4], (0, 1, 2, 3), strict=True):
        buffer.add_step(step)
        assert len(buffer) == known


@pytest.mark.parametrize("drivers", ["PP^OP", "P__^OP", "^OOOO"])
def test_a_discarded_episode_is_never_sampled_again(drivers):
    """Its steps could be sampled while it ran; its neighbours stay, and a saver hears of it."""
    buffer, saver = ReplayBuffer(100, 2, 1), Saver()
    buffer.add_episode(make_episode("PP^O", 0, 1))
    kept = stored_transitions(buffer)
    *running, end = make_episode(drivers, 10, 2, outcome=4)
    buffer.add_episode(running)
    assert len(buffer) > len(kept), "until then nobody knows"
    buffer.mark_saved(saver, buffer.total)
    buffer.add_step(end)
    assert stored_transitions(buffer) == kept and len(buffer) == len(kept)
    assert buffer.changed_steps(saver) == range(5, buffer.total)
    buffer.add_episode(make_episode("PP", 20, 3))
    assert len(buffer) == len(kept) + 2


def test_a_discarded_episode_that_a_checkpoint_cut_in_two_is_never_sampled_again():
    first, second = ReplayBuffer(100, 2, 1), ReplayBuffer(100, 2, 1)
    *running, end = make_episode("PPP", 0, 1, outcome=4)
    first.add_episode(running)
    steps = range(first.total)
    second.restore(json.loads(json.dumps(first.state())), [(steps, first.read_rows(steps))])
    assert len(second) == 2
    second.add_step(end)
    assert len(second) == 0


def test_the_end_of_a_discarded_episode_need_not_be_usable():
    """Nothing is learned from its observation: a camera that broke must not keep the data in."""
    buffer = ReplayBuffer(100, 2, 1)
    *running, end = make_episode("PPP", 0, 1, outcome=4)
    buffer.add_episode(running)
    buffer.add_step(replace(end, state=np.full(2, np.nan, np.float32)))
    assert len(buffer) == 0


class Saver:
    """Somebody who saves."""


def test_evaluation_is_not_learned_from():
    buffer = ReplayBuffer(10, 2, 1)
    buffer.add_episode(make_episode("PPPP", evaluation=True))
    assert len(buffer) == buffer.total == 0


def test_operator_samples_hold_operator_steps_only():
    buffer = ReplayBuffer(40, 2, 1)
    buffer.add_episode(make_episode("PP^OOPPN"))
    operator = (Source.OPERATOR,)
    states = buffer.sample(50, np.random.default_rng(0), sources=operator).states[:, 0]
    assert set(states.tolist()) == {2.0, 3.0, 4.0}
    plain = ReplayBuffer(10, 2, 1)
    plain.add_episode(make_episode("PP"))
    with pytest.raises(ValueError, match="no transition driven by OPERATOR among 3 steps"):
        plain.sample(1, np.random.default_rng(0), sources=operator)


@given(histories(), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_counts_and_samples_of_a_source_are_those_of_its_rows(steps, capacity, seed):
    buffer = ReplayBuffer(capacity, 2, 1)
    buffer.add_episode(steps)
    restored = ReplayBuffer(capacity, 2, 1)
    held = range(max(0, buffer.total - capacity), buffer.total)
    restored.restore(buffer.state(), [(held, buffer.read_rows(held))])
    for sources in ((Source.NONE,), (Source.OPERATOR,), DRIVEN):
        driven = np.isin(buffer.columns["source"], sources) & buffer.columns["valid"]
        assert buffer.count(sources) == restored.count(sources) == driven.sum()
        if driven.any():
            batch = buffer.sample(32, np.random.default_rng(seed), sources=sources)
            assert set(batch.states[:, 0].tolist()) <= set(buffer.columns["state"][driven, 0])
    assert buffer.operator_count() == buffer.count((Source.OPERATOR,))


def test_a_union_is_sampled_uniformly_however_small_a_part_is():
    """Regression: a rounded share never drew from the smaller part at all."""
    large, small = ReplayBuffer(2000, 2, 1), ReplayBuffer(20, 2, 1)
    large.add_episode(make_episode("P" * 999, episode_id=1))
    small.add_episode(make_episode("P", episode_id=2))
    rng, parts = np.random.default_rng(0), ((small, DRIVEN), (large, DRIVEN), (None, DRIVEN))
    drawn = [sample_union(parts, 100, rng).states[:, 1] for _ in range(1000)]
    assert 60 < sum(int((episodes == 2).sum()) for episodes in drawn) < 140  # 100 of 100,000
    with pytest.raises(ValueError, match="no transition in any buffer"):
        sample_union(((ReplayBuffer(10, 2, 1), DRIVEN), (None, DRIVEN)), 1, rng)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_each_batch_holds_its_share_of_prior_data(ratio):
    online, prior = ReplayBuffer(20, 2, 1), ReplayBuffer(20, 2, 1)
    online.add_episode(make_episode("PPPP", episode_id=1))
    prior.add_episode(make_episode("PPPP", episode_id=2))
    rng = np.random.default_rng(0)
    batch = sample_mixed(online, prior, 8, ratio, rng, count=5)
    assert batch.states.shape == (5, 8, 2)
    assert ((batch.states[..., 1] == 2).sum(1) == 8 * ratio).all()
    single = sample_mixed(online, prior, 8, ratio, rng)
    assert (single.states[:, 1] == 2).sum() == 8 * ratio


def asked(steps):
    """The policy asked at each of them for what no step does."""
    return [replace(step, refused_action=np.array([-0.5], np.float32)) for step in steps]


@given(
    histories(), st.integers(2, 40), st.sampled_from(["onset", "every_step"]), st.integers(0, 99)
)
def test_refused_actions_stand_in_for_the_operators(steps, capacity, scheme, seed):
    """Each transition that the operator drove, and no other, has the policy's action, and -1 where that
    was refused; all else of it is as it was."""
    buffer = ReplayBuffer(capacity, 2, 1, scheme=scheme)
    buffer.add_episode(asked(steps))
    if not len(buffer):
        return
    drawn = [
        buffer.sample(64, np.random.default_rng(seed), refused_ratio=ratio) for ratio in (0.0, 1.0)
    ]
    known = {float(step.state[0]): step for step in steps}
    executed, refused = drawn
    for i, sequence in enumerate(executed.states[:, 0].tolist()):
        step, reward = known[sequence], executed.rewards[i].item()
        overruled = step.source == Source.OPERATOR
        action = -0.5 if overruled else executed.actions[i, 0].item()
        objection = overruled and (step.onset or scheme == "every_step")
        assert refused.actions[i, 0] == action
        assert refused.rewards[i] == (min(reward, -1.0) if objection else reward)
    for name in ("states", "next_states", "terminals"):
        assert torch.equal(getattr(executed, name), getattr(refused, name))


def test_a_failure_is_not_better_for_a_refused_action():
    buffer = ReplayBuffer(10, 2, 1, failure_reward=-20.0)
    buffer.add_episode(asked(make_episode("P^", outcome=2)))
    batch = buffer.sample(32, np.random.default_rng(0), refused_ratio=1.0)
    last = batch.actions[:, 0] == -0.5
    assert last.any() and (batch.rewards[last] == -20.0).all() and batch.terminals[last].all()


@pytest.mark.parametrize("action", [(), (0.1, 0.2), (np.nan,)])
def test_what_the_policy_asked_for_is_learned_only_where_it_is_known(action):
    buffer = ReplayBuffer(10, 2, 1)
    steps = make_episode("P^OP")
    buffer.add_episode(replace(s, refused_action=np.array(action, np.float32)) for s in steps)
    batch = buffer.sample(64, np.random.default_rng(0), refused_ratio=1.0)
    assert set(batch.actions[:, 0].tolist()) == set(np.float32([0.0, 1e-4, 2e-4, 3e-4]).tolist())


def test_rows_of_before_refused_actions_have_none():
    buffer = ReplayBuffer(10, 2, 1)
    buffer.add_episode(asked(make_episode("P^OP")))
    held = range(buffer.total)
    rows = buffer.read_rows(held)
    old = {name: column for name, column in rows.items() if not name.startswith("refused")}
    for kept, known in ((rows, True), (old, False)):
        buffer.restore(buffer.state(), [(held, kept)])
        batch = buffer.sample(64, np.random.default_rng(0), refused_ratio=1.0)
        assert bool((batch.actions[:, 0] == -0.5).any()) == known


def test_refused_actions_are_as_many_as_asked_for_in_both_buffers():
    online, prior = ReplayBuffer(2000, 2, 1), ReplayBuffer(2000, 2, 1)
    for buffer in (online, prior):
        buffer.add_episode(asked(make_episode("^" + "O" * 998)))
    rng = np.random.default_rng(0)
    batch = sample_mixed(online, prior, 4000, 0.5, rng, count=2, refused_ratio=0.25)
    shares = (batch.actions[..., 0] == -0.5).float().reshape(2, 2, 2000).mean(2)
    assert ((shares - 0.25).abs() < 0.05).all()


def test_an_empty_buffer_is_replaced_by_the_other():
    full, empty = ReplayBuffer(20, 2, 1), ReplayBuffer(20, 2, 1)
    full.add_episode(make_episode("PPPP"))
    rng = np.random.default_rng(0)
    for pair in ((full, empty), (empty, full), (full, None)):
        assert sample_mixed(*pair, 8, 0.5, rng).states.shape == (8, 2)


def test_images_are_uint8_and_stored_once(tmp_path):
    """Regression: float32 images, and both observations of a transition stored."""
    shapes = ((16, 16, 3), (16, 16, 3))
    buffer = ReplayBuffer(100, 2, 1, shapes, memmap_dir=tmp_path)
    raw = 100 * sum(int(np.prod(shape)) for shape in shapes)
    images = sum(v.nbytes for k, v in buffer.columns.items() if k.startswith("image"))
    assert images == raw
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == raw


def test_memory_at_full_size(tmp_path, monkeypatch):
    """100,000 transitions with images: at most 1.05 times their own bytes, as the docstring has it.

    The files are sparse here: nothing is filled but the last episode, which just fits.
    """
    monkeypatch.setattr(os, "posix_fallocate", lambda file, _, size: os.ftruncate(file, size))
    transitions, length, shapes = 100_000, 100, ((128, 128, 3),) * 2
    steps = transitions * (length + 1) // length
    buffer = ReplayBuffer(steps, 17, 6, shapes, memmap_dir=tmp_path)
    own = 2 * 128 * 128 * 3 + 4 * (17 + 6) + 4 + 1  # images, state and action, reward, terminal
    in_memory = sum(v.nbytes for k, v in buffer.columns.items() if not k.startswith("image"))
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert in_memory + on_disk <= 1.05 * transitions * own
    state, before = buffer.state(), steps - length - 1
    state["labels"]["count"] = state["total"] = before
    buffer.restore(state, [])
    buffer.add_episode(wide_episode(before, length, shapes))
    assert len(buffer) == length and buffer.total == steps
    assert np.flatnonzero(buffer.columns["valid"])[[0, -1]].tolist() == [before, steps - 2]


def wide_episode(sequence, length, shapes):
    images = tuple(np.zeros(shape, np.uint8) for shape in shapes)
    return [
        StepRecord(
            sequence + t, sequence + 1, t, t == 0, t == length, 3 * (t == length),
            int(t < length), False, 0, False, np.zeros(17), np.zeros(6 * (t < length)), images,
        )
        for t in range(length + 1)
    ]  # fmt: skip


def test_a_directory_of_images_belongs_to_one_buffer(tmp_path):
    """Regression: two buffers in one directory overwrote each other's images silently."""
    first = ReplayBuffer(4, 2, 1, ((2, 2, 3),), memmap_dir=tmp_path / "images")
    first.add_episode(make_episode("PP", images=(np.full((2, 2, 3), 7, np.uint8),)))
    with pytest.raises(ValueError, match="memmap_dir: found .*images in use by another buffer"):
        ReplayBuffer(4, 2, 1, ((2, 2, 3),), memmap_dir=tmp_path / "images")
    assert (first.columns["image_0"][:3] == 7).all()
    del first
    gc.collect()
    ReplayBuffer(4, 2, 1, ((2, 2, 3),), memmap_dir=tmp_path / "images")


def test_the_disk_that_images_need_is_taken_at_the_start(tmp_path, monkeypatch):
    """Regression: hours later the disk was full, and the process ended at once by SIGBUS."""
    buffer = ReplayBuffer(1000, 2, 1, ((16, 16, 3),), memmap_dir=tmp_path / "a")
    (file,) = (tmp_path / "a").glob("*.bin")
    assert 512 * file.stat().st_blocks >= buffer.columns["image_0"].nbytes == 768_000
    assert not buffer.columns["image_0"].any()

    def full(_file, _offset, _size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"image_0.bin needs 0.00 GB: No space left.*lower capacity"):
        ReplayBuffer(1000, 2, 1, ((16, 16, 3),), memmap_dir=tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.bin"))


def test_what_a_full_buffer_takes_of_memory(tmp_path):
    plain = ReplayBuffer(1000, 2, 1, ((16, 16, 3),))
    row = 4 * (2 + 1 + 1 + 1) + 2 + 4 * (1 + 1) + 1  # and of the refused action
    assert plain.memory == 1000 * (768 + row)
    assert ReplayBuffer(1000, 2, 1, ((16, 16, 3),), tmp_path).memory == plain.memory - 768_000


def test_images_are_left_out_where_nobody_looks_at_them():
    online, prior = (ReplayBuffer(10, 2, 1, ((2, 2, 3),)) for _ in range(2))
    for buffer in (online, prior):
        buffer.add_episode(make_episode("PPP", images=(np.zeros((2, 2, 3), np.uint8),)))
    rng = np.random.default_rng(0)
    for images, cameras in ((True, 1), (False, 0)):
        for batch in (
            online.sample(4, rng, images=images),
            sample_mixed(online, prior, 4, 0.5, rng, images=images),
            sample_mixed(online, None, 4, 0.5, rng, count=3, images=images),
            sample_union(((online, DRIVEN), (prior, DRIVEN)), 4, rng, images=images),
        ):
            assert len(batch.images) == len(batch.next_images) == cameras


def test_images_follow_their_transition_across_the_write_head():
    """Regression: a transition paired with the image of another run."""
    buffer = ReplayBuffer(7, 2, 1, ((4, 4, 3),))
    sequence = 0
    for episode_id in range(1, 6):
        for t in range(5):
            image = np.full((4, 4, 3), sequence, np.uint8)
            buffer.add_step(
                make_step(sequence, episode_id, t, "P", 3 * (t == 4), t == 4, images=(image,))
            )
            sequence += 1
            if len(buffer):
                batch = buffer.sample(32, np.random.default_rng(sequence))
                assert batch.images[0].dtype == torch.uint8
                assert (batch.images[0].flatten(1).float() == batch.states[:, :1]).all()
                assert (batch.next_images[0].flatten(1).float() == batch.next_states[:, :1]).all()
                assert (batch.next_states[:, 0] == batch.states[:, 0] + 1).all()


def test_bad_steps_are_refused_by_name_and_leave_the_buffer_unchanged():
    buffer = ReplayBuffer(10, 2, 1)
    good = make_episode("PP")
    buffer.add_step(good[0])
    bad_state = make_step(1, 1, 1, "P")
    bad_state.state[0] = np.nan
    with pytest.raises(ValueError, match="state of step 1 of episode 1.*finite"):
        buffer.add_step(bad_state)
    image = (np.zeros((2, 2, 3), np.float32),)
    with pytest.raises(ValueError, match="images of step 1.*float32"):
        buffer.add_step(make_step(1, 1, 1, "P", images=image))
    buffer.add_step(good[1])
    assert (buffer.total, len(buffer)) == (2, 1)


def test_a_step_without_action_is_refused():
    with pytest.raises(ValueError, match="no action"):
        StepRecord(0, 1, 0, True, False, 0, 1, False, 0, False, np.zeros(2))


ROUNDS = 300  # of each thread that uses the buffer at the same time as others
EPISODE = "PP^OP"  # onset labels: -1 on its second step; success: terminal on its fifth


def numbered_step(n):
    """Step n of endless episodes: all that the buffer holds of it follows from n."""
    t, last = n % 6, n % 6 == 5
    image = np.full((24, 24, 3), n % 251, np.uint8)
    letter = "N" if last else EPISODE[t]
    return make_step(n, 1 + n // 6, t, letter, int(last), last, images=(image,))


def check_numbered(n, action, reward, terminal, image):
    """That all values are those of steps n, [batch] each."""
    assert np.allclose(action[:, 0], n / 1e4)
    assert (reward == np.where(n % 6 == 1, -1.0, 0.0)).all()
    assert (terminal == (n % 6 == 4)).all()
    assert (image == (n % 251)[:, None, None, None]).all()


def check_rows(buffer):
    """As a checkpoint reads: all rows are of one moment."""
    with buffer.unchanging():
        total, length = buffer.state()["total"], len(buffer)
        rows = buffer.read_rows(range(max(0, total - buffer.capacity), total))
    numbers = np.arange(total - len(rows["valid"]), total)
    assert (rows["state"][:, 0] == numbers).all()
    assert rows["valid"].sum() == length
    valid = rows["valid"]
    columns = (rows[name][valid] for name in ("action", "reward", "terminal", "image_0"))
    check_numbered(numbers[valid], *columns)


def check_sample(buffer, rng):
    batch = buffer.sample(16, rng)
    assert (batch.next_states[:, 0] == batch.states[:, 0] + 1).all()
    assert (batch.next_states[:, 1] == batch.states[:, 1]).all()
    parts = (batch.actions, batch.rewards, batch.terminals, batch.images[0])
    check_numbered(batch.states[:, 0].numpy(), *(part.numpy() for part in parts))
    following = batch.next_images[0].flatten(1).float()
    assert (following == (batch.next_states[:, :1] % 251)).all()


@pytest.mark.slow
def test_adding_sampling_and_saving_from_three_threads():
    """Regression: a race between adding and sampling corrupted batches silently."""
    buffer, rng = ReplayBuffer(20, 2, 1, ((24, 24, 3),)), np.random.default_rng(0)
    buffer.add_episode(numbered_step(n) for n in range(12))
    end, stop, counts = time.monotonic() + scaled(60.0), threading.Event(), Counter()

    def repeat(name, work):
        """Until all three have done so often enough."""
        while not stop.is_set() and time.monotonic() < end:
            work()
            counts[name] += 1
            if len(counts) == 3 and min(counts.values()) >= ROUNDS:
                stop.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places in the middle of everything
    try:
        with ThreadPoolExecutor(2) as pool:
            others = [
                pool.submit(repeat, "add", lambda: buffer.add_step(numbered_step(buffer.total))),
                pool.submit(repeat, "read", lambda: check_rows(buffer)),
            ]
            try:
                repeat("sample", lambda: check_sample(buffer, rng))
            finally:
                stop.set()
        for other in others:
            other.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(counts) == 3 and min(counts.values()) >= ROUNDS, counts
    assert buffer.total > buffer.capacity


ROBOTS = ("arm_1", "arm_2", "arm_3")


@st.composite
def interleavings(draw):
    """Steps of several robots, each in its order; a state tells which robot's it is."""
    queues = []
    for i, name in enumerate(ROBOTS[: draw(st.integers(1, 3))]):
        offset = np.array([1000.0 * i, 0.0], np.float32)
        queues.append([replace(s, robot=name, state=s.state + offset) for s in draw(histories())])
    steps = []
    while any(queues):
        steps.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    return steps


def each_alone(steps, capacity, scheme):
    """The transitions of every robot in a buffer of its own, whose first step is held by one for all."""
    held = [step for step in steps if is_stored(step)][-capacity:]
    starts = {tuple(step.state.tolist()) for step in held}
    found = []
    for name in ROBOTS:
        alone = ReplayBuffer(1000, 2, 1, scheme=scheme)
        alone.add_episode(replace(step, robot="") for step in steps if step.robot == name)
        found += [row for row in stored_transitions(alone) if row[:2] in starts]
    return sorted(found)


@pytest.mark.slow
@given(interleavings(), st.integers(2, 40), st.sampled_from(["onset", "every_step"]), st.data())
def test_interleaved_robots_give_the_transitions_and_labels_of_each_alone(
    steps, capacity, scheme, data
):
    buffer = ReplayBuffer(capacity, 2, 1, scheme=scheme, interleaved=True)
    cut = data.draw(st.integers(0, len(steps)), "where it is saved and restored")
    for i, step in enumerate(steps):
        if i == cut:
            buffer = resaved(buffer, ReplayBuffer(capacity, 2, 1, scheme=scheme, interleaved=True))
        buffer.add_step(step)
        assert sorted(stored_transitions(buffer)) == each_alone(steps[: i + 1], capacity, scheme)
    if len(buffer):
        batch = buffer.sample(32, np.random.default_rng(0))
        drawn = torch.cat([t.reshape(32, -1) for t in batch.tensors()], 1).tolist()
        assert {tuple(row) for row in drawn} <= set(stored_transitions(buffer))


def resaved(buffer, other):
    """`other`, as `buffer` was saved."""
    held = range(max(0, buffer.total - buffer.capacity), buffer.total)
    state = json.loads(json.dumps(buffer.state()))
    other.restore(state, [(held, buffer.read_rows(held))] if held else [])
    return other


def test_what_one_robot_has_recorded_goes_on_with_several():
    one, several = ReplayBuffer(50, 2, 1), ReplayBuffer(50, 2, 1, interleaved=True)
    steps = make_episode("PPP^OP")
    for step in steps[:5]:
        one.add_step(step)
    resaved(one, several)
    for step in steps[5:]:  # the robot without a name goes on among others
        several.add_step(step)
        several.add_step(replace(step, robot="arm_2"))
        one.add_step(step)
    assert set(stored_transitions(one)) <= set(stored_transitions(several))


def test_a_row_whose_next_step_came_after_a_save_is_saved_again():
    """Regression: with no label for it, a resumed learner joined it to another robot's row."""
    buffer, again = (ReplayBuffer(50, 2, 1, interleaved=True) for _ in range(2))
    one, two = (
        [replace(step, robot=name) for step in make_episode(letters)]
        for name, letters in (("arm_1", "PNNPP"), ("arm_2", "PPPPP"))
    )
    parts, saver = [], Saver()
    for steps in ([one[0], *two[:3]], [one[1]]):  # a HOLD: what it labels is not known yet
        for step in steps:
            buffer.add_step(step)
        changed = buffer.changed_steps(saver)
        parts.append((changed, buffer.read_rows(changed)))
        buffer.mark_saved(saver, buffer.total)
    again.restore(json.loads(json.dumps(buffer.state())), parts)
    for step in (*one[2:], *two[3:]):
        buffer.add_step(step)
        again.add_step(step)
    for name, column in buffer.columns.items():
        np.testing.assert_array_equal(again.columns[name], column, name)


@pytest.mark.parametrize("evenly", [False, True])
def test_evenly_each_robot_is_as_likely_as_any_other(evenly):
    buffer = ReplayBuffer(1000, 2, 1, interleaved=True, evenly=evenly)
    for name, length in (("arm_1", 300), ("arm_2", 100), ("arm_3", 0)):
        buffer.add_episode(
            replace(s, robot=name) for s in make_episode("P" * length, episode_id=length)
        )
    drawn = buffer.sample(1000, np.random.default_rng(0), count=2).states[..., 1]
    share = (drawn == 100).float().mean().item()
    assert share == pytest.approx(0.5 if evenly else 0.25, abs=0.05)
