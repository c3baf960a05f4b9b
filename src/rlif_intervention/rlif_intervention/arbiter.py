# SPDX-License-Identifier: Apache-2.0
"""The arbiter without ROS: inputs go in with the time of their receipt, commands come out.

It has no clock. `now` is in seconds, of any clock that does not go back: ROS time in simulation,
a steady clock on a robot. Stamps are ROS times in ns. Feed inputs as they come, call `output` once
per command period; `observe` closes the tick before and returns its Decision.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from rlif_node.states import ControlState, HoldReason

from .action_frames import BaseFrame, ToolFrame
from .arbiter_types import NO_EPISODE, ArbiterConfig, Command, Episode, PolicyInput
from .arbitration import ControlMachine, Event
from .devices import NEVER, Device, DeviceRack, Reading
from .gripper import AS_IT_IS, Gripper
from .interventions import EPSILON, Intervention, InterventionTracker
from .joint_limits import JointLimitConfig, JointLimiter
from .limits import LimitConfig, Limited, Limiter, Vector, shape_problem
from .motion_check import MotionCheck
from .policy_hold import PolicyHold
from .pose_extrapolator import MeasuredPosition
from .ticks import Decision, InterventionChange, Source, Tick

EXPLAINED = 1.0  # s for which the observer's reason for a missing observation counts


class Arbiter:
    """Composes table, devices, interventions and limits. Not thread-safe: one executor thread."""

    def __init__(self, config: ArbiterConfig, rack: DeviceRack) -> None:
        self.config = config
        self.rack = rack
        self.limiter: Limiter | JointLimiter = (
            JointLimiter(config.limits)
            if isinstance(config.limits, JointLimitConfig)
            else Limiter(config.limits)
        )
        in_tool = isinstance(config.limits, LimitConfig) and config.limits.tool_actions
        self._frame = ToolFrame(config.limits.axes) if in_tool else BaseFrame()
        self._gripper = Gripper(config.gripper) if config.gripper else None
        self._tapped: dict[str, float] = {}  # of the gripper, by device, until the next command
        self._machine = ControlMachine()
        self._tracker = InterventionTracker(config.interventions)
        self._size = len(config.axes)
        self._causes: dict[str, str] = {}  # of a fault, that are still there
        self._holds: dict[str, str] = {}  # asked for from outside, by cause
        self._policy_hold = PolicyHold(config.hold_timeout)  # by the robot's side
        self._motion = MotionCheck(config.motion, config.limits.axes)
        self._not_moving = ""  # why the arm counts as one that does not follow
        self._held_device: Device | None = None  # drove in vain: has to be released
        self._unobserved, self._unobserved_at = "", NEVER  # the observer's reason, and when
        self.warning = ""  # to be read with `reason`
        self._episode = NO_EPISODE
        self._last_episode = 0
        self._steps = 0  # of the episode
        self._tick: Tick | None = None
        self._observed = NEVER
        self._policy: PolicyInput | None = None
        self._version = 0
        needed = config.limits.needs, config.limits.needed_for
        size, latency = config.limits.position_size, config.limits.latency
        self._pose = MeasuredPosition(*needed, size, latency, config.pose_timeout)
        self._latest = NEVER  # time of the last command
        self._armed_since: float | None = None  # time of the first command after arming
        self._lost_device: Device | None = None  # silent or locked while it drove
        self._lost_reason = ""
        self._last_onset = 0
        self._last_action: Vector = (0.0,) * self._size
        self._limited: Counter[str] = Counter()

    # ---- state

    @property
    def state(self) -> ControlState:
        return self._machine.state

    @property
    def reason(self) -> str:
        reason = self._machine.reason
        return f"{reason}; but {self.warning}" if self.warning else reason

    @property
    def by_human(self) -> bool:
        """A human brought `state` about: disarmed, or stopped."""
        return self._machine.by_human

    @property
    def armed(self) -> bool:
        return self._machine.armed

    @property
    def device(self) -> str:
        """Operator device in control; empty: none."""
        current = self._tracker.current
        return current.device if current and self.state is ControlState.OPERATOR else ""

    @property
    def hold_reason(self) -> HoldReason:
        """Why the robot's side, or an arm that does not follow, forbids motion."""
        return HoldReason.NOT_MOVING if self._not_moving else self._policy_hold.code

    @property
    def last_episode(self) -> int:
        """Largest id of an episode so far."""
        return self._last_episode

    @property
    def expects_steps(self) -> bool:
        """Armed, and an episode is running that has steps left."""
        return self.armed and self._episode.running and not self._limit_reached()

    @property
    def episode_start(self) -> int:
        """Stamp in ns from which on observations belong to the running episode."""
        return self._episode.start

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since the last message of each input; infinite: never."""
        policy = self._policy.received if self._policy else NEVER
        ages = {"observation": now - self._observed, "policy_action": now - policy}
        if self._pose.needed:
            ages[self._pose.needed] = now - self._pose.received
        return ages | {f"device {d.name}": now - d.received for d in self.rack.devices}

    def take_limit_counts(self) -> dict[str, int]:
        """How many commands each limit has changed since the last call."""
        counts, self._limited = dict(self._limited), Counter()
        return counts

    # ---- inputs

    def observe(self, tick: int, stamp: int, now: float) -> Decision | None:
        """Begin a tick. Returns the Decision of the tick before, if that was of an episode."""
        decision = self.close_tick()
        scale = self.limiter.speed_scale
        self._tick = Tick(tick, stamp, speed_scale=scale, gripper=self._gripper is not None)
        self._observed = now
        self._admit_tick()
        self._attach_policy()
        return decision

    def close_tick(self) -> Decision | None:
        """End the open tick; its Decision, if it was one of an episode."""
        tick, self._tick = self._tick, None
        return tick.close(self._last_action) if tick and tick.episode_id else None

    def no_observation(self, reason: str, now: float) -> None:
        """The observer says why there is none of this tick."""
        self._unobserved, self._unobserved_at = reason, now

    def policy_action(
        self, tick: int, stamp: int, action: Vector, version: int, now: float
    ) -> None:
        """The policy's answer to the Observation of `tick`. A bad one is a fault."""
        problem = shape_problem(action, self._size)
        if problem:
            self._policy = None
            self.fault("policy", f"the action of the policy {problem}")
            return
        self._causes.pop("policy", None)
        if version < self._version:
            self.fault(
                "",
                f"the policy's weights went back from version {self._version} to {version}: it was "
                "restarted, or two policies are running",
            )
        self._version = version
        self._policy = PolicyInput(tick, stamp, action, version, now)
        self._attach_policy()

    def device_reading(self, name: str, reading: Reading, now: float) -> None:
        """A message of an operator device, already read by its layout."""
        problem = shape_problem(reading.action, self._size)
        if problem:
            self.device_fault(name, problem)
            return
        self._causes.pop(f"device {name}", None)
        device = self.rack.device(name)
        device.update(reading, now)
        if self._gripper and reading.engaged and reading.action[-1]:
            self._tapped[name] = reading.action[-1]
        if device is self._lost_device and not reading.engaged:
            self._lost_device = None
        if device is self._held_device and not reading.engaged:
            self._held_device = None

    def device_fault(self, name: str, problem: str) -> None:
        """A message of an operator device that cannot be used."""
        self.fault(f"device {name}", f"operator device {name}: {problem}")

    def pose(
        self, position: Vector, now: float, oldest: str = "", orientation: Vector = ()
    ) -> None:
        """Measured position of the end effector (3,) in m, base frame, or of the joints (n,) in rad.

        It may be `pose_latency` old. oldest: the joint that was received at `now`, if others are newer
        orientation: (4,) of the end effector, for actions in its frame
        """
        try:
            self._frame.turn(orientation)
        except ValueError as problem:
            self.refuse_pose(f"ee_pose: {problem}", now)
            return
        self._pose.put(position, now, oldest)

    def motion(self, position: Vector, now: float, orientation: Vector = ()) -> None:
        """The same for the check that the arm follows: in any frame, with the quaternion x, y, z, w."""
        if all(map(math.isfinite, (*position, *orientation))):
            self._motion.measured(position, now, orientation)

    def refuse_pose(self, reason: str, now: float) -> None:
        """A measured position that cannot be used, e.g. in another frame."""
        self._pose.refuse(reason, now)

    def begin_episode(self, id: int, start: int, max_steps: int) -> None:
        """An episode runs: the first observation at or after `start` (ns) is its step 0."""
        if (id, start) != (self._episode.id, self._episode.start):
            self._steps = 0
            self._last_episode = max(self._last_episode, id)
            self._motion.reset()  # a reset may have moved the arm
            if self._gripper:
                self._gripper.forget()  # a reset may have moved it
        self._episode = Episode(id, True, start, None, max_steps)
        if self._tick and not self._tick.episode_id:
            self._admit_tick()
            self._attach_policy()

    def end_episode(self, end: int | None = None) -> None:
        """No episode runs any more: an open tick at or after `end` (ns) was not a step of it."""
        tick = self._tick
        self._episode = replace(self._episode, running=False, end=end)
        if end is not None and tick and tick.episode_id and tick.stamp >= end:
            tick.episode_id = 0

    def stop(self, on: bool, topic: str = "stop", publishers: int = 1) -> None:
        """A stop signal. `publishers`: how many there are on its topic.

        The sender of a message is not known. So with several publishers none can take a stop back:
        the "false" of one may not come from the one that sent "true".
        """
        cause = f"stop signal {topic}"
        if on:
            self.fault(cause, f"the stop signal on {topic} is on", by_human=True)
        elif publishers > 1 and cause in self._causes:
            self._causes[cause] = (
                f"the stop signal on {topic} was on, and {publishers} publish there: which of "
                "them sends false is not known. End all but one, let that one send false, and give "
                "each a topic of its own (stop_topics)"
            )
        else:
            self._causes.pop(cause, None)

    def fault(self, cause: str, reason: str, by_human: bool = False) -> None:
        """Latch FAULT. A named cause must be gone before a human can re-arm."""
        if cause:
            self._causes[cause] = reason
        self._machine.handle(Event.FAULT, reason, by_human)

    def fault_over(self, cause: str, reason: str) -> None:
        """The cause is gone; a human has to arm."""
        if self._causes.pop(cause, None) and self.state is ControlState.FAULT:
            self._machine.explain(reason)

    def hold(self, cause: str, reason: str) -> None:
        """Ask for HOLD from outside; empty: no longer because of this cause."""
        if reason:
            self._holds[cause] = reason
        else:
            self._holds.pop(cause, None)

    def hold_policy(self, source: str, code: HoldReason, reason: str, now: float) -> None:
        """A node asks for HOLD of the policy; NONE: no longer.

        The operator may still drive away from an obstacle where Servo has halted, but not while
        no command is carried out at all.
        """
        self._policy_hold.update(source, code, reason, now)

    def used_interventions(self, last: int) -> None:
        """Ids up to `last` have been used, by an arbiter before this one."""
        self._tracker.skip(last)
        self._last_onset = max(self._last_onset, last)

    def arm(self, on: bool) -> tuple[bool, str]:
        """A human arms or disarms. Returns success, and a message for the human."""
        if not on:
            self._machine.handle(Event.DISARM, "disarmed", by_human=True)
            return True, f"{self.state.name}: {self.reason}"
        if self._causes:
            return False, "not armed: " + "; ".join(self._causes.values())
        if not self._machine.handle(Event.ARM, "armed"):
            return True, f"it is armed already ({self.state.name}): disarm first to clear a hold"
        self._version = 0
        self._lost_device = self._held_device = self._armed_since = None
        self._not_moving = ""
        self._motion.reset()
        self._policy_hold.forget_silent(self._latest)
        return True, "armed"

    def leave(self) -> None:
        """The process ends, for whatever reason: that is no judgement of the policy."""
        self._machine.handle(Event.DISARM, "the arbiter has ended")

    # ---- output

    def output(self, now: float) -> Command:
        """What to send for the next command period, after all limits."""
        now = self._forward(now)
        changes: list[InterventionChange] = []
        over, lost = self._episode_over(), self._pose.problem(now)
        driving, blocked = self.rack.driving(now), self._blocked()
        if over:
            self._machine.handle(Event.EPISODE_OVER, over)
        elif blocked:
            self._machine.handle(Event.DEVICE_LOST, blocked)
        elif lost:
            self._machine.handle(Event.POSE_LOST, lost)
        elif not self._just_armed(now):
            follow = self._follow_label if self.config.label_only else self._follow_operator
            follow(driving, now, changes)
        # Between episodes too a person must see what keeps the next one from beginning.
        held = blocked or self._not_moving
        self._follow_inputs((held or over) if over else self._missing(now))
        marked_only = self.config.label_only and self.state is ControlState.POLICY and not over
        if self.state is not ControlState.OPERATOR and not marked_only:
            self._end_intervention(now, changes)
        limited, source = self._drive(driving, now)
        self._check_motion(limited.twist, driving, now)
        gripper = self._gripper.target if self._gripper else AS_IT_IS
        reference = limited.reference
        return Command(limited.twist, limited.action, source, tuple(changes), gripper, reference)

    def _forward(self, now: float) -> float:
        """Time never goes back in here: what is old would look fresh until it has caught up.

        Back by less than two periods is the order in which a clock and its stamps arrive.
        """
        back = self._latest - now
        if 0.0 < back <= 2.0 * self.config.limits.period:
            return self._latest
        if back > 0.0 and math.isfinite(back):
            self.fault("", f"the clock went back by {back:.2f} s: was a simulation restarted?")
            self._observed, self._policy = NEVER, None
            self._pose.forget()
            for device in self.rack.devices:
                device.reading, device.received = None, NEVER
        self._latest = now
        return now

    def _follow_operator(
        self, driving: Device | None, now: float, changes: list[InterventionChange]
    ) -> None:
        """Take-over, release, loss of the device."""
        current = self._tracker.current
        lost = current is not None and self._lose(self.rack.device(current.device), now)
        if driving is not None:
            reason = f"taken over with {driving.name}"
            if self._machine.handle(Event.TAKE_OVER, reason) and self._not_moving:
                self._motion.reset()  # only motion under the operator's commands ends that
            if self.state is ControlState.OPERATOR:
                self._machine.explain(reason)  # it may have been another device's
                self._engage(driving, now, changes)
        elif lost:
            self._machine.handle(Event.DEVICE_LOST, self._lost_reason)
        elif current is not None and self._tracker.release(now):
            self._machine.handle(Event.RELEASED, f"{current.device} released")

    def _follow_label(
        self, driving: Device | None, now: float, changes: list[InterventionChange]
    ) -> None:
        """`label_only`: mark the intervention, leave control where it is."""
        if driving is not None and self.state is ControlState.POLICY:
            self._engage(driving, now, changes)
        elif self._tracker.release(now):
            self._end_intervention(now, changes)

    def _follow_inputs(self, missing: str | None) -> None:
        """POLICY <-> HOLD, and in HOLD always the reason of now."""
        if missing is None:
            self._machine.handle(Event.INPUTS_BACK, "the policy has control")
            return
        self._machine.handle(Event.INPUTS_LOST, missing)
        if self.state is ControlState.HOLD:
            self._machine.explain(missing)

    def _drive(self, driving: Device | None, now: float) -> tuple[Limited, Source]:
        """The action of whoever has control, through the limits, into the tick."""
        asked, source = self._asked(driving, now)
        motion, clamped = self._frame.to_base(asked[:-1] if self._gripper else asked)
        limited = (
            self.limiter.drive(motion, *self._pose.now(now)) if asked else self.limiter.brake()
        )
        self._pose.sent(self.config.limits.velocity(limited.twist), now)
        limited = self._frame.executed(limited, clamped)
        if self._gripper:
            grasp = self._grasp(self._gripper, asked, source, now)
            limited = replace(limited, action=(*limited.action, grasp))
        self._last_action = limited.action
        self._limited.update(limited.names)
        if self._tick:
            held = self.state not in (ControlState.POLICY, ControlState.OPERATOR)
            self._tick.add(limited, source, asked, held)
            self._tick.speed_scale = self.limiter.speed_scale
        return limited, source

    def _check_motion(self, twist: Vector, driving: Device | None, now: float) -> None:
        """Whether the arm follows; an arm that does not stays in HOLD until a human has acted."""
        if self._not_moving and self._motion.moved and self.state is ControlState.OPERATOR:
            self._not_moving = ""
        self._motion.commanded(twist, now)
        found = self._motion.problem(now)
        if found and self.state in (ControlState.POLICY, ControlState.OPERATOR):
            self._not_moving = found
            self._held_device = driving if self.state is ControlState.OPERATOR else None
            self._motion.reset()

    def _blocked(self) -> str:
        """Why no control source may act; empty: nothing."""
        held = next(iter(self._holds.values()), "") or self._policy_hold.blocking()
        return held or (self._not_moving if self._held_device else "")

    def _grasp(self, gripper: Gripper, asked: Vector, source: Source, now: float) -> float:
        """The gripper's entry of what is output. It needs no pose, and stops for no limit."""
        self._tapped.clear()
        if not self.armed:
            return gripper.forget()
        return gripper.drive(asked[-1], source, now) if asked else gripper.keep()

    def _operator_action(self, device: Device | None) -> Vector:
        """The operator action, with a tap of the gripper's button that is over already."""
        if device is None or device.reading is None:
            return ()
        action = device.reading.action
        tapped = self._tapped.get(device.name)
        return action if tapped is None or action[-1] else (*action[:-1], tapped)

    def _asked(self, driving: Device | None, now: float) -> tuple[Vector, Source]:
        if self.state is ControlState.POLICY and self._policy:
            return self._policy.action, Source.POLICY
        # Stale: as after a release, the arm brakes, and no zeros are learned as the operator's.
        device = None if driving is None or driving.stale(now) else driving
        if self.state is ControlState.OPERATOR and device and device.reading:
            return self._operator_action(device), Source.OPERATOR
        return (), Source.NONE

    # ---- what is missing

    def _episode_over(self) -> str | None:
        """Why there is nothing to drive in; None: the open tick is a step of the episode."""
        if not self._episode.running:
            return "no episode is running"
        if self._tick and self._tick.episode_id == self._episode.id:
            return None
        if self._limit_reached():
            return f"the time limit of {self._episode.max_steps} steps is reached"
        return "waiting for the first observation of the episode"

    def _limit_reached(self) -> bool:
        return 0 < self._episode.max_steps <= self._steps

    def _missing(self, now: float) -> str | None:
        """Why the policy must hold; None: it may act."""
        c, policy = self.config, self._policy
        held = self._blocked() or self._pose.problem(now) or self._just_armed(now)
        held = held or self._not_moving or self._policy_hold.problem(now)
        if held:
            return held
        if now - self._observed > c.observation_timeout:
            explained = self._unobserved if now - self._unobserved_at <= EXPLAINED else ""
            reason = explained or "is the observer alive?"
            return f"no observation for more than {c.observation_timeout} s: {reason}"
        if policy is None or policy.stamp < self._episode.start:
            return "no action from the policy yet"
        if now - policy.received > c.policy_timeout:
            return f"no action from the policy for more than {c.policy_timeout} s: is it alive?"
        if self._tick and self._tick.stamp - policy.stamp > c.policy_timeout * 1e9:
            return f"the policy lags by more than {c.policy_timeout} s: is its machine too slow?"
        if self._lost_device:
            return self._lost_reason
        return self.rack.problem(now) if c.require_operator else None

    def _just_armed(self, now: float) -> str:
        """Why arming leads to no motion yet, whatever runs already; empty: the dwell is over."""
        if self._armed_since is None:
            self._armed_since = now
        left = self._armed_since + self.config.arm_dwell - now
        return f"armed; zeros for {self.config.arm_dwell} s (arm_dwell)" if left > EPSILON else ""

    def _lose(self, device: Device, now: float) -> bool:
        """Whether a device that drives can no longer; the policy stays out until its release."""
        loss = self.rack.loss(device, now)
        if loss is not None:
            self._lost_device = device
            self._lost_reason = f"{loss} while driving: bring it back and release it"
        return loss is not None

    # ---- bookkeeping

    def _admit_tick(self) -> None:
        """Give the open tick its place in the episode, if it has one."""
        tick, episode = self._tick, self._episode
        if tick is None or not episode.running or self._limit_reached():
            return
        if tick.stamp >= episode.start:
            tick.episode_id, tick.step_index = episode.id, self._steps
            self._steps += 1

    def _attach_policy(self) -> None:
        tick, policy = self._tick, self._policy
        if tick and policy and policy.tick == tick.number and policy.stamp == tick.stamp:
            tick.policy_action, tick.policy_version = policy.action, policy.version

    def _engage(self, driving: Device, now: float, changes: list[InterventionChange]) -> None:
        """Begin or continue an intervention, and mark the open tick with it."""
        begins = self._tracker.current is None
        intervention = self._tracker.engage(driving.name, now)
        if self._tick:
            action = self._operator_action(driving)
            self._tick.mark(intervention.id, intervention.id > self._last_onset, action)
            self._last_onset = intervention.id
        if begins:
            changes.append(self._change(True, intervention, now))

    def _end_intervention(self, now: float, changes: list[InterventionChange]) -> None:
        ended = self._tracker.end()
        if ended is not None:
            changes.append(self._change(False, ended, now))

    def _change(self, started: bool, intervention: Intervention, now: float) -> InterventionChange:
        tick = self._tick or Tick(0, 0)
        return InterventionChange(
            started=started,
            intervention=intervention,
            stamp=tick.stamp,
            episode_id=tick.episode_id,
            step_index=tick.step_index,
            policy_action=tick.policy_action,
            operator_action=tick.operator_action,
            duration=0.0 if started else now - intervention.started,
        )
