# SPDX-License-Identifier: Apache-2.0
"""A resumed learner takes in what was recorded since its checkpoint: all of it, and nothing twice."""

from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_learner.resuming import bags_of, read_on
from rlif_learner.training import Trainer, TrainingConfig


def stamped(steps, start):
    """As of a recorder that began at `start`, in s."""
    return [replace(s, stamp=start * 10**9 + i * 10**8) for i, s in enumerate(steps, start=1)]


STEPS = [
    *doubles.episode(1, 6, 1, takeover=2),
    *doubles.episode(2, 6, 8),
    *doubles.episode(3, 6, 15),
]

FIRST, SECOND = (  # of a recorder, and of the next one: the same numbers
    stamped([replace(s, sequence=s.sequence - 1) for s in STEPS], start) for start in (1000, 2000)
)


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


def take_live(trainer, received, steps):
    """How many Steps of the recorder's queue were taken in."""
    new = [step for step in steps if not received.repeats(step, step.stamp)]
    for step in new:
        trainer.receive(step)
    return len(new)


@given(st.data())
def test_read_on_and_what_the_recorder_repeats_give_each_step_once(data):
    saved = data.draw(st.integers(0, len(STEPS)), "Steps in the checkpoint")
    recorded = data.draw(st.integers(0, len(STEPS)), "Steps in the bag")
    kept = data.draw(st.integers(0, max(saved, recorded)), "first Step that the recorder repeats")
    steps = data.draw(st.sampled_from([STEPS, FIRST]), "without stamps, with stamps")
    trainer = resumed(steps[:saved])
    taken, received = read_on(trainer, steps[:recorded])
    assert taken == max(0, recorded - saved)
    take_live(trainer, received, steps[kept:])
    whole = resumed(steps)
    assert trainer.counters() == whole.counters()
    ours, theirs = (t.buffers.online for t in (trainer, whole))
    for name, column in ours.columns.items():
        np.testing.assert_array_equal(column, theirs.columns[name], name)


def test_steps_of_a_recorder_that_was_restarted_are_no_repetition():
    trainer = resumed(STEPS[:7])
    _, received = read_on(trainer, STEPS[:14])
    assert not received.repeats(replace(STEPS[0], episode_id=3), 0)
    assert not received.repeats(STEPS[1], 0), "from then on none is"


@pytest.mark.parametrize("recorded", [5, 14])
def test_steps_of_the_next_recorder_with_the_same_numbers_are_no_repetition(recorded):
    """Regression: after a restart of all nodes its Steps were dropped and not counted."""
    trainer = resumed(FIRST[:7])
    _, received = read_on(trainer, FIRST[:recorded])
    assert take_live(trainer, received, SECOND) == len(SECOND)


@pytest.mark.parametrize("recorded", [5, 14, len(FIRST)])
def test_a_recorder_that_was_restarted_before_the_checkpoint_repeats_its_own_steps(recorded):
    """Regression: only the first recorder's Steps were known, and those of the second came twice."""
    trainer = resumed(SECOND[:16])
    if recorded <= 15:  # the recording of the first one ends before that number
        taken, received = read_on(trainer, FIRST[:recorded])
        assert (taken, take_live(trainer, received, SECOND[3:])) == (0, len(SECOND) - 16)
    else:
        taken, received = read_on(trainer, [*FIRST, *SECOND[:18]])
        assert (taken, take_live(trainer, received, SECOND[3:])) == (2, len(SECOND) - 18)


def test_steps_that_a_restarted_recorder_wrote_after_the_checkpoint_are_taken_in():
    trainer = resumed(FIRST[:7])
    taken, received = read_on(trainer, [*FIRST[:14], *SECOND[:3]])
    assert (taken, take_live(trainer, received, SECOND)) == (10, len(SECOND) - 3)


def test_a_checkpoint_that_does_not_know_its_last_step_takes_in_no_recording():
    """Regression: all of the bag was added once more."""
    trainer = resumed(STEPS[:7])
    trainer.counts.of().last_sequence = None
    before = trainer.counters()
    with pytest.raises(ValueError, match="holds 7 Steps and not the number of the last one"):
        read_on(trainer, STEPS)
    assert trainer.counters() == before
    assert read_on(trainer, [])[0] == 0


def test_a_checkpoint_of_before_stamps_goes_on():
    trainer, counters = resumed([]), resumed(FIRST[:7]).counters()
    del counters["last_stamp"]
    trainer.restore(counters)
    taken, received = read_on(trainer, FIRST[:9])
    assert (taken, take_live(trainer, received, FIRST[5:])) == (2, len(FIRST) - 9)


def test_a_step_that_is_missing_in_the_bag_is_lost_and_what_follows_does_not_come_twice():
    trainer = resumed(STEPS[:7])
    _, received = read_on(trainer, [*STEPS[:9], *STEPS[10:14]])
    take_live(trainer, received, STEPS[3:])
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
    assert taken == 14 and trainer.counts.lost == 1 and trainer.counts.of().last_sequence == 21


def test_bags_of_a_run_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("bag", "bag_10", "bag_2", "bag_old", "bags_3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in bags_of(tmp_path / "bag")] == ["bag", "bag_2", "bag_10"]
