# SPDX-License-Identifier: Apache-2.0
"""What the learner's status tells a person, and how often."""

from rlif_learner.status_notes import REMIND, DroppedSteps


def test_dropped_steps_are_spoken_of_once_in_a_while():
    dropped = DroppedSteps()
    dropped.refresh(0.0)
    assert dropped.note == ""
    notes = []
    for i in range(100):
        dropped.add(f"reason {i}")
        dropped.refresh(1000.0 + 0.25 * i)
        notes.append(dropped.note)
    assert len(set(notes)) == 1 + int(99 * 0.25 / REMIND)
    assert notes[0] == "Steps dropped: 1, the last: reason 0"
    dropped.refresh(2000.0)
    assert dropped.note == "Steps dropped: 100, the last: reason 99"
