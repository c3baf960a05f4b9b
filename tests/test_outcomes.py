"""How an episode ended reaches the learner, however old the samples of its observations are.

The arbiter, the recorder's join and the labels in simulated time: a person ends the episode "now",
while every observation carries the stamp of its oldest sample.
"""

import numpy as np
import pytest

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.devices import Device, DeviceRack, Reading
from rlif_intervention.join import Driven, Phase, Seen, Stage, StepJoin
from rlif_learner.labels import label_rewards
from rlif_learner.steps import Outcome, StepRecord

MS = 1_000_000
REST = Reading(False, (0.0, 0.0, 0.0))
ACTION = (0.5, 0.0, 0.0)


def run_episode(age_ms, end_ms, outcome):
    """The Steps of an episode of `end_ms`, as StepRecords; ticks every 100 ms, commands every 20."""
    arbiter = Arbiter(ArbiterConfig(), DeviceRack([Device("joy")]))
    join = StepJoin(max_gap=0.25)
    steps = []

    def decided(decision):
        if decision is not None:
            driven = Driven(
                decision.tick, decision.stamp, decision.episode_id, decision.step_index, decision
            )
            steps.extend(join.decide(driven))

    for ms in range(0, end_ms + 3000, 10):
        if ms == 1000:
            arbiter.device_reading("joy", REST, ms / 1000)
            assert arbiter.arm(True)[0]
            arbiter.begin_episode(1, ms * MS, 0)
            steps += join.stage(Stage(1, Phase.RUNNING, ms * MS), ms / 1000)
        if ms == 1000 + end_ms:
            arbiter.end_episode(ms * MS)
            steps += join.stage(Stage(1, Phase.ENDED, ms * MS, outcome), ms / 1000)
        if ms % 100 == 0:
            tick, stamp = ms // 100, max(0, ms - age_ms) * MS
            steps += join.observe(Seen(tick, stamp, tick))
            decided(arbiter.observe(tick, stamp, ms / 1000))
            arbiter.policy_action(tick, stamp, ACTION, 1, ms / 1000)
        if ms % 20 == 0:
            arbiter.device_reading("joy", REST, ms / 1000)
            arbiter.output(ms / 1000)
        steps += join.expire(ms / 1000)
    return [record(step) for step in steps]


def record(step):
    action = () if step.decision is None else step.decision.executed_action
    return StepRecord(
        sequence=step.sequence,
        episode_id=step.episode_id,
        step_index=step.step_index,
        is_first=step.step_index == 0,
        is_last=step.is_last,
        outcome=step.outcome,
        source=0 if step.decision is None else int(step.decision.source),
        onset=False,
        intervention_id=0,
        evaluation=False,
        state=np.zeros(1, np.float32),
        action=np.asarray(action, np.float32),
    )


@pytest.mark.parametrize("age_ms", [0, 1, 10, 20, 40, 60, 90, 120, 150])
@pytest.mark.parametrize("end_ms", [600, 610, 650, 690, 1230])
def test_the_outcome_is_learned_from_at_any_age_of_the_samples(age_ms, end_ms):
    steps = run_episode(age_ms, end_ms, Outcome.SUCCESS)
    assert [s.step_index for s in steps] == list(range(len(steps))), "no gap"
    assert [s.sequence for s in steps] == list(range(len(steps)))
    assert [s.is_last for s in steps] == [False] * (len(steps) - 1) + [True]
    rewards, terminals = label_rewards(steps)
    assert terminals.tolist() == [False] * (len(steps) - 2) + [True, False]
    assert not rewards.any()


@pytest.mark.parametrize("age_ms", [0, 40, 90, 150])
def test_a_failure_is_blamed_on_the_last_step_at_any_age_of_the_samples(age_ms):
    steps = run_episode(age_ms, 750, Outcome.FAILURE)
    rewards, terminals = label_rewards(steps)
    assert rewards.tolist() == [0.0] * (len(steps) - 2) + [-1.0, 0.0]
    assert not terminals.any()
