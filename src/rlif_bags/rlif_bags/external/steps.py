# SPDX-License-Identifier: Apache-2.0
"""Steps out of external recordings, by a mapping of their topics.

The same code as live makes them: the observer's samples, ages and features, and the arbiter's rule
of what is one intervention. A tick of `control_rate` begins with an observation; the action is the
mean of the commands in the tick, and one command of the operator's marks the whole tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rlif_bags.external.commands import OtherJointsError, command_values, gripper_asked
from rlif_bags.external.control_source import ControlSource, kind_of
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.readings import Readings, header_stamp, type_name, wrong_type
from rlif_bags.external.report import ConversionReport
from rlif_intervention.gripper import Gripper, GripperConfig
from rlif_intervention.interventions import InterventionConfig, InterventionTracker
from rlif_intervention.ticks import Source as Asker
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_policy.features import FeatureError, Pose
from rlif_policy.images import ImageError
from rlif_policy.sampling import LatestSamples

_JOINTS = "joint_states"
_NO_ACTION = np.zeros(0, np.float32)
# What a message raises that is not as the mapping expects it.
_UNUSABLE = (FeatureError, ImageError, ValueError, AttributeError, IndexError, TypeError)
_Observation = tuple[np.ndarray, tuple[np.ndarray, ...]]  # state and images
_Gap = tuple[str, str, str]  # where, what kind, details


def _reason(error: Exception, message: Any) -> str:
    """Why a message cannot be used; one without a field is named by its type."""
    if isinstance(error, AttributeError):
        return f"found a {type_name(message)}, which has no {error.name}"
    return str(error)


class _ControlEvent(NamedTuple):
    """Something by which an intervention begins, goes on or ends."""

    stamp: int  # ns
    engaged: bool  # the operator is in control
    command: bool  # a command, or a change of the gripper; else the state of the device only


@dataclass
class _Tick:
    """An open tick: its observation, and what happened in it."""

    start: int  # ns
    observation: _Observation | None  # None: it cannot be used, and gives no step
    gaps: tuple[_Gap, ...] = ()  # why it gives none; with an observation it may be the last one
    held: bool = False  # whether the operator was in control when it began
    commands: list[np.ndarray] = field(default_factory=list)
    events: list[_ControlEvent] = field(default_factory=list)
    gripper: float = 0.0  # what was commanded last when the tick ended
    grasped: bool = False  # whether that changed in it

    @property
    def acted(self) -> bool:
        """Whether anything was commanded in it."""
        return bool(self.commands) or self.grasped


class ExternalSteps:
    """Feed it messages in the order of their log times; it yields the Steps with their stamps."""

    def __init__(self, mapping: TopicMapping, report: ConversionReport) -> None:
        self.mapping, self.report = mapping, report
        self._layout = mapping.layout
        self._forget()
        self._tracker = InterventionTracker(InterventionConfig(release_dwell=mapping.release_dwell))
        self._period = round(1e9 / mapping.control_rate)
        self._source = ControlSource(mapping)
        read = (*mapping.sources.items(), *mapping.cameras.items())
        # Topic, what reads its messages (log time in ns, message), and who is told that one cannot
        # be used. A topic may have several roles.
        self._roles: list[tuple[str, Callable[[int, Any], None], Callable[[str], None]]] = [
            *(
                (t, partial(self._take_reading, name), partial(self._lose, name))
                for name, t in read
            ),
            (mapping.driver_topic, self._take_source, self._source.refuse),
            (mapping.gripper.get("topic", ""), self._take_gripper, lambda _: None),
            (mapping.command, self._take_command, lambda _: None),
        ]
        self._newest, self._shift = 0, 0  # ns; log time so far, and what it was set back in all
        self._command: tuple[int, np.ndarray] | None = None  # newest, with its time
        self._command_frame = ""  # of the first command that names one
        self._newest_act = 0  # ns; of a command, or of a change of the gripper
        self._in_force = (0, np.zeros(len(mapping.motion)))  # in the last tick that had a command
        self._tick: _Tick | None = None
        # Ticks without a command: steps if another command follows, else beyond the episode.
        self._idle: list[_Tick] = []
        self._next = -1  # ns, of the next tick; below 0: no episode
        self._episode, self._index, self._sequence = 0, 0, 0
        self._start: Pose | None = None  # of the end effector, where the episode began
        self._last_onset, self._any = 0, False  # whether this episode has a Step
        self._ends = 0  # Steps without an action

    def _forget(self) -> None:
        """Begin with no sample."""
        names = [*self._layout.sources, *self.mapping.cameras]
        self._samples = LatestSamples(dict.fromkeys(names, round(self.mapping.max_age * 1e9)))
        self._readings = Readings(self.mapping)
        # The bag has what was commanded: nothing is held back here for a time.
        config = GripperConfig(threshold=self.mapping.gripper_threshold, interval=0.0)
        self._gripper = Gripper(config)
        self._success: int | None = None  # ns, of the newest success message
        self._taken: dict[str, int] = {}  # ns; when the newest image of each camera was taken

    def feed(self, topic: str, stamp: int, message: Any) -> Iterator[tuple[int, StepRecord]]:
        """One message, logged at `stamp` (ns)."""
        yield from self._watch_clock(topic, stamp)
        stamp = max(stamp + self._shift, self._newest)
        self._newest = stamp
        while 0 <= self._next <= stamp:
            yield from self._begin_tick(self._next)
        self._take(topic, stamp, message)
        if topic == self.mapping.success:
            data = getattr(message, "data", True)  # without any, the message is the event
            if kind_of(data) == "a flag":
                yield from self._take_success(topic, stamp, bool(data))
            else:
                problem = str(wrong_type(message, "a Bool, or a message without data"))
                self.report.refuse(topic, stamp - self._shift, problem)

    def finish(self) -> Iterator[tuple[int, StepRecord]]:
        """The bag is over."""
        self._source.received(self._newest)
        silence = self._source.silence / 1e9
        if silence > self.mapping.episode_gap:
            self.report.notes.append(
                f"{self.report.bag}: {self.mapping.driver_topic}: its longest silence is "
                f"{silence:.1f} s, in which the control source is taken to stay the same; a "
                "`timeout` of the driver makes it a gap"
            )
        if self._next >= 0:
            yield from self._end(self._newest, Outcome.TRUNCATED)
        where = f"{self.report.bag}: {self.mapping.driver_topic}"
        self.report.notes += [f"{where}: {note}" for note in self._source.notes()]
        actions = self.report.steps - self._ends
        if actions and self.report.clipped == actions:
            self.report.notes.append(
                f"{self.report.bag}: {self.mapping.command}: all actions are clipped to [-1, 1]: is "
                "the scale in the mapping that of the commands?"
            )

    def _watch_clock(self, topic: str, stamp: int) -> Iterator[tuple[int, StepRecord]]:
        """Time that jumps ends the episode; samples from before a jump back are dropped."""
        passed = stamp + self._shift - self._newest
        if not self._newest or 0 <= passed <= self.mapping.episode_gap * 1e9:
            return
        if -self._period < passed < 0:  # as where one file of a bag begins before another ends
            if not self.report.late:
                text = f"logged {-passed / 1e9:.6f} s before the one ahead of it: taken as later"
                self.report.note(topic, stamp, f"the first out of order: {text}")
            self.report.late += 1
            return
        self.report.note(topic, stamp, f"time jumps by {passed / 1e9:+.3f} s")
        if passed > 0:
            return  # a silence, which ends the episode by itself
        if self._next >= 0:
            yield from self._end(self._newest, Outcome.TRUNCATED)
        self._forget()
        self._source.forget()
        self._shift = self._newest - stamp + self._period  # the Steps' own time goes on

    def _take(self, topic: str, stamp: int, message: Any) -> None:
        """Read a message as all that it is; what cannot be used is refused, once."""
        problems: dict[str, None] = {}
        for of, take, refuse in self._roles:
            if of != topic:
                continue
            try:
                take(stamp, message)
            except OtherJointsError:
                self.report.other_joints[topic] += 1
            except _UNUSABLE as error:
                problem = _reason(error, message)
                problems[problem] = None
                refuse(problem)
        if problems:
            self.report.refuse(topic, stamp - self._shift, "; ".join(problems))

    def _take_reading(self, source: str, stamp: int, message: Any) -> None:
        """The message as a sample of `source`."""
        if source == _JOINTS:
            self._take_joints(stamp, message)
            return
        self._samples.put(source, self._readings.read(source, message, stamp), 0, stamp)
        if source in self.mapping.cameras:
            self._taken[source] = header_stamp(message)

    def _take_joints(self, stamp: int, message: Any) -> None:
        """Joint states of one or more publishers: each joint has its own age."""
        joints = self._readings.joints
        wanted = self._readings.put_joints(message, stamp)
        if missing := joints.missing():
            self._lose(_JOINTS, missing)
        else:
            merged = joints.merged()
            self._samples.put(_JOINTS, merged, 0, merged.received, merged.oldest)
        if not wanted:
            raise OtherJointsError

    def _lose(self, source: str, why: str) -> None:
        self._samples.refuse(source, why)

    def _take_source(self, stamp: int, message: Any) -> None:
        self._source.read(stamp, message)
        # A release counts at once, as live; a button that stays pressed, with the next command.
        if self._tick is not None and not self._source.by_command and not self._source.engaged:
            self._tick.events.append(_ControlEvent(stamp, False, False))

    def _take_command(self, stamp: int, message: Any) -> None:
        values = command_values(message, self.mapping)
        self._same_frame(message)
        self._source.compare(values)
        self._command = (stamp, values)
        self._newest_act = stamp
        if self._next < 0:
            if self._success_lasts(stamp):
                return  # on the way to the next episode
            self._episode, self._index, self._any = self._episode + 1, 0, False
            self._start = None
            self._next = stamp
        if self._tick is not None:
            self._tick.commands.append(values)
            self._tick.events.append(_ControlEvent(stamp, self._source.engaged, True))

    def _same_frame(self, message: Any) -> None:
        """FeatureError for a command in another frame than the first one: another direction."""
        frame = getattr(getattr(message, "header", None), "frame_id", "")
        if self.mapping.output != "twist" or not frame:
            return
        self._command_frame = self._command_frame or frame
        if frame != self._command_frame:
            raise FeatureError(
                f"frame_id is {frame!r}, that of the first was {self._command_frame!r}"
            )

    def _take_success(
        self, topic: str, stamp: int, succeeded: bool
    ) -> Iterator[tuple[int, StepRecord]]:
        """A repetition within `episode_gap` is the same success; a Bool `false` ends that."""
        again = self._success_lasts(stamp)
        self._success = stamp if succeeded else None
        if not succeeded or again:
            return
        if self._next < 0:
            self.report.refuse(topic, stamp - self._shift, "success, but no episode is going on")
            return
        yield from self._end(stamp, Outcome.SUCCESS)

    def _success_lasts(self, now: int) -> bool:
        gap = self.mapping.episode_gap * 1e9
        return self._success is not None and now - self._success <= gap

    def _take_gripper(self, stamp: int, message: Any) -> None:
        """A change is a command like another, but begins no episode."""
        asked = gripper_asked(message, self.mapping)
        before = self._gripper.target
        target = self._gripper.drive(asked, Asker.OPERATOR, stamp * 1e-9)
        if self._next < 0 or target == before:
            return
        self._newest_act = stamp
        if self._tick is not None:
            self._tick.gripper, self._tick.grasped = target, True
            engaged = self._source.engaged and not self._source.by_command
            self._tick.events.append(_ControlEvent(stamp, engaged, True))

    def _begin_tick(self, start: int) -> Iterator[tuple[int, StepRecord]]:
        """Close the open tick, and open the one at `start`."""
        yield from self._close_tick()
        assert self._command is not None
        if start - self._newest_act > self.mapping.episode_gap * 1e9:
            yield from self._end(start, Outcome.TRUNCATED)
            return
        self._next = start + self._period
        began = self._command[0] == start
        # A difference to the policy's command holds for that command alone.
        holds = began or not self._source.by_command
        observation, gaps = self._observe(start)
        if unknown := self._source.unknown(start):
            gaps.append((self.mapping.driver_topic, "the control source is not known", unknown))
        held = self._source.engaged and holds
        self._tick = _Tick(start, observation, tuple(gaps), held)
        self._tick.gripper = self._gripper.target
        if began:  # the command with which the episode begins
            self._tick.commands.append(self._command[1])
            self._tick.events.append(_ControlEvent(start, held, True))

    def _observe(self, now: int) -> tuple[_Observation | None, list[_Gap]]:
        """State and images at `now`, or why there are none."""
        gaps: list[_Gap] = []
        for problem in self._samples.problems(now, now):
            why = f"{problem.source} missing, stale or refused"
            gaps.append((self._topic_of(problem.source), why, problem.reason))
        if apart := self._cameras_apart():
            gaps.append((", ".join(self.mapping.cameras.values()), "cameras out of step", apart))
        if gaps:
            return None, gaps
        values = self._samples.values
        if "ee_pose" in values:
            self._start = self._start or values["ee_pose"]
            values["episode_start"] = self._start
        try:
            state = self._layout.compute(values)
        except FeatureError as error:
            topics = ", ".join(self._topic_of(name) for name in self._layout.sources)
            return None, [(topics, f"state {str(error).split(':')[0]}", str(error))]
        return (state, tuple(values[name] for name in self.mapping.cameras)), []

    def _topic_of(self, source: str) -> str:
        return self.mapping.sources.get(source) or self.mapping.cameras[source]

    def _cameras_apart(self) -> str:
        """Message for images that are too far apart; empty: they are not, or it is not known."""
        taken = [stamp for stamp in self._taken.values() if stamp]
        apart = (max(taken) - min(taken)) / 1e9 if len(taken) > 1 else 0.0
        limit = self.mapping.max_camera_skew
        if not 0.0 < limit < apart:
            return ""
        return f"taken {apart:.3f} s apart, expected at most {limit:.3f} s (max_camera_skew)"

    def _close_tick(self) -> Iterator[tuple[int, StepRecord]]:
        tick, self._tick = self._tick, None
        if tick is None:
            return
        self._idle.append(tick)
        if tick.acted:
            yield from self._release_idle()

    def _release_idle(self) -> Iterator[tuple[int, StepRecord]]:
        """Let the ticks that were waiting become steps."""
        ticks, self._idle = self._idle, []
        for tick in ticks:
            if tick.commands:
                self._in_force = (tick.start, np.mean(tick.commands, axis=0))
            if tick.observation is None or tick.gaps:
                for where, why, text in tick.gaps:
                    self.report.gap(where, tick.start - self._shift, why, text)
                self._pass(tick)
                continue
            stamp, action = self._in_force
            if tick.start - stamp > self.mapping.max_age * 1e9:
                action = np.zeros(len(self.mapping.motion))  # the robot stands
            clipped = np.clip(action, -1.0, 1.0)
            self.report.clipped += bool((clipped != action).any())
            if self.mapping.gripper:
                clipped = np.append(clipped, tick.gripper)
            source, onset, number = self._control_of(tick)
            yield tick.start, self._step(
                tick.observation, source=int(source), onset=onset, intervention_id=number,
                action=clipped.astype(np.float32), is_last=False, outcome=0,
            )  # fmt: skip

    def _pass(self, tick: _Tick) -> None:
        """A gap: nothing is learned across it."""
        self._index += 1
        self._sequence += 1
        for event in tick.events:
            self._track(event)

    def _control_of(self, tick: _Tick) -> tuple[Source, bool, int]:
        """The control source, whether an intervention begins, and its number; as the arbiter's Tick."""
        source, onset, number = Source.NONE, False, 0
        idle = [] if tick.acted else [_ControlEvent(tick.start, tick.held, False)]
        for event in (*idle, *tick.events):
            current = self._track(event)
            if event.engaged:
                source, number = Source.OPERATOR, current
                onset |= current > self._last_onset
                self._last_onset = current
            elif event.command and not current:  # inside the dwell there is no source
                source = max(source, Source.POLICY)
        return source, onset, number

    def _track(self, event: _ControlEvent) -> int:
        """The number of the intervention that goes on then; 0: none does."""
        now = event.stamp * 1e-9
        if event.engaged:
            return self._tracker.engage("driver", now).id
        if self._tracker.release(now):
            self._tracker.end()
        current = self._tracker.current
        return 0 if current is None else current.id

    def _end(self, now: int, outcome: Outcome) -> Iterator[tuple[int, StepRecord]]:
        """End the episode. Its final observation is the first one after the last command."""
        if outcome == Outcome.SUCCESS and self._tick is not None and not self._tick.acted:
            self._tick = None  # nothing was done in it: no step
        yield from self._close_tick()
        if outcome == Outcome.SUCCESS:
            yield from self._release_idle()
        while self._idle and self._idle[0].observation is None:
            self._pass(self._idle.pop(0))
        final = self._idle[0] if self._idle else _Tick(now, self._observe(now)[0])
        self._idle, self._next = [], -1
        self._tracker.end()
        where, recorded = f"episode {self._episode}", now - self._shift
        if not self._any:
            self.report.note(where, recorded, "is empty: none of its ticks gave a step")
        elif final.observation is None:
            self.report.note(where, recorded, "has no last step: nothing to observe")
        else:
            yield final.start, self._step(
                final.observation, source=0, onset=False, intervention_id=0, action=_NO_ACTION,
                is_last=True, outcome=int(outcome),
            )  # fmt: skip

    def _step(self, observation: _Observation, **values: Any) -> StepRecord:
        step = StepRecord(
            state=observation[0], images=observation[1], cameras=tuple(self.mapping.cameras),
            sequence=self._sequence, episode_id=self._episode, step_index=self._index,
            is_first=self._index == 0, evaluation=False, **values,
        )  # fmt: skip
        self._sequence += 1
        self._index += 1
        self._any = True
        self.report.steps += 1
        self._ends += step.is_last
        self.report.episodes = self._episode
        return step
