# SPDX-License-Identifier: Apache-2.0
"""A resumed learner takes in what was recorded since its checkpoint: all of it, and nothing twice."""

from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.resuming import bags_of, read_on
from rlif_learner.training import Trainer, TrainingConfig

STEPS = [
    *doubles.episode(1, 6, 1, takeover=2),
    *doubles.episode(2, 6, 8),
    *doubles.episode(3, 6, 15),
]


def make():
    buffers = Buffers(ReplayBuffer(100, doubles.STATE_DIM, doubles.ACTION_DIM))
    return Trainer(doubles.CountingAlgorithm(), buffers, TrainingConfig())


def resumed(steps):
    """As from a checkpoint after these Steps."""
    before, trainer = make(), make()
    for step in steps:
        before.receive(step)
    trainer.restore(before.counters())
    online = before.buffers.online
    rows = range(online.total)
    trainer.buffers.online.restore(online.state(), [(rows, online.read_rows(rows))])
    return trainer


@given(st.data())
def test_read_on_and_what_the_recorder_repeats_give_each_step_once(data):
    saved = data.draw(st.integers(0, len(STEPS)), "Steps in the checkpoint")
    recorded = data.draw(st.integers(saved, len(STEPS)), "Steps in the bag")
    kept = data.draw(st.integers(0, recorded), "first Step that the recorder repeats")
    trainer = resumed(STEPS[:saved])
    taken, received = read_on(trainer, STEPS[:recorded])
    assert taken == recorded - saved
    for step in STEPS[kept:]:
        if not received.repeats(step):
            trainer.receive(step)
    whole = resumed(STEPS)
    assert trainer.counters() == whole.counters()
    ours, theirs = (t.buffers.online for t in (trainer, whole))
    for name, column in ours.columns.items():
        np.testing.assert_array_equal(column, theirs.columns[name], name)


def test_steps_of_a_recorder_that_was_restarted_are_no_repetition():
    trainer = resumed(STEPS[:7])
    _, received = read_on(trainer, STEPS[:14])
    assert not received.repeats(replace(STEPS[0], episode_id=3))
    assert not received.repeats(STEPS[1]), "from then on none is"


def test_a_step_that_is_missing_in_the_bag_is_lost_and_what_follows_does_not_come_twice():
    trainer = resumed(STEPS[:7])
    _, received = read_on(trainer, [*STEPS[:9], *STEPS[10:14]])
    for step in STEPS[3:]:
        if not received.repeats(step):
            trainer.receive(step)
    assert (trainer.counts.steps, trainer.counts.lost) == (20, 1)
    assert trainer.buffers.online.total == 20


def test_a_bag_of_another_recorder_is_refused():
    trainer = resumed(STEPS[:7])
    before = trainer.counters()
    others = [replace(step, episode_id=step.episode_id + 5) for step in STEPS]
    with pytest.raises(ValueError, match="Step 7 is step 6 of episode 6, and in the checkpoint"):
        read_on(trainer, others)
    assert trainer.counters() == before


def test_a_step_that_cannot_be_taken_in_is_lost_and_reading_goes_on():
    trainer = resumed(STEPS[:7])
    wrong = replace(STEPS[8], state=np.zeros(1, np.float32))
    taken, _ = read_on(trainer, [*STEPS[:8], wrong, *STEPS[9:]])
    assert taken == 14 and trainer.counts.lost == 1 and trainer.counts.last_sequence == 21


def test_bags_of_a_run_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("bag", "bag_10", "bag_2", "bag_old", "bags_3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in bags_of(tmp_path / "bag")] == ["bag", "bag_2", "bag_10"]
