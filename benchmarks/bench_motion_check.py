# SPDX-License-Identifier: Apache-2.0
"""How often contact is mistaken for an arm that does not follow, and how soon a paused arm is found.

Episodes of the simulated peg task without DDS: each kind of motion goes through the check of the
arbiter (rlif_intervention.motion_check) at 100 Hz, once with an arm that follows, and once with one
that is paused at a random moment. Needs nothing but the workspace: `make bench-motion_check`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlif_intervention.motion_check import MotionCheck, MotionCheckConfig
from rlif_sim.peg_in_hole import PegInHole
from rlif_sim.strategies import Actor, ActorConfig, Approach

Array = NDArray[np.float64]
Motion = Callable[
    [Array], Array
]  # position of the tip relative to the hole, m -> action in [-1, 1]
SPEED, PERIOD, TICK = 0.1, 0.01, 10  # m/s of an action of 1, s of a command, commands of an action
STEPS, SETTLED = 100, 10  # actions of an episode; the earliest that the arm is paused
DOWN = np.array([0.0, 0.0, -1.0])
ASIDE = np.array([0.03, 0.02, 0.0])  # m off the hole, on the board


def motions(rng: np.random.Generator) -> dict[str, Motion]:
    """One of each kind for an episode."""
    actor = Actor(ActorConfig(bias=0.004), Approach(), int(rng.integers(2**31)))
    drift = np.clip(np.append(rng.normal(0.0, 0.5, 2), -1.0), -1.0, 1.0)

    def into(position: Array, then: Array) -> Array:
        return actor.action(position) if position[2] > -0.02 else then

    def aside(position: Array) -> Array:
        return np.append(np.clip((ASIDE - position)[:2] / 0.01, -1.0, 1.0), -1.0)

    return {
        "scripted operator": actor.action,
        "untrained policy": lambda _: np.clip(rng.normal(0.0, 0.5, 3) + 0.5 * DOWN, -1.0, 1.0),
        "constant, into the board": lambda _: drift,
        "straight down onto the board": aside,
        "on in the hole, trembling": lambda p: into(p, DOWN + np.append(rng.normal(0, 0.3, 2), 0)),
        "on in the hole, constant": lambda p: into(p, np.array([0.3, 0.2, -1.0])),
    }


@dataclass(frozen=True)
class Run:
    """found: s after the pause, or after the start; None: not found. pressed: s in contact."""

    found: float | None
    pressed: float


def run(world: PegInHole, motion: Motion, pause: int) -> Run:
    """One episode; the arm is paused at action number `pause`."""
    world.reset()
    check, now, pressed = MotionCheck(MotionCheckConfig(), ("x", "y", "z")), 0.0, 0.0
    begin = pause * TICK * PERIOD if pause < STEPS else 0.0
    for step in range(STEPS if pause == STEPS else pause + STEPS):
        action = np.clip(motion(world.end_effector_position - world.hole_position), -1.0, 1.0)
        twist = np.append(SPEED * action, np.zeros(3))
        for _ in range(TICK):
            check.measured(tuple(world.end_effector_position), now)
            check.commanded(tuple(twist[:3]), now)
            if check.problem(now):
                return Run(now - begin, pressed)
            if step < pause:
                world.advance(twist, PERIOD)
                pressed += PERIOD * float(np.linalg.norm(world.wrench[:3]) > 2.0)
            now += PERIOD
    return Run(None, pressed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20, help="of each kind")
    count = parser.parse_args().episodes
    rng, world = np.random.default_rng(0), PegInHole(seed=0)
    print("| motion | s in contact | mistaken | paused: found | after s, median / longest |")
    print("|---|---|---|---|---|")
    for name in motions(rng):
        free = [run(world, motions(rng)[name], STEPS) for _ in range(count)]
        halts = rng.integers(SETTLED, STEPS // 2, count)
        paused = [run(world, motions(rng)[name], int(halt)) for halt in halts]
        after = [r.found for r in paused if r.found is not None]
        mistaken = sum(r.found is not None for r in free)
        times = f"{statistics.median(after):.1f} / {max(after):.1f}" if after else "-"
        print(
            f"| {name} | {sum(r.pressed for r in free):.0f} | {mistaken} of {count} | "
            f"{len(after)} of {count} | {times} |",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
