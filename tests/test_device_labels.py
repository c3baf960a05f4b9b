# SPDX-License-Identifier: Apache-2.0
"""From the messages of a device to the labels that are learned from: traces through both packages."""

from __future__ import annotations

import numpy as np
import pytest
import trace_rig

from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord

PAD = {"pad__preset": "xbox"}
MOUSE = {"devices": ["mouse"], "mouse__preset": "spacemouse"}
KEYS = {
    "devices": ["keys"],
    "keys__preset": "twist",
    "keys__idle_ok": True,
    "keys__deadman_topic": "held",
}


def steps(decisions):
    """The Steps that a recorder makes of an episode, with the final one."""
    records = [
        StepRecord(
            sequence=number,
            episode_id=d.episode_id,
            step_index=d.step_index,
            is_first=number == 0,
            is_last=False,
            outcome=Outcome.RUNNING,
            source=int(d.source),
            onset=d.onset,
            intervention_id=d.intervention_id,
            evaluation=False,
            state=np.zeros(1, dtype=np.float32),
            action=np.array(d.executed_action, dtype=np.float32),
        )
        for number, d in enumerate(decisions)
    ]
    final = StepRecord(
        sequence=len(records),
        episode_id=1,
        step_index=len(records),
        is_first=False,
        is_last=True,
        outcome=Outcome.TRUNCATED,
        source=Source.NONE,
        onset=False,
        intervention_id=0,
        evaluation=False,
        state=np.zeros(1, dtype=np.float32),
    )
    return [*records, final]


@pytest.mark.parametrize(
    ("trace", "values", "begins"),
    [
        ("gamepad_jittering_thumb", PAD, [0.6137]),
        ("gamepad_released_80_ms", PAD, [0.5521]),
        ("gamepad_released_350_ms", PAD, [0.5521, 1.5543]),
        ("gamepad_unplugged", PAD, [0.5038]),
        ("gamepad_taps", PAD, [0.9212]),
        ("spacemouse_noise", MOUSE, [1.19]),
        ("spacemouse_zeros", MOUSE, []),
        ("keyboard_with_deadman", KEYS, [1.01]),
    ],
)
def test_labels_of_a_device_trace_mark_the_policy_step_before_each_take_over(trace, values, begins):
    replay = trace_rig.Replay(**values).play(trace_rig.load(trace))
    rewards, terminals = label_rewards(steps(replay.decisions))
    labelled = np.flatnonzero(rewards).tolist()
    assert not terminals.any() and set(rewards.tolist()) <= {0.0, -1.0}
    assert len(labelled) == len(begins)
    for index, begin in zip(labelled, begins, strict=True):
        decision, after = replay.decisions[index], replay.decisions[index + 1]
        assert decision.source == Source.POLICY and after.onset
        # The hand moved within the step after the labelled one, or so late in it as a command takes.
        assert after.stamp * 1e-9 - 0.05 <= begin <= after.stamp * 1e-9 + 0.1
    driven = [d for d in replay.decisions if d.source == Source.OPERATOR]
    assert bool(driven) == bool(begins), "what the person did is there to be learned from"
    assert all(d.intervention_id for d in driven)
