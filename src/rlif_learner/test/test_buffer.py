"""The replay buffer against a naive list of transitions, and its limits."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.buffer import ReplayBuffer, sample_mixed
from rlif_learner.labels import label_rewards
from rlif_learner.steps import Source, StepRecord, follows

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
        outcome, evaluation = draw(st.sampled_from([1, 2, 3])), draw(st.integers(0, 4)) == 0
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
    rewards, terminals = label_rewards(learned, scheme)
    pairs = []
    for i in range(max(0, len(learned) - capacity), len(learned) - 1):
        one, two = learned[i], learned[i + 1]
        if follows(two, one) and not undecided(steps, learned, i):
            pairs.append((*one.state, *one.action, rewards[i], *two.state, float(terminals[i])))
    return pairs


def undecided(steps, learned, i):
    """A policy step with nothing but undriven steps, unbroken, up to the very end."""
    if learned[i].source != Source.POLICY or steps[-1].evaluation:
        return False
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


def test_evaluation_is_not_learned_from():
    buffer = ReplayBuffer(10, 2, 1)
    buffer.add_episode(make_episode("PPPP", evaluation=True))
    assert len(buffer) == buffer.total == 0


def test_operator_samples_hold_operator_steps_only():
    buffer = ReplayBuffer(40, 2, 1)
    buffer.add_episode(make_episode("PP^OOPPN"))
    states = buffer.sample(50, np.random.default_rng(0), operator=True).states[:, 0]
    assert set(states.tolist()) == {2.0, 3.0, 4.0}
    plain = ReplayBuffer(10, 2, 1)
    plain.add_episode(make_episode("PP"))
    with pytest.raises(ValueError, match="no operator transition"):
        plain.sample(1, np.random.default_rng(0), operator=True)


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


def test_memory_at_full_size(tmp_path):
    """2 x 128 x 128 x 3 images, 100,000 transitions: at most 1.05 times the raw bytes."""
    shapes = ((128, 128, 3),) * 2
    buffer = ReplayBuffer(100_000, 17, 6, shapes, memmap_dir=tmp_path)  # sparse files
    raw = 100_000 * (2 * 128 * 128 * 3 + 4 * (17 + 6 + 2))
    assert sum(column.nbytes for column in buffer.columns.values()) <= 1.05 * raw


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


def test_adding_and_sampling_from_two_threads():
    """Regression: a race between adding and sampling corrupted batches silently."""
    buffer = ReplayBuffer(50, 2, 1)
    buffer.add_episode(make_episode("PPPP"))
    stop, failures = threading.Event(), []

    def add():
        sequence, episode_id = 5, 2
        try:
            while not stop.is_set():
                buffer.add_episode(make_episode("PP^OP", sequence, episode_id))
                sequence, episode_id = sequence + 6, episode_id + 1
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    rng = np.random.default_rng(0)
    try:
        for _ in range(300):
            batch = buffer.sample(64, rng)
            assert (batch.next_states[:, 0] == batch.states[:, 0] + 1).all()
            assert (batch.next_states[:, 1] == batch.states[:, 1]).all()
            assert torch.allclose(batch.actions[:, 0], batch.states[:, 0] / 1e4)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert not failures
    assert buffer.total > 50  # it did wrap around
