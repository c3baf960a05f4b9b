# SPDX-License-Identifier: Apache-2.0
"""A learner that was killed while Steps are recorded goes on from the recorder's bag."""

import signal
from dataclasses import replace

import pytest
from learner_graph import SMALL, LearnerGraph
from step_bags import PERIOD, make_episodes, write_unfinished_bag
from waiting import scaled

from rlif_learner.data.checkpoint import CheckpointStore


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_learner_that_was_killed_takes_each_recorded_step_once(start_node, tmp_path):
    made = make_episodes(episodes=6, length=5)
    steps = [replace(step, stamp=step.sequence * PERIOD) for step in made]
    run, graph = {"run_directory": tmp_path}, LearnerGraph()
    try:
        process = start_node("rlif_learner", "learner", **SMALL, **run, checkpoint_every=1)
        graph.listen()
        graph.send(steps[:20])
        graph.wait_for(20)
        graph.send(steps[20:24])  # some of which may be in the last checkpoint
        process.send_signal(signal.SIGKILL)
        process.wait(scaled(30.0))
        graph.send(steps[24:30])
        write_unfinished_bag(tmp_path / "bag", steps[:28])  # the recorder is still writing it
        learner = graph.start_learner(run_directory=str(tmp_path), resume=str(tmp_path))
        graph.send(steps[30:])
        status = graph.wait_for(36)
        assert (status.lost_steps, status.transitions) == (0, 30)
        graph.remove(learner)
        graph.restart_recorder()
        learner = graph.start_learner(run_directory=str(tmp_path), resume=str(tmp_path))
        graph.send([replace(step, stamp=step.stamp + 10**12) for step in steps[6:12]])
        graph.wait_for(42)  # Steps with the numbers of earlier ones
        graph.remove(learner)
    finally:
        graph.close()
    store = CheckpointStore(tmp_path)
    manifest = store.verify(store.paths()[-1])
    assert manifest["buffers"]["online"]["state"]["total"] == 42


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_learner_of_several_robots_that_was_killed_takes_each_recorded_step_once(
    start_node, tmp_path
):
    robots = ("arm_1", "arm_2")
    made = make_episodes(episodes=6, length=5)
    streams = {
        name: [replace(step, robot=name, stamp=step.sequence * PERIOD) for step in made]
        for name in robots
    }
    run = {"run_directory": str(tmp_path), "robots": list(robots)}
    graph = LearnerGraph(robots)

    def send(start, stop):
        """Each a Step, in turn; the second robot's is two behind."""
        for one, two in zip(
            streams["arm_1"][start:stop], streams["arm_2"][start - 2 : stop - 2], strict=True
        ):
            graph.send([one, two])

    try:
        process = start_node("rlif_learner", "learner", **SMALL, **run, checkpoint_every=1)
        graph.listen()
        graph.send(streams["arm_1"][:2])
        send(2, 20)
        graph.wait_for(38)
        send(20, 24)  # some of which may be in the last checkpoint
        process.send_signal(signal.SIGKILL)
        process.wait(scaled(30.0))
        send(24, 30)
        for name, recorded in (("arm_1", 28), ("arm_2", 23)):
            (tmp_path / name).mkdir()
            write_unfinished_bag(tmp_path / name / "bag", streams[name][:recorded])
        learner = graph.start_learner(**run, resume=str(tmp_path))
        send(30, 36)
        graph.send(streams["arm_2"][34:])
        status = graph.wait_for(72)
        assert (status.lost_steps, status.transitions) == (0, 60)
        assert [(row.steps, row.episodes) for row in status.robots] == [(36, 6), (36, 6)]
        graph.remove(learner)
    finally:
        graph.close()


@pytest.mark.ros
def test_a_run_of_one_robot_goes_on_with_two_from_its_bag_and_what_their_recorders_repeat(tmp_path):
    steps = [replace(s, stamp=s.sequence * PERIOD) for s in make_episodes(episodes=3, length=5)]
    run, graph = {"run_directory": str(tmp_path)}, LearnerGraph()
    try:
        learner = graph.start_learner(**run)
        graph.send(steps[:8])
        graph.wait_for(8)
        graph.remove(learner)
    finally:
        graph.close()
    write_unfinished_bag(tmp_path / "bag", steps[:12])
    robots = ("arm_1", "arm_2")
    graph = LearnerGraph(robots)
    try:
        graph.send(replace(step, robot="arm_1") for step in steps[:6])
        graph.start_learner(**run, robots=list(robots), resume=str(tmp_path))
        graph.send(replace(step, robot="arm_2") for step in steps[:6])
        status = graph.wait_for(12 + 6 + 6)
        assert (status.lost_steps, status.transitions) == (0, 10 + 5 + 5)
        assert [row.steps for row in status.robots] == [6, 6]
    finally:
        graph.close()
