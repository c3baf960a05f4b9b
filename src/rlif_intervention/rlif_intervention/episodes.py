# SPDX-License-Identifier: Apache-2.0
"""Where the current episode stands: phases, outcome, counts, and whether the next may start.

    READY --wanted--> RESETTING --reset done--> READY --armed, learner caught up--> RUNNING
      ^                                                                                |
      +--all episodes done-- ENDED <--success, failure, discard, time limit, ----------+
                                      control lost

RESETTING goes back to READY, not reset, when the arbiter is no longer armed.

No clock and no ROS: `now` is wall time in s of a steady clock, stamps are ROS times in ns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlif_node.states import ControlState, HoldReason, Outcome, Phase, Source

from .arbitration import ARMED

# The operator may drive away where Servo has halted; in the other cases no command is carried out.
NO_EPISODE = frozenset(HoldReason) - {HoldReason.NONE, HoldReason.SERVO_STATUS, HoldReason.OTHER}
CONTROL_TIMEOUT = 3.0  # s; the arbiter repeats its state each second
DRIVING = frozenset({ControlState.POLICY, ControlState.OPERATOR})


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """max_steps, max_episodes 0: no limit; control_lost_timeout in s; settle_time in ns.

    arm_dwell: s from arming until a reset may begin
    """

    auto_start: bool = False
    max_steps: int = 0
    evaluation: bool = False
    pace: bool = False
    max_episodes: int = 0
    reset: bool = True
    control_lost_timeout: float = 10.0
    settle_time: int = 0
    arm_dwell: float = 0.0
    wait_for_policy: bool = False
    wait_for_recorder: bool = False

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_episodes", "settle_time"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not math.isfinite(self.control_lost_timeout) or self.control_lost_timeout <= 0.0:
            raise ValueError(
                f"control_lost_timeout is {self.control_lost_timeout}; expected seconds above 0"
            )
        if not math.isfinite(self.arm_dwell) or self.arm_dwell < 0.0:
            raise ValueError(f"arm_dwell is {self.arm_dwell}; expected seconds, 0 or more")


@dataclass(frozen=True)
class CountedDecision:
    """What the counts need of a Decision."""

    stamp: int
    source: Source
    onset: bool
    intervention: int = 0


@dataclass(frozen=True)
class Report:
    """As rlif_msgs/Episode."""

    id: int
    phase: Phase
    stamp: int
    outcome: Outcome
    reason: str
    max_steps: int
    steps: int
    interventions: int
    operator_steps: int
    evaluation: bool
    last_intervention: int = 0
    unrecorded: str = ""


class Pacer:
    """Has the learner done its updates for every Step that was published?"""

    def __init__(self) -> None:
        self._expected = 0  # Steps of ended episodes since `_base`
        self._base = 0  # LearnerStatus.steps when the learner (re)started its count
        self._steps: int | None = None
        self._lost = 0
        self._caught_up = False
        self._counting = True  # not of an episode in whose middle the learner began to count
        self._within = False  # an episode that is not counted yet

    def begin(self) -> None:
        """An episode begins. A gap that was left for a hole and not for a Step is forgotten."""
        self._counting = self._within = True
        self._expected = max(self._expected, self._received())

    def add(self, steps: int) -> None:
        """`steps` more Steps were published."""
        self._within = False
        if self._counting:
            self._expected += steps

    def learner(self, steps: int, lost: int, caught_up: bool) -> bool:
        """A LearnerStatus. Returns True if the learner's count was restarted."""
        restarted = self._steps is not None and steps < self._steps
        if self._steps is None:
            # A resumed learner begins with the count of its checkpoint.
            self._base = max(0, steps + lost - self._expected)
            self._counting = not self._within
        elif restarted:
            self._expected, self._base = 0, steps + lost
            self._counting = False
        self._steps, self._lost, self._caught_up = steps, lost, caught_up
        return restarted

    def waiting_for(self) -> str | None:
        """Why the next episode has to wait; None: it need not."""
        if self._steps is None:
            return "no status from the learner yet: is it running? (set pace to false without one)"
        received = self._received()
        if received < self._expected:
            return f"the learner has {received} of {self._expected} steps: is the recorder alive?"
        return None if self._caught_up else "the learner is still working through the last steps"

    def _received(self) -> int:
        return 0 if self._steps is None else self._steps - self._base + self._lost


class EpisodeKeeper:
    """Owns the phase. Methods that return a Report want it published; None: nothing changed."""

    def __init__(self, config: EpisodeConfig) -> None:
        self.config = config
        self.pacer = Pacer()
        self.phase = Phase.READY
        self.id = 1
        self.reset_done = not config.reset
        self._requested = False
        self.policy_seen = False  # has it answered an observation yet?
        self.recorder_seen = False  # is it there now?
        self._started = 0  # episodes since the start of this node, or since `configure`
        self._control: ControlState | None = None
        self._control_reason = ""
        self._control_at = -math.inf
        self._armed_at = -math.inf
        self._hold = HoldReason.NONE
        self._last_intervention = 0
        self.recording_problem = ""  # why the bag is not written now
        self._not_driving_since = math.inf
        self._heard = 0.0
        self._newest = 0  # stamp in ns of the newest Decision
        # Of the episode that ran last, or runs:
        self._counted_id = 0
        self._start = self._end = 0
        self._max_steps = 0
        self._evaluation = False
        self._outcome, self._reason = Outcome.RUNNING, ""
        self._unrecorded = ""
        self._driven: list[CountedDecision] = []

    def configure(self, config: EpisodeConfig, restart_count: bool) -> None:
        """New parameters, for the next episode. restart_count: `max_episodes` counts from here."""
        if restart_count:
            self._started = 0
        self.config = config

    # ---- inputs

    def request_start(self) -> tuple[bool, str]:
        """A human asks for the next episode."""
        if self.phase is Phase.RUNNING:
            return False, f"episode {self.id} is running: end it first"
        self._requested = True
        return True, "the next episode starts as soon as it may"

    def used_episodes(self, last: int) -> None:
        """Ids up to `last` have been used, by an episode node before this one."""
        if not self._counted_id:
            self.id = max(self.id, last + 1)

    def control(
        self,
        state: ControlState,
        reason: str,
        now: float,
        ros: int,
        by_human: bool = False,
        hold: HoldReason = HoldReason.NONE,
    ) -> Report | None:
        """The arbiter's state. A human who disarms or stops has judged the policy: a failure.

        It also withdraws the request for an episode, and no reset outlasts the armed state: arming
        alone must move nothing.

        hold: what the robot's side, or an arm that does not follow, says against driving
        """
        self._control_at, self._hold = now, hold
        if state in DRIVING:
            self._not_driving_since = math.inf
        elif self._control in DRIVING:
            self._not_driving_since = now
        if state in ARMED and self._control not in ARMED:
            self._armed_at = now
        if by_human and state not in ARMED and state is not self._control:
            self._requested = False
        self._control, self._control_reason = state, reason
        if self.phase is not Phase.RUNNING:
            return None if state in ARMED else self._cancel_reset(ros)
        if by_human and state not in ARMED:
            return self.end(Outcome.FAILURE, f"aborted: {reason}", ros)
        if state is ControlState.DISARMED:
            return self.end(Outcome.TRUNCATED, f"disarmed: {reason}", ros)
        return None

    def decision(self, episode: int, decision: CountedDecision, now: float) -> Report | None:
        """A Decision. Ends the episode at its time limit."""
        self._last_intervention = max(self._last_intervention, decision.intervention)
        self._newest = max(self._newest, decision.stamp)
        if episode != self.id and episode != self._counted_id:
            return None
        if self.phase is not Phase.RUNNING:
            self._count_late(episode, decision)
            return None
        self._heard = now
        self._driven.append(decision)
        if 0 < self._max_steps <= len(self._driven):
            return self.end(
                Outcome.TRUNCATED, f"time limit of {self._max_steps} steps", decision.stamp + 1
            )
        return None

    def _count_late(self, episode: int, decision: CountedDecision) -> None:
        """A Decision that arrives after the end was a Step, if its stamp is before the end."""
        if episode == self._counted_id and self._start <= decision.stamp < self._end:
            if not self._evaluation:
                self.pacer.add(1 if self._driven else 2)
            self._driven.append(decision)

    def succeed(self, stamp: int, reason: str) -> Report | None:
        """Success at `stamp`; one from before the start is left over from another episode."""
        if self.phase is not Phase.RUNNING or stamp < self._start:
            return None
        return self.end(Outcome.SUCCESS, reason, stamp)

    def end(self, outcome: Outcome, reason: str, stamp: int) -> Report | None:
        """End the running episode at `stamp`; rlif_msgs/Episode defines its last Step."""
        if self.phase is not Phase.RUNNING:
            return None
        self.phase, self._outcome, self._reason = Phase.ENDED, outcome, reason
        self._end = max(stamp, self._start)
        self._driven = [d for d in self._driven if d.stamp < self._end]
        if self._driven and not self._evaluation:
            self.pacer.add(len(self._driven) + 1)
        self.reset_done = not self.config.reset
        if outcome is Outcome.DISCARDED:
            self._started = max(0, self._started - 1)  # one more in its place
        return self.report(self._end)

    # ---- progress

    def check(self, now: float, ros: int) -> Report | None:
        """Time-outs; call often."""
        if self.phase is not Phase.RUNNING:
            if now - self._control_at > CONTROL_TIMEOUT:
                self._control = None  # the last state of an arbiter that has ended stays latched
                return self._cancel_reset(ros)
            return None
        if self.config.wait_for_recorder and not self.recorder_seen:
            self._unrecorded = self._unrecorded or "the recorder ended before the episode"
        self._unrecorded = self._unrecorded or self.recording_problem
        limit = self.config.control_lost_timeout
        if now - self._not_driving_since > limit:
            name = self._control.name if self._control is not None else "unknown"
            return self.end(
                Outcome.TRUNCATED, f"{name} for more than {limit} s: {self._control_reason}", ros
            )
        if now - self._heard > limit:
            self._control = None  # until it is received again it may be dead: the arm is not reset
            return self.end(
                Outcome.TRUNCATED, f"no decision from the arbiter for more than {limit} s", ros
            )
        return None

    @property
    def wanted(self) -> bool:
        """Another episode is asked for."""
        done = 0 < self.config.max_episodes <= self._started
        return self._requested or (self.config.auto_start and not done)

    def leave_ended(self, ros: int) -> Report | None:
        """ENDED -> RESETTING or READY. Not before the last observation has been taken."""
        if self.phase is not Phase.ENDED or ros < self._end + self.config.settle_time:
            return None
        if not self.wanted and not self.config.auto_start:
            return None
        self.id += 1
        self.phase = Phase.READY
        return self.report(ros)

    def begin_reset(self, now: float, ros: int) -> Report | None:
        """READY -> RESETTING, if an episode is wanted and the arm may move."""
        if self.phase is not Phase.READY or self.reset_done or not self.wanted:
            return None
        if self._unarmed() is not None or now < self._armed_at + self.config.arm_dwell:
            return None
        self.phase = Phase.RESETTING
        return self.report(ros)

    def _cancel_reset(self, ros: int) -> Report | None:
        """RESETTING -> READY: after the next arming the reset begins anew."""
        if self.phase is not Phase.RESETTING:
            return None
        self.phase = Phase.READY
        return self.report(ros)

    def end_reset(self, ros: int) -> Report | None:
        """The reset has succeeded."""
        if self.phase is not Phase.RESETTING:
            return None
        self.phase, self.reset_done = Phase.READY, True
        return self.report(ros)

    def waiting_for(self) -> str | None:
        """In READY: why the episode does not start; None: it may."""
        if not self.wanted:
            return "no episode was requested: call start_episode, or set auto_start"
        unarmed = self._unarmed()
        if unarmed is not None:
            return unarmed
        if self._hold in NO_EPISODE:
            return f"the arm cannot be driven: {self._control_reason}"
        if self.config.wait_for_policy and not self.policy_seen:
            return (
                "no action from the policy yet: is it running? (else set wait_for_policy to false)"
            )
        if self.config.wait_for_recorder and not self.recorder_seen:
            return (
                "no recorder, which keeps and passes on what happens: has it ended, and why? "
                "(else set wait_for_recorder to false)"
            )
        return self.pacer.waiting_for() if self.config.pace else None

    def start(self, now: float, ros: int) -> Report | None:
        """READY -> RUNNING, if nothing is in the way.

        The start is just after the newest stamp known, so that no observation from before the
        reset can be the first Step.
        """
        if self.phase is not Phase.READY or not self.reset_done or self.waiting_for() or ros <= 0:
            return None
        self.phase, self._requested = Phase.RUNNING, False
        self._started += 1
        self._counted_id, self._driven = self.id, []
        self._outcome, self._reason = Outcome.RUNNING, ""
        self._unrecorded = self.recording_problem
        self._max_steps, self._evaluation = self.config.max_steps, self.config.evaluation
        self.pacer.begin()
        self._start = max(ros, self._newest) + 1
        self._not_driving_since = math.inf if self._control in DRIVING else now
        self._heard = now
        return self.report(self._start)

    def _unarmed(self) -> str | None:
        """Why the arm may not move; None: a human has armed."""
        if self._control is None:
            return "nothing received from the arbiter: is it running?"
        if self._control not in ARMED:
            return f"the arbiter is {self._control.name}: {self._control_reason}"
        return None

    def report(self, stamp: int) -> Report:
        running = self.phase in (Phase.RUNNING, Phase.ENDED)
        return Report(
            id=self.id,
            phase=self.phase,
            stamp=stamp,
            outcome=self._outcome if running else Outcome.RUNNING,
            reason=self._reason if running else "",
            max_steps=self._max_steps if running else self.config.max_steps,
            steps=len(self._driven) if running else 0,
            interventions=sum(d.onset for d in self._driven) if running else 0,
            operator_steps=(
                sum(d.source is Source.OPERATOR for d in self._driven) if running else 0
            ),
            evaluation=self._evaluation if running else self.config.evaluation,
            last_intervention=self._last_intervention,
            unrecorded=self._unrecorded if running else self.recording_problem,
        )
