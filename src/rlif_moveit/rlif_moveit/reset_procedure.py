# SPDX-License-Identifier: Apache-2.0
"""One reset, step by step: Servo pauses, the arm is planned to its goal, Servo is released. No ROS.

A coroutine over two things that are awaited, so that nothing blocks: the planner and Servo's pause.
It never moves the arm unless the arbiter holds, and stops the motion when that changes. What fails
`attempts` times is handed to a human: from then on the arm moves by itself only after a human has called
a service, since a person may be standing at it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from .reset_goals import Goal, describe, sample


@dataclass(frozen=True)
class Outcome:
    """Of one attempt. problem: the reason, empty: the arm is there.

    still: False: the arm may still be moving, so that nothing else may be tried
    """

    problem: str = ""
    still: bool = True


class Planner(Protocol):
    """Plans, collision-aware, and moves. `cancel` ends a motion: `go` then returns a problem."""

    def problem(self) -> str:
        """Why it cannot be asked now; empty: it can."""

    def go(self, goal: Goal) -> Awaitable[Outcome]: ...

    def cancel(self) -> None: ...


Pause = Callable[[bool], Awaitable[str]]  # true: pause Servo; returns the problem, empty: done


async def at_once() -> None:
    """No pause between two attempts."""


BY_HAND = "put the arm to its start by hand, then call reset_by_hand; or clear the way and call reset_again"


@dataclass
class ResetProcedure:
    """may_move: why the arm may not be moved now, empty: it may
    breathe: awaited between two attempts, since a controller or a joint state may be late
    log: takes a message
    """

    planner: Planner
    pause: Pause
    may_move: Callable[[], str]
    goal: Goal
    attempts: int = 3
    breathe: Callable[[], Awaitable[object]] = at_once
    rng: random.Random = field(default_factory=random.Random)
    log: Callable[[str], None] = lambda message: None
    handed_over: str = ""  # why a human has to act; empty: not
    _busy: bool = False
    _stopped: str = ""  # why the running motion was cancelled
    _done_by_hand: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; expected 1 or more")

    @property
    def moving(self) -> bool:
        return self._busy

    async def reset(self) -> tuple[bool, str]:
        """(done, message). What is refused before anything moves is no attempt."""
        if self._busy:
            return False, "a reset is going on already"
        if self._done_by_hand:
            return await self._accept()
        if self.handed_over:
            return False, f"{self.handed_over}: {BY_HAND}"
        problem = self.may_move() or self.planner.problem()
        if problem:
            return False, problem
        self._busy, self._stopped = True, ""
        try:
            return await self._reset()
        finally:
            self._busy = False

    async def _reset(self) -> tuple[bool, str]:
        problem = await self.pause(True)
        if problem:
            await self.pause(False)
            return False, f"the arm was not moved, because Servo is not paused: {problem}"
        failures: list[str] = []
        for attempt in range(self.attempts):
            if attempt:
                await self.breathe()
            self._stopped = self._stopped or self.may_move()
            if self._stopped:
                break
            goal = sample(self.goal, self.rng)
            self.log(f"attempt {attempt + 1} of {self.attempts}: {describe(goal)}")
            outcome = await self.planner.go(goal)
            if not outcome.problem:
                return await self._release(describe(goal))
            failures.append(outcome.problem)
            self.log(f"attempt {attempt + 1} failed: {outcome.problem}")
            if not outcome.still:
                return False, self._hand_over(outcome.problem)
        if self._stopped:
            await self.pause(False)
            return False, f"the reset was stopped: {self._stopped}"
        reasons = "; ".join(dict.fromkeys(failures))
        return False, self._hand_over(f"the reset failed {self.attempts} times ({reasons})")

    async def _release(self, goal: str) -> tuple[bool, str]:
        problem = await self.pause(False)
        if problem:
            return False, f"the arm is at {goal}, but Servo stays paused: {problem}"
        return True, goal

    def _hand_over(self, problem: str) -> str:
        self.handed_over = problem
        return f"{problem}: {BY_HAND}"

    async def _accept(self) -> tuple[bool, str]:
        done, message = await self._release("its start, by hand")
        if done:
            self._done_by_hand = False
        return done, message

    def stop(self, reason: str) -> None:
        """The arm may not be moved any more: end a motion that is going on."""
        if self._busy and not self._stopped:
            self._stopped = reason
            self.planner.cancel()

    def insist(self) -> None:
        """Call it now and then: a cancel may be lost, or refused, and is repeated until the motion ends."""
        if self._busy and self._stopped:
            self.planner.cancel()

    def by_hand(self) -> tuple[bool, str]:
        """A human has put the arm to its start: the next reset is done."""
        if self._busy:
            return False, "a reset is going on: stop the arm first"
        self.handed_over, self._done_by_hand = "", True
        return True, "taken as reset; stand back from the arm"

    def again(self) -> tuple[bool, str]:
        """A human has cleared the way: the next reset plans again."""
        if self._busy:
            return False, "a reset is going on already"
        was, self.handed_over = self.handed_over, ""
        return True, "the next reset plans again" if was else "nothing was handed over"
