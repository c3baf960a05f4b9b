# SPDX-License-Identifier: Apache-2.0
"""A process around moveit_py: reads goals from standard input, moves the arm, answers.

In a process of its own because `plan()` holds Python's lock, which would stop the node's timers, and
because the end of a MoveItPy shuts ROS down for its whole process. One JSON object per line:

    in   {"go": {"kind": "joints", "joints": [...], "positions": [...], ...}}   or   {"cancel": true}
    out  {"ready": ""}   once;   {"problem": ""}   for each go; empty: the arm is there
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, TextIO

from .interfaces import MissingInterfacesError
from .planning import PlanConfig, PlanningInterfaces, constraints, planning_interfaces
from .reset_goals import JointGoal, NamedGoal, PoseGoal
from .wire import goal_from_wire

STATE_TIMEOUT = 5.0  # s that the first joint state may take
# MoveItPy publishes its planning scene, by default where Servo listens to move_group's.
REMAPPINGS = {"monitored_planning_scene": "rlif_reset/planning_scene"}
SCENE_SERVICE = "/get_planning_scene"  # of move_group


class GoalRefusedError(ValueError):
    """MoveIt does not take the goal; the message names it and the remedy."""


class Arm(Protocol):
    """What the worker needs of MoveIt."""

    def plan(self, goal: JointGoal | NamedGoal | PoseGoal) -> Any:
        """A trajectory; None: none was found. Raises GoalRefusedError."""

    def execute(self, trajectory: Any) -> bool: ...

    def stop(self) -> None: ...


class MoveItArm:
    """moveit_py. Imported here only."""

    def __init__(self, config: PlanConfig, files: list[str]) -> None:
        from moveit.planning import MoveItPy, PlanRequestParameters

        self._types = planning_interfaces("the node reset_by_planning with planner moveit_py")
        # Without a joint state MoveIt would plan from joints at zero.
        options = {"wait_for_initial_state_timeout": STATE_TIMEOUT}
        content = {"/**": {"ros__parameters": {"planning_scene_monitor_options": options}}}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as ours:
            json.dump(content, ours)
            ours.flush()
            self._moveit = MoveItPy(
                node_name="rlif_reset",
                launch_params_filepaths=[*files, ours.name],
                provide_planning_service=False,
                remappings=REMAPPINGS,
            )
        self._component = self._moveit.get_planning_component(config.group)
        self._parameters = PlanRequestParameters(self._moveit, "")
        self._has_move_group: bool | None = None  # None: not asked yet
        set_parameters(self._parameters, config)

    def plan(self, goal: JointGoal | NamedGoal | PoseGoal) -> Any:
        self._take_over_objects()
        self._component.set_start_state_to_current_state()
        set_goal(self._component, goal, self._types)
        found = self._component.plan(single_plan_parameters=self._parameters)
        return found.trajectory if found else None

    def _take_over_objects(self) -> None:
        """Of move_group, where there is one."""
        if self._has_move_group is False:
            return
        monitor = self._moveit.get_planning_scene_monitor()
        found = monitor.request_planning_scene_state(SCENE_SERVICE)
        if self._has_move_group and not found:
            raise GoalRefusedError(
                f"move_group does not answer on {SCENE_SERVICE} any more: start it again"
            )
        self._has_move_group = found

    def execute(self, trajectory: Any) -> bool:
        return bool(self._moveit.execute(trajectory, controllers=[]))

    def stop(self) -> None:
        self._moveit.get_trajectory_execution_manager().stop_execution()


def set_parameters(parameters: Any, c: PlanConfig) -> None:
    """moveit_py's PlanRequestParameters; an empty id leaves what MoveIt's files have."""
    parameters.planning_attempts = 1
    parameters.planning_time = c.planning_time
    parameters.max_velocity_scaling_factor = c.velocity_scale
    parameters.max_acceleration_scaling_factor = c.acceleration_scale
    if c.pipeline:
        parameters.planning_pipeline = c.pipeline
    if c.planner:
        parameters.planner_id = c.planner


def set_goal(
    component: Any, goal: JointGoal | NamedGoal | PoseGoal, types: PlanningInterfaces
) -> None:
    """As constraints, like the goals of move_group: with the tolerances, other joints free.

    A robot state in their place would have no tolerance and a value for each joint, also for those
    that no goal names.
    """
    if isinstance(goal, NamedGoal):
        taken = component.set_goal_state(configuration_name=goal.name)
    else:
        taken = component.set_goal_state(motion_plan_constraints=[constraints(goal, types)])
    if not taken:
        what = f"goal_state {goal.name!r}" if isinstance(goal, NamedGoal) else "the goal"
        raise GoalRefusedError(
            f"MoveIt does not take {what}: check planning_group, and the names in the goal against "
            "the SRDF"
        )


def move(arm: Arm, goal: JointGoal | NamedGoal | PoseGoal, cancelled: threading.Event) -> str:
    """Plan and execute; the reason of a failure, empty: done."""
    try:
        trajectory = arm.plan(goal)
    except GoalRefusedError as error:
        return str(error)
    if cancelled.is_set():
        return "cancelled before it moved"
    if trajectory is None:
        return "no plan was found: see the worker's output above"
    done = arm.execute(trajectory)
    if cancelled.is_set():
        return "cancelled"
    return "" if done else "the trajectory was not executed: see the worker's output above"


def serve(arm: Arm, lines: Iterable[str], answer: Callable[[dict[str, str]], None]) -> None:
    """Until the input ends; then the arm is stopped. Cancels are received while it moves."""
    goals: queue.Queue[Any] = queue.Queue()
    cancelled = threading.Event()

    def listen() -> None:
        try:
            for line in lines:
                message = json.loads(line)
                if message.get("cancel"):
                    cancelled.set()
                    arm.stop()
                else:
                    cancelled.clear()
                    goals.put(message["go"])
        finally:  # also after a line that is none: nothing else could stop the arm any more
            cancelled.set()
            arm.stop()
            goals.put(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    while (wire := goals.get()) is not None:
        answer({"problem": move(arm, goal_from_wire(wire), cancelled)})
    listener.join()


def private_output() -> TextIO:
    """Standard output for us alone: what MoveIt's libraries print goes to standard error."""
    mine = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return mine


def main() -> int:
    """`python -m rlif_moveit.moveit_py_worker`, started by the node reset_by_planning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", required=True)
    parser.add_argument("--velocity", type=float, required=True)
    parser.add_argument("--acceleration", type=float, required=True)
    parser.add_argument("--planning-time", type=float, required=True)
    parser.add_argument("--pipeline", default="")
    parser.add_argument("--planner", default="")
    parser.add_argument("--params-file", action="append", default=[])
    a = parser.parse_args()
    out = private_output()

    def answer(message: dict[str, str]) -> None:
        # The node may have died meanwhile; then the input ends too, which stops the arm and this.
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=out, flush=True)

    config = PlanConfig(
        group=a.group,
        planning_time=a.planning_time,
        velocity_scale=a.velocity,
        acceleration_scale=a.acceleration,
        pipeline=a.pipeline,
        planner=a.planner,
    )
    try:
        arm = MoveItArm(config, a.params_file)
    except MissingInterfacesError as error:
        answer({"ready": str(error)})
        return 2
    except ImportError as error:
        answer(
            {
                "ready": f"moveit_py is not there ({error}): install it with `sudo apt install "
                "ros-$ROS_DISTRO-moveit-py`, or set planner to move_group"
            }
        )
        return 2
    except TypeError as error:
        answer(
            {
                "ready": f"moveit_py is too old ({error}): install 2.12.3 or newer, or set planner to "
                "move_group"
            }
        )
        return 2
    except RuntimeError as error:
        answer(
            {
                "ready": f"MoveIt did not start ({error}): see the worker's output above; joint states "
                f"must come within {STATE_TIMEOUT} s, and moveit_py_parameters must hold MoveIt's"
            }
        )
        return 2
    answer({"ready": ""})
    serve(arm, sys.stdin, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
