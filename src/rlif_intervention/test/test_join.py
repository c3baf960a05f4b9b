# SPDX-License-Identifier: Apache-2.0
"""Steps out of Observations, Decisions and Episodes, in whatever order they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_intervention.join import (
    EpisodeEvent,
    JoinedStep,
    Phase,
    StepJoin,
    TimedDecision,
    TimedObservation,
)

PERIOD = 100
SUCCESS, TRUNCATED = 1, 3


def seen(tick: int) -> TimedObservation[str]:
    return TimedObservation(tick, tick * PERIOD, f"o{tick}")


def driven(tick: int, episode: int, index: int) -> TimedDecision[str]:
    return TimedDecision(tick, tick * PERIOD, episode, index, f"d{tick}")


def running(episode: int, tick: int, evaluation: bool = False) -> EpisodeEvent:
    return EpisodeEvent(episode, Phase.RUNNING, tick * PERIOD, 0, evaluation)


def ended(
    episode: int, tick: int, outcome: int = SUCCESS, evaluation: bool = False
) -> EpisodeEvent:
    return EpisodeEvent(episode, Phase.ENDED, tick * PERIOD, outcome, evaluation)


def feed(join: StepJoin[str, str], messages: Iterable[object]) -> list[JoinedStep[str, str]]:
    steps: list[JoinedStep[str, str]] = []
    for message in messages:
        if isinstance(message, TimedObservation):
            steps += join.observe(message)
        elif isinstance(message, TimedDecision):
            steps += join.decide(message)
        elif isinstance(message, EpisodeEvent):
            steps += join.stage(message, now=0.0)
    return steps


def ticks(steps: Sequence[JoinedStep[str, str]]) -> list[tuple[int, int, bool]]:
    return [(s.tick, s.step_index, s.is_last) for s in steps]


def an_episode() -> list[object]:
    """Three actions, ticks 1 to 3; the final observation is that of tick 4."""
    return [
        running(1, 1),
        seen(1), driven(1, 1, 0), seen(2), driven(2, 1, 1), seen(3), driven(3, 1, 2),
        ended(1, 4),
        seen(4),
    ]  # fmt: skip


def test_join_of_three_actions_gives_four_steps() -> None:
    steps = feed(StepJoin(), an_episode())
    assert ticks(steps) == [(1, 0, False), (2, 1, False), (3, 2, False), (4, 3, True)]
    assert [s.sequence for s in steps] == [0, 1, 2, 3]
    assert [s.is_first for s in steps] == [True, False, False, False]
    assert [s.outcome for s in steps] == [0, 0, 0, SUCCESS]
    assert [(s.observation, s.decision) for s in steps] == [
        ("o1", "d1"), ("o2", "d2"), ("o3", "d3"), ("o4", None),
    ]  # fmt: skip


def test_join_gives_steps_during_the_episode_one_late() -> None:
    """PITFALLS: data sent at the end of an episode only."""
    join: StepJoin[str, str] = StepJoin()
    assert feed(join, an_episode()[:3]) == []
    assert ticks(feed(join, an_episode()[3:5])) == [(1, 0, False)]
    assert ticks(feed(join, an_episode()[5:7])) == [(2, 1, False)]


def test_join_gives_the_last_transition() -> None:
    """PITFALLS: the last transition of every episode never stored."""
    last_action, final = feed(StepJoin(), an_episode())[-2:]
    assert last_action.decision == "d3"
    assert final.is_last and final.step_index == last_action.step_index + 1


def test_decision_from_before_the_arbiter_knew_of_the_end_is_no_step() -> None:
    messages = an_episode()
    late = [*messages[:-2], seen(4), driven(4, 1, 3), ended(1, 4), seen(5)]
    steps = feed(StepJoin(), late)
    assert ticks(steps)[-1] == (4, 3, True)
    assert steps[-1].decision is None


def test_final_step_waits_for_its_observation() -> None:
    join: StepJoin[str, str] = StepJoin()
    steps = feed(join, an_episode()[:-1])
    assert not any(s.is_last for s in steps)
    assert join.expire(0.5) == []
    assert ticks(feed(join, [seen(4)])) == [(4, 3, True)]


def test_final_observation_that_is_late_is_given_up() -> None:
    join: StepJoin[str, str] = StepJoin(final_timeout=1.0)
    feed(join, an_episode()[:-1])
    (final,) = join.expire(1.5)
    assert final.is_last and final.observation == "o3"
    assert final.step_index == 4, "a gap: the action did not lead to this observation"
    assert any("no observation after the end" in r for r in join.take_reports())
    assert join.problems["final_observation_missing"] == 1


def test_tick_without_a_decision_leaves_a_gap_in_the_index() -> None:
    messages = [m for m in an_episode() if m != driven(2, 1, 1)]
    join: StepJoin[str, str] = StepJoin()
    assert ticks(feed(join, messages)) == [(1, 0, False), (3, 2, False), (4, 3, True)]


def test_tick_that_the_arbiter_did_not_receive_leaves_a_gap_in_the_sequence() -> None:
    """The step index goes on, so that the sequence must tell: two periods are not one."""
    messages = [
        running(1, 1), seen(1), driven(1, 1, 0), seen(2), seen(3), driven(3, 1, 1), ended(1, 4),
        seen(4),
    ]  # fmt: skip
    join: StepJoin[str, str] = StepJoin()
    steps = feed(join, messages)
    assert [s.sequence for s in steps] == [0, 2, 3]
    assert join.problems["decision_missing"] == 1


def test_observation_that_is_lost_leaves_a_gap() -> None:
    messages = [m for m in an_episode() if m != seen(2)]
    join: StepJoin[str, str] = StepJoin()
    assert ticks(feed(join, messages)) == [(1, 0, False), (3, 2, False), (4, 3, True)]
    assert join.problems["observation_missing"] == 1


def test_last_decision_that_is_missing_is_awaited_but_not_for_ever() -> None:
    messages = [m for m in an_episode() if m != driven(3, 1, 2)]
    join: StepJoin[str, str] = StepJoin()
    assert ticks(feed(join, messages)) == [(1, 0, False), (2, 1, False)]
    assert ticks(join.expire(2.0)) == [(3, 2, True)], "the first observation that nobody answered"


def test_end_later_than_the_stamps_of_observations_to_come_waits_for_them() -> None:
    """Regression: outcomes were lost on a robot, where samples have an age and an end has none."""
    join: StepJoin[str, str] = StepJoin()
    late_end = EpisodeEvent(1, Phase.ENDED, 5 * PERIOD + 1, SUCCESS)
    messages = [*an_episode()[:-2], late_end, seen(4), seen(5), seen(6)]
    assert not any(s.is_last for s in feed(join, messages)), "a Decision may still be on its way"
    (final,) = join.expire(2.0)
    assert (final.tick, final.step_index, final.is_last) == (4, 3, True)
    assert (final.outcome, final.observation, final.sequence) == (SUCCESS, "o4", 3)


def test_final_observation_is_not_pushed_out_while_it_is_awaited() -> None:
    join: StepJoin[str, str] = StepJoin(capacity=4)
    late_end = EpisodeEvent(1, Phase.ENDED, 99 * PERIOD, SUCCESS)
    steps = feed(join, [*an_episode()[:-2], late_end, *(seen(t) for t in range(4, 12))])
    assert ticks(steps)[-1] == (4, 3, True)


def test_episode_that_leaves_no_step_leaves_a_gap_in_the_sequence() -> None:
    """Pacing expects its Steps: the learner must count them as lost."""
    join: StepJoin[str, str] = StepJoin()
    steps = feed(join, [running(1, 1), driven(1, 1, 0), seen(2), ended(1, 2), *an_episode_2()])
    assert [s.sequence for s in steps] == [2, 3]


def an_episode_2() -> list[object]:
    return [running(2, 3), seen(3), driven(3, 2, 0), ended(2, 4), seen(4)]


def test_episode_without_an_end_has_no_last_step() -> None:
    join: StepJoin[str, str] = StepJoin()
    steps = feed(join, [*an_episode()[:-2], running(2, 8), seen(8), driven(8, 2, 0)])
    assert not any(s.is_last for s in steps)
    assert ticks(steps) == [(1, 0, False), (2, 1, False), (3, 2, False)]
    assert join.problems["episode_without_end"] == 1


def test_episode_without_decisions_leaves_no_step() -> None:
    join: StepJoin[str, str] = StepJoin()
    assert feed(join, [running(1, 1), seen(1), ended(1, 2), seen(2)]) + join.expire(9.0) == []


def test_evaluation_episode_is_marked() -> None:
    messages = [running(1, 1, True), *an_episode()[1:-2], ended(1, 4, evaluation=True), seen(4)]
    assert all(s.evaluation for s in feed(StepJoin(), messages))


def test_recorder_that_starts_late_has_no_first_step() -> None:
    steps = feed(StepJoin(), [running(1, 1), seen(3), driven(3, 1, 2), ended(1, 4), seen(4)])
    assert ticks(steps) == [(3, 2, False), (4, 3, True)]
    assert not steps[0].is_first


def test_observer_that_was_restarted_is_noticed() -> None:
    join: StepJoin[str, str] = StepJoin()
    feed(join, [running(1, 5), seen(5), driven(5, 1, 0), seen(6), driven(6, 1, 1)])
    steps = feed(
        join, [TimedObservation(0, 700, "new"), TimedDecision(0, 700, 1, 2, "new"), ended(1, 8)]
    )
    steps += feed(join, [TimedObservation(1, 800, "last")])
    assert join.problems["observer_restarted"] == 1
    assert steps[-1].is_last and steps[-1].observation == "last"
    assert [(s.step_index, s.sequence) for s in steps] == [(1, 1), (2, 3), (3, 4)], "a gap"


def test_decision_of_the_old_observers_last_tick_holds_nothing_up() -> None:
    """The arbiter publishes it when the new observer's first observation comes."""
    join: StepJoin[str, str] = StepJoin()
    feed(join, [running(1, 500), seen(500), driven(500, 1, 0), seen(501)])
    messages: list[object] = [TimedObservation(0, 50_200, "n0"), driven(501, 1, 1)]
    for i in range(1, 4):
        messages += [
            TimedObservation(i, 50_200 + i, f"n{i}"),
            TimedDecision(i - 1, 50_199 + i, 1, i + 1, "new"),
        ]
    steps = feed(join, [*messages, EpisodeEvent(1, Phase.ENDED, 50_203, SUCCESS)])
    assert ticks(steps) == [(500, 0, False), (0, 2, False), (1, 3, False), (2, 4, False)] + [
        (3, 5, True)
    ]
    assert [s.sequence for s in steps] == list(range(5)), "the index tells already"


@pytest.mark.parametrize("max_gap", [0.0, 250e-9])
def test_observations_at_regular_times_leave_no_gap(max_gap: float) -> None:
    join: StepJoin[str, str] = StepJoin(max_gap=max_gap)
    messages = [running(1, 1), seen(1), driven(1, 1, 0), seen(2), driven(2, 1, 1), ended(1, 3)]
    assert [s.sequence for s in feed(join, [*messages, seen(3)])] == [0, 1, 2]


@pytest.mark.parametrize("last", [False, True])
def test_observer_that_stalled_leaves_a_gap_although_its_ticks_go_on(last: bool) -> None:
    """Regression: what happened in 4.6 s was learned as one step."""
    join: StepJoin[str, str] = StepJoin(max_gap=250e-9)
    late = TimedObservation(2, 4700, "late")
    messages: list[object] = [running(1, 1), seen(1), driven(1, 1, 0), late]
    if last:
        messages += [EpisodeEvent(1, Phase.ENDED, 4700, SUCCESS)]
    else:
        messages += [
            TimedDecision(2, 4700, 1, 1, "d"),
            TimedObservation(3, 4800, "o3"),
            EpisodeEvent(1, Phase.ENDED, 4800),
        ]
    steps = feed(join, messages)
    assert [s.step_index for s in steps] == list(range(len(steps)))
    assert [s.sequence for s in steps] == ([0, 2] if last else [0, 2, 3])
    assert join.problems["observation_gap"] == 1


def test_episode_node_that_counts_from_one_again_is_joined() -> None:
    join: StepJoin[str, str] = StepJoin()
    feed(join, an_episode())
    again = [running(1, 11), seen(11), driven(11, 1, 0), ended(1, 12), seen(12)]
    assert ticks(feed(join, again)) == [(11, 0, False), (12, 1, True)]


def test_waiting_observations_are_bounded_and_the_loss_is_reported() -> None:
    join: StepJoin[str, str] = StepJoin(capacity=4)
    feed(join, [driven(t, 7, t) for t in range(10)])
    assert join.problems["decision_dropped"] == 6
    assert "episode 7" in join.take_reports()[0]


def test_flush_at_the_end_gives_the_last_step() -> None:
    join: StepJoin[str, str] = StepJoin()
    feed(join, an_episode()[:-2])
    assert ticks(join.flush()) == [(3, 2, False)]


@pytest.mark.parametrize(
    ("name", "value"), [("capacity", 1), ("final_timeout", 0.0), ("max_gap", -0.1)]
)
def test_join_with_a_bad_setting_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        StepJoin(**{name: value})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """One episode: idle ticks before it, actions, and what does not arrive."""

    idle: int
    actions: int
    unseen: tuple[int, ...]  # steps without an observation
    silent: tuple[int, ...]  # steps without a decision
    races: bool  # the arbiter made one Decision on the final observation
    age: int  # of the samples in it when the end was announced: so much later is the end's stamp


PLANS = st.lists(
    st.builds(
        Plan,
        idle=st.integers(0, 3),
        actions=st.integers(1, 6),
        unseen=st.lists(st.integers(1, 5), max_size=1).map(tuple),
        silent=st.lists(st.integers(1, 5), max_size=1).map(tuple),
        races=st.booleans(),
        age=st.integers(0, 250),
    ),
    min_size=1,
    max_size=4,
)


def first_unanswered(plan: Plan, start: int) -> int:
    """The first observed tick after the last one that has a Decision."""
    answered = max(i for i in range(plan.actions) if i not in plan.silent)
    open_ticks = range(answered + 1, plan.actions + 1)
    return start + min(i for i in open_ticks if i not in plan.unseen or i == plan.actions)


def played(plans: Sequence[Plan]) -> tuple[list[list[object]], list[tuple[int, int, int, bool]]]:
    """The messages of each topic, and the Steps (episode, tick, index, is_last) they are."""
    observations: list[object] = []
    decisions: list[object] = []
    episodes: list[object] = []
    expected: list[tuple[int, int, int, bool]] = []
    tick = 0
    for number, plan in enumerate(plans, start=1):
        observations += [seen(tick + i) for i in range(plan.idle)]
        tick += plan.idle
        episodes.append(running(number, tick))
        for index in range(plan.actions):
            if index not in plan.unseen:
                observations.append(seen(tick + index))
            if index not in plan.silent:
                decisions.append(driven(tick + index, number, index))
            if index not in plan.unseen and index not in plan.silent:
                expected.append((number, tick + index, index, False))
        final = tick + plan.actions
        observations += [seen(final + i) for i in range(4)]  # idle ticks, up to the age of the end
        races = plan.races and not plan.age
        if races:
            decisions.append(driven(final, number, plan.actions))
        episodes.append(EpisodeEvent(number, Phase.ENDED, final * PERIOD + plan.age, SUCCESS))
        last = final if races else first_unanswered(plan, tick)
        expected.append((number, last, last - tick, True))
        tick = final + 4
    return [observations, decisions, episodes], expected


@settings(max_examples=300, deadline=None)
@given(plans=PLANS, choices=st.lists(st.integers(0, 2), max_size=120))
def test_join_with_any_interleaving_gives_the_same_steps(
    plans: list[Plan], choices: list[int]
) -> None:
    """PITFALLS: transitions paired with the image of another run."""
    topics, expected = played(plans)
    order = []
    for choice in [*choices, *[0] * 200, *[1] * 200, *[2] * 200]:
        if topics[choice]:
            order.append(topics[choice].pop(0))
    join: StepJoin[str, str] = StepJoin(capacity=500)
    steps = feed(join, order) + join.expire(99.0) + join.flush()
    assert [(s.episode_id, s.tick, s.step_index, s.is_last) for s in steps] == expected
    assert [s.sequence for s in steps] == list(range(len(steps)))
    assert all(s.observation == f"o{s.tick}" for s in steps)
    assert all(s.decision == (None if s.is_last else f"d{s.tick}") for s in steps)
