# SPDX-License-Identifier: Apache-2.0
"""The worker around moveit_py, with a stand-in arm."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import scaled

from rlif_moveit import moveit_py_worker
from rlif_moveit.moveit_py_planner import worker_command
from rlif_moveit.moveit_py_worker import (
    GoalRefusedError,
    MoveItArm,
    serve,
    set_goal,
    set_parameters,
)
from rlif_moveit.planning import PlanConfig
from rlif_moveit.reset_goals import JointGoal, NamedGoal, PoseGoal
from rlif_moveit.wire import goal_to_wire

GOALS = [
    NamedGoal("ready"),
    JointGoal(joints=("a",), positions=(0.1,), spread=(0.2,)),
    PoseGoal(
        link="tool0", frame="base", position=(0.5, 0.0, 0.3), orientation=(1.0, 0.0, 0.0, 0.0)
    ),
]


class Component:
    """moveit_py's PlanningComponent, as far as goals go."""

    def __init__(self, takes=True):
        self.takes, self.goals = takes, []

    def set_goal_state(self, **goal):
        self.goals.append(goal)
        return self.takes


class MoveIt:
    """moveit_py's MoveItPy, with move_group's answers to come in `scenes`."""

    def __init__(self, scenes, given):
        self.scenes, self.given = scenes, given

    def __call__(self, **given):
        files = [Path(file).read_text() for file in given["launch_params_filepaths"]]
        self.given.update(given, files=files)
        return self

    def get_planning_component(self, group):
        return SimpleNamespace(
            set_start_state_to_current_state=lambda: None,
            set_goal_state=lambda **goal: True,
            plan=lambda **parameters: SimpleNamespace(trajectory="trajectory"),
        )

    def get_planning_scene_monitor(self):
        return SimpleNamespace(request_planning_scene_state=lambda service: self.scenes.pop(0))


@pytest.fixture
def moveit_arm(monkeypatch, planning_types, tmp_path):
    """Makes a MoveItArm on a stand-in of moveit_py; returns it and what MoveItPy was given."""

    def make(*scenes):
        given = {}
        module = SimpleNamespace(
            MoveItPy=MoveIt(list(scenes), given),
            PlanRequestParameters=lambda moveit, name: SimpleNamespace(),
        )
        monkeypatch.setitem(sys.modules, "moveit", SimpleNamespace(planning=module))
        monkeypatch.setitem(sys.modules, "moveit.planning", module)
        monkeypatch.setattr(moveit_py_worker, "planning_interfaces", lambda what: planning_types)
        (tmp_path / "theirs.yaml").write_text("theirs")
        arm = MoveItArm(PlanConfig(group="arm"), [str(tmp_path / "theirs.yaml")])
        return arm, given

    return make


def test_moveit_py_waits_for_joint_states_and_publishes_no_scene_to_servo(moveit_arm):
    """Regression: it planned from joints at zero, and Servo listened to its scene too."""
    _, given = moveit_arm()
    theirs, ours = given["files"]
    assert theirs == "theirs"
    options = json.loads(ours)["/**"]["ros__parameters"]["planning_scene_monitor_options"]
    assert options["wait_for_initial_state_timeout"] > 0.0
    assert given["remappings"]["monitored_planning_scene"] == "rlif_reset/planning_scene"


def test_moveit_py_takes_over_move_groups_objects_before_each_plan(moveit_arm):
    """Regression: it planned through what only move_group was given."""
    arm, _ = moveit_arm(True, True, False)
    assert [arm.plan(GOALS[0]) for _ in range(2)] == ["trajectory"] * 2
    with pytest.raises(GoalRefusedError, match="move_group does not answer"):
        arm.plan(GOALS[0])


def test_moveit_py_without_move_group_asks_it_once(moveit_arm):
    arm, _ = moveit_arm(False)
    assert [arm.plan(GOALS[0]) for _ in range(3)] == ["trajectory"] * 3


def test_set_parameters_of_a_configuration_reach_moveit_py():
    config = PlanConfig(
        group="arm", planning_time=2.5, velocity_scale=0.2, acceleration_scale=0.3,
        pipeline="ompl", planner="RRTConnect",
    )  # fmt: skip
    found = SimpleNamespace(planner_id="theirs", planning_pipeline="theirs")
    set_parameters(found, config)
    assert (found.planning_time, found.planning_pipeline) == (2.5, "ompl")
    assert found.planner_id == "RRTConnect"
    assert found.max_velocity_scaling_factor == 0.2
    assert found.max_acceleration_scaling_factor == 0.3
    set_parameters(found, PlanConfig(group="arm"))
    assert found.planner_id == "RRTConnect", "empty: what MoveIt's files say"
    command = worker_command(config, ["a.yaml"])
    asked = {"--planning-time", "2.5", "--pipeline=ompl", "--planner=RRTConnect", "a.yaml"}
    assert asked <= set(command)


def test_set_goal_passes_tolerances_and_no_other_joints(planning_types):
    component = Component()
    joints = JointGoal(joints=("b",), positions=(0.5,), tolerance=0.02)
    set_goal(component, joints, planning_types)
    ((asked,),) = (goal["motion_plan_constraints"] for goal in component.goals)
    (one,) = asked.joint_constraints
    assert (one.joint_name, one.position, one.tolerance_above) == ("b", 0.5, 0.02)
    set_goal(component, GOALS[2], planning_types)
    (asked,) = component.goals[-1]["motion_plan_constraints"]
    assert asked.position_constraints[0].link_name == "tool0"
    assert asked.orientation_constraints[0].absolute_x_axis_tolerance == 0.01


def test_worker_with_a_goal_that_moveit_refuses_names_it(planning_types):
    class Refusing(StandInArm):
        def plan(self, goal):
            set_goal(Component(takes=False), goal, planning_types)

    arm = Refusing()
    worker = Worker(arm)
    worker.tell(go=goal_to_wire(NamedGoal("home")))
    assert "goal_state 'home'" in worker.answers.get(timeout=scaled(10))["problem"]
    assert not arm.executing.is_set()
    worker.end()


class StandInArm:
    """moveit_py as the worker sees it; executing lasts until `moved` or `stop`."""

    def __init__(self, plans=True):
        self.plans, self.goals = plans, []
        self.executing, self.moved, self.stops = threading.Event(), threading.Event(), 0

    def plan(self, goal):
        self.goals.append(goal)
        return "trajectory" if self.plans else None

    def execute(self, trajectory):
        self.executing.set()
        assert self.moved.wait(scaled(10))
        return self.stops == 0

    def stop(self):
        self.stops += 1
        self.moved.set()


class Worker:
    """`serve` in a thread, fed line by line."""

    def __init__(self, arm):
        self.lines, self.answers = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(
            target=serve, args=(arm, iter(self.lines.get, None), self.answers.put), daemon=True
        )
        self.thread.start()

    def tell(self, **message):
        self.lines.put(json.dumps(message))

    def end(self):
        self.lines.put(None)
        self.thread.join(scaled(10))
        assert not self.thread.is_alive()


def test_worker_with_a_goal_plans_executes_and_answers():
    arm = StandInArm()
    arm.moved.set()
    worker = Worker(arm)
    worker.tell(go=goal_to_wire(GOALS[1]))
    assert worker.answers.get(timeout=scaled(10)) == {"problem": ""}
    assert arm.goals == [GOALS[1]]
    worker.end()


def test_worker_without_a_plan_answers_and_moves_nothing():
    arm = StandInArm(plans=False)
    worker = Worker(arm)
    worker.tell(go=goal_to_wire(GOALS[0]))
    assert "no plan" in worker.answers.get(timeout=scaled(10))["problem"]
    assert not arm.executing.is_set()
    worker.end()


def test_worker_cancelled_while_the_arm_moves_stops_it():
    arm = StandInArm()
    worker = Worker(arm)
    worker.tell(go=goal_to_wire(GOALS[0]))
    assert arm.executing.wait(scaled(10))
    worker.tell(cancel=True)
    assert worker.answers.get(timeout=scaled(10)) == {"problem": "cancelled"}
    worker.end()


def test_worker_whose_node_ends_stops_the_arm():
    arm = StandInArm()
    worker = Worker(arm)
    worker.tell(go=goal_to_wire(GOALS[0]))
    assert arm.executing.wait(scaled(10))
    worker.end()
    assert arm.stops == 1


@pytest.mark.slow
def test_worker_without_moveit_py_says_how_to_install_it():
    try:
        import moveit.planning  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("moveit_py is installed here")
    done = subprocess.run(
        worker_command(PlanConfig(group="arm"), []),
        capture_output=True,
        text=True,
        timeout=scaled(30),
        input="",
    )
    assert done.returncode == 2
    assert "ros-$ROS_DISTRO-moveit-py" in json.loads(done.stdout)["ready"]
