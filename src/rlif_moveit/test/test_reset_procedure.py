# SPDX-License-Identifier: Apache-2.0
"""A reset step by step, with a planner that fails, hangs and is cancelled."""

from __future__ import annotations

import asyncio
import random

import pytest

from rlif_moveit.reset_goals import JointGoal, NamedGoal
from rlif_moveit.reset_procedure import Outcome, ResetProcedure


class World:
    """Planner, Servo and arbiter of a test; `log` is the order of what happened."""

    def __init__(self, *outcomes, **values):
        self.log, self.outcomes = [], list(outcomes)
        self.goals = []
        self.arbiter = self.planner_problem = self.pause_problem = ""
        self.during = lambda: None
        self.core = ResetProcedure(
            planner=self,
            pause=self.pause,
            may_move=lambda: self.arbiter,
            goal=values.pop("goal", NamedGoal("ready")),
            rng=random.Random(0),
            **values,
        )

    def problem(self):
        return self.planner_problem

    async def go(self, goal):
        self.goals.append(goal)
        self.log.append("go")
        self.during()
        await asyncio.sleep(0)
        return self.outcomes.pop(0) if self.outcomes else Outcome()

    def cancel(self):
        self.log.append("cancel")
        self.outcomes.insert(0, Outcome("cancelled"))

    async def pause(self, on):
        self.log.append("pause" if on else "release")
        return self.pause_problem

    def reset(self):
        return asyncio.run(self.core.reset())


def test_reset_pauses_servo_before_the_motion_and_releases_it_after():
    world = World()
    assert world.reset() == (True, "state 'ready'")
    assert world.log == ["pause", "go", "release"]


def test_reset_that_failed_is_tried_again_with_another_sample():
    goal = JointGoal(joints=("a",), positions=(0.0,), spread=(0.5,))
    world = World(Outcome("GOAL_IN_COLLISION"), Outcome("PLANNING_FAILED"), goal=goal)
    assert world.reset()[0]
    assert world.log.count("go") == 3
    assert len({g.positions for g in world.goals}) == 3


def test_reset_that_failed_waits_before_it_is_tried_again():
    world = World(Outcome("CONTROL_FAILED"), Outcome("CONTROL_FAILED"))

    async def breathe():
        world.log.append("breathe")

    world.core.breathe = breathe
    assert world.reset()[0]
    assert world.log == ["pause", "go", "breathe", "go", "breathe", "go", "release"]


def test_reset_that_fails_too_often_is_handed_to_a_human():
    world = World(*[Outcome("PLANNING_FAILED")] * 3)
    done, words = world.reset()
    assert not done and "3 times (PLANNING_FAILED)" in words and "reset_by_hand" in words
    assert world.log == ["pause", "go", "go", "go"], "Servo stays paused: a person is at the arm"
    assert world.reset() == (False, words)
    assert world.log.count("go") == 3


def test_reset_by_hand_releases_servo():
    world = World(*[Outcome("PLANNING_FAILED")] * 3)
    world.reset()
    assert world.core.by_hand()[0]
    assert world.log[-1] == "go"
    done, words = world.reset()
    assert done and "by hand" in words and world.log[-1] == "release"
    assert world.reset()[0] and world.log[-2:] == ["go", "release"]


def test_reset_again_plans_again():
    world = World(*[Outcome("PLANNING_FAILED")] * 3)
    world.reset()
    world.core.again()
    assert world.reset()[0]


def test_reset_while_the_arbiter_does_not_hold_moves_nothing():
    world = World()
    world.arbiter = "the operator drives"
    assert world.reset() == (False, "the operator drives")
    assert world.log == [] and not world.core.handed_over


def test_reset_without_a_planner_is_no_attempt():
    world = World()
    world.planner_problem = "move_group is not there"
    assert world.reset() == (False, "move_group is not there")
    assert world.log == []


def test_reset_without_a_paused_servo_moves_nothing():
    world = World()
    world.pause_problem = "no answer"
    done, words = world.reset()
    assert not done and "no answer" in words and "go" not in world.log


def test_reset_stopped_during_the_motion_is_cancelled_for_good():
    world = World()
    world.during = lambda: world.core.stop("the stop button was pressed")
    done, words = world.reset()
    assert not done and "stop button" in words
    assert world.log == ["pause", "go", "cancel", "release"]
    assert not world.core.handed_over


def test_reset_pitfall_an_arm_that_may_still_move_gets_no_second_motion():
    world = World(Outcome("no result within 60 s", still=False))
    done, words = world.reset()
    assert not done and "60 s" in words and world.core.handed_over
    assert world.log == ["pause", "go"]


def test_reset_while_one_goes_on_is_refused():
    world = World()

    async def both():
        return await asyncio.gather(world.core.reset(), world.core.reset())

    first, second = asyncio.run(both())
    assert first[0] and not second[0] and "already" in second[1]
    assert world.log.count("go") == 1


def test_reset_whose_planner_raises_is_over():
    world = World()
    world.during = lambda: (_ for _ in ()).throw(RuntimeError("bug"))
    with pytest.raises(RuntimeError):
        world.reset()
    assert not world.core.moving


def test_reset_procedure_without_attempts_is_refused():
    with pytest.raises(ValueError, match="attempts"):
        World(attempts=0)
