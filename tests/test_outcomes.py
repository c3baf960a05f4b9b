# SPDX-License-Identifier: Apache-2.0
"""Every outcome reaches the learner, however old the samples of an observation are.

Arbiter, episode node, recorder and labels without ROS, as they run on a robot: ticks at 10 Hz,
commands at 50 Hz, messages that take their time, and an end that comes at any moment in between.
"""

import heapq
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.devices import DeviceRack
from rlif_intervention.episodes import CountedDecision, EpisodeConfig, EpisodeKeeper, Outcome
from rlif_intervention.episodes import Phase as KeeperPhase
from rlif_intervention.join import EpisodeEvent, Phase, StepJoin, TimedDecision, TimedObservation
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Source, StepRecord, follows

MS = 1_000_000  # ns
PERIOD = 100 * MS
MAX_STEPS = 12
OUTCOMES = {
    "button": Outcome.SUCCESS,
    "detector": Outcome.SUCCESS,
    "service": Outcome.FAILURE,
    "time limit": Outcome.TRUNCATED,
}


class Session:
    """The graph in simulated time, in ns. Each topic keeps its order on the way to each node."""

    def __init__(self, age, latency, seed, ends):
        """age: of the oldest sample of an observation; ends: (how, ms after the start) each."""
        self.age, self.latency, self.random = age, latency, random.Random(seed)
        self.ends, self.ended = list(ends), []
        self.now, self._order, self._events, self._links = 0, itertools.count(), [], {}
        self.arbiter = Arbiter(ArbiterConfig(require_operator=False), DeviceRack([]))
        limits = {"max_steps": MAX_STEPS, "max_episodes": len(self.ends)}
        self.keeper = EpisodeKeeper(
            EpisodeConfig(auto_start=True, reset=False, settle_time=200 * MS, **limits)
        )
        self.join, self.steps = StepJoin(max_gap=0.25), []

    def run(self):
        """Until all episodes have ended, and for the time that the recorder waits thereafter."""
        self.arbiter.arm(True)
        self.keeper.control(self.arbiter.state, "", 0.0, 0)
        self.keeper.pacer.learner(0, 0, True)
        ticks = 20 * len(self.ends) + 14
        for tick in range(1, ticks):
            self.at(tick * PERIOD, self.observe, tick)
        for time in range(PERIOD, ticks * PERIOD, 20 * MS):
            self.at(time, self.turn)
        while self._events:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        return self

    def at(self, time, call, *arguments):
        heapq.heappush(self._events, (time, next(self._order), call, arguments))

    def send(self, link, call, *arguments):
        """Arrives after a while, and not before what was sent on `link` earlier."""
        arrival = self.now + self.random.randint(0, self.latency)
        self._links[link] = max(arrival, self._links.get(link, 0))
        self.at(self._links[link], call, *arguments)

    @property
    def seconds(self):
        return self.now * 1e-9

    def observe(self, tick):
        stamp = self.now - self.age
        self.send(
            "observation to recorder", self.to_join, "observe", TimedObservation(tick, stamp, tick)
        )
        self.send("observation to arbiter", self.to_arbiter, tick, stamp)

    def to_arbiter(self, tick, stamp):
        decision = self.arbiter.observe(tick, stamp, self.seconds)
        self.arbiter.policy_action(tick, stamp, (0.5, 0.0, 0.0), 1, self.seconds)
        if decision is None:
            return
        d, counted = decision, CountedDecision(decision.stamp, decision.source, decision.onset)
        driven = TimedDecision(d.tick, d.stamp, d.episode_id, d.step_index, d)
        self.send("decision to recorder", self.to_join, "decide", driven)
        self.send("decision to episode", self.to_keeper, d.episode_id, counted)

    def to_keeper(self, episode, counted):
        self.publish(self.keeper.decision(episode, counted, self.seconds))

    def to_join(self, method, message):
        self.steps += getattr(self.join, method)(message)

    def turn(self):
        """The timers of all nodes."""
        self.arbiter.output(self.seconds)
        self.keeper.control(self.arbiter.state, "", self.seconds, self.now)
        self.publish(self.keeper.leave_ended(self.now))
        report = self.keeper.start(self.seconds, self.now)
        if report is not None:
            how, after = self.ends[len(self.ended)]
            self.at(self.now + after * MS, self.finish, how, report.id)
            self.publish(report)
        self.steps += self.join.expire(self.seconds)

    def finish(self, how, episode):
        """What a person or a detector does."""
        if episode != self.keeper.id or self.keeper.phase is not KeeperPhase.RUNNING:
            return
        if how == "button":
            self.publish(self.keeper.succeed(self.now, how))
        elif how == "detector":  # has looked at something, and thought for a while
            self.publish(self.keeper.succeed(self.now - self.random.randint(0, 80) * MS, how))
        elif how == "service":
            self.publish(self.keeper.end(Outcome.FAILURE, how, self.now))

    def publish(self, report):
        if report is None:
            return
        if report.phase is KeeperPhase.ENDED:
            self.ended.append(report)
        self.send("episode to arbiter", self.episode_to_arbiter, report)
        stage = EpisodeEvent(report.id, Phase(report.phase), report.stamp, report.outcome)
        self.send("episode to recorder", self.stage, stage)

    def stage(self, stage):
        self.steps += self.join.stage(stage, self.seconds)

    def episode_to_arbiter(self, report):
        if report.phase is KeeperPhase.RUNNING:
            self.arbiter.begin_episode(report.id, report.stamp, report.max_steps)
        else:
            ended = report.phase is KeeperPhase.ENDED
            self.arbiter.end_episode(report.stamp if ended else None)


def record(joined):
    d = joined.decision
    return StepRecord(
        sequence=joined.sequence,
        episode_id=joined.episode_id,
        step_index=joined.step_index,
        is_first=joined.is_first,
        is_last=joined.is_last,
        outcome=joined.outcome,
        source=d.source if d else Source.NONE,
        onset=bool(d and d.onset),
        intervention_id=d.intervention_id if d else 0,
        evaluation=False,
        state=np.zeros(1, dtype=np.float32),
        action=np.asarray(d.executed_action if d else (), dtype=np.float32),
    )


def check_labels(session):
    """All steps of an episode join, and its outcome is in the labels of the last ones."""
    records = [record(s) for s in session.steps]
    rewards, terminals = label_rewards(records)
    for report in session.ended:
        own = [i for i, r in enumerate(records) if r.episode_id == report.id]
        assert [records[i].is_last for i in own] == [False] * (len(own) - 1) + [True]
        assert all(follows(records[i], records[i - 1]) for i in own[1:]), "nothing is missing"
        assert records[own[-1]].outcome == report.outcome
        success, failure = (report.outcome is o for o in (Outcome.SUCCESS, Outcome.FAILURE))
        assert [bool(terminals[i]) for i in own] == [False] * (len(own) - 2) + [success, False]
        policy = [i for i in own if records[i].source == Source.POLICY]
        assert [i for i in own if rewards[i] == -1.0] == policy[-1:] * failure
    session.keeper.pacer.learner(len(records), 0, True)
    assert session.keeper.pacer.waiting_for() is None, "pacing waits for no more than there is"


@pytest.mark.parametrize("how", OUTCOMES)
@pytest.mark.parametrize("age", [0, 1, 10, 40, 90, 100, 110, 150])
def test_outcomes_with_samples_of_any_age_reach_the_labels(age, how):
    """Regression: at 40 ms of age 43 % of the successes and failures reached nobody."""
    for phase in range(0, 100, 12):
        after = 5000 if how == "time limit" else 700 + phase
        session = Session(age * MS, 4 * MS, phase, [(how, after)]).run()
        assert [r.outcome for r in session.ended] == [OUTCOMES[how]]
        pacer = session.keeper.pacer
        pacer.learner(len(session.steps) - 1, 0, True)
        assert pacer.waiting_for() is not None, "pacing waits for every Step"
        check_labels(session)


ENDS = st.lists(
    st.tuples(st.sampled_from(list(OUTCOMES)), st.integers(400, 1500)), min_size=1, max_size=3
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 250), st.integers(0, 60), st.integers(0, 2**16), ENDS)
def test_outcomes_with_any_ages_and_latencies_reach_the_labels(age, latency, seed, ends):
    session = Session(age * MS, latency * MS, seed, ends).run()
    assert len(session.ended) == len(ends)
    check_labels(session)
