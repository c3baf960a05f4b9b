# SPDX-License-Identifier: Apache-2.0
"""The simulated robot over DDS, as the rest of the graph sees it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.exceptions import ParameterException
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from waiting import scaled

from rlif_msgs.msg import TaskSuccess
from rlif_sim import robot_node
from rlif_sim.robot_node import RobotNode

pytestmark = pytest.mark.ros


def stamp_of(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


class Rig:
    """A simulated robot, what it publishes, and how it is commanded."""

    def __init__(self, graph, **parameters):
        self.graph = graph
        self.robot = graph.add(RobotNode, **parameters)
        collect = lambda kind, topic: graph.collect(kind, topic, of=self.robot)  # noqa: E731
        self.poses, self.holes = (
            collect(PoseStamped, "ee_pose"),
            collect(PoseStamped, "object_pose"),
        )
        hidden = parameters.get("hide_success", False)
        self.successes = collect(TaskSuccess, "true_success" if hidden else "task_success")
        self.publisher = graph.publisher(TwistStamped, "servo_node/delta_twist_cmds", 1)
        graph.until(lambda: self.poses and self.holes, "the first samples of the robot")

    def command(self, twist, stamp=None, frame="base"):
        message = TwistStamped()
        message.header.frame_id = frame
        message.header.stamp = stamp if stamp is not None else self.poses[-1].header.stamp
        linear = message.twist.linear
        linear.x, linear.y, linear.z = (float(value) for value in twist)
        self.publisher.publish(message)

    def relative(self):
        tip, hole = self.poses[-1].pose.position, self.holes[-1].pose.position
        return np.array([tip.x - hole.x, tip.y - hole.y, tip.z - hole.z])

    def until_samples_after(self, stamp):
        def complete():
            newest = stamp_of(self.poses[-1])
            return newest > stamp and stamp_of(self.holes[-1]) == newest

        self.graph.until(complete, f"samples after {stamp}")


@pytest.fixture(autouse=True)
def _quick_repetition(monkeypatch):
    monkeypatch.setattr(robot_node, "_REPEAT_PERIOD", 0.05)


@pytest.mark.parametrize("hidden", [False, True])
def test_robot_in_lock_step_moves_one_period_per_command_and_the_peg_goes_in(graph, hidden):
    rig = Rig(graph, lock_step=True, seed=4, hide_success=hidden)
    steps = 0
    while not rig.successes and steps < 60:
        offset, before = rig.relative(), stamp_of(rig.poses[-1])
        down = -0.08 if np.hypot(*offset[:2]) < 0.0008 else 0.0
        rig.command([*np.clip(-8.0 * offset[:2], -0.1, 0.1), down])
        rig.until_samples_after(before)
        assert stamp_of(rig.poses[-1]) - before == pytest.approx(0.1, abs=0.005)
        steps += 1
        graph.spin_once()
    assert len(rig.successes) == 1, f"the peg is not in after {steps} steps"


def test_robot_in_lock_step_ignores_an_old_command_and_a_zero_stamp(graph):
    rig = Rig(graph, lock_step=True)
    old = rig.poses[-1].header.stamp
    rig.command([0.05, 0.0, 0.0])
    graph.until(lambda: rig.poses[-1].header.stamp != old, "one step")
    newest = stamp_of(rig.poses[-1])
    rig.command([0.05, 0.0, 0.0], stamp=old)
    rig.command([0.05, 0.0, 0.0], stamp=Header().stamp)
    count = len(rig.poses)
    # Idle, the robot repeats its samples: two of them later nothing has moved.
    graph.until(lambda: len(rig.poses) >= count + 2, "two repetitions")
    assert stamp_of(rig.poses[-1]) == newest


def test_robot_reset_gives_another_board(graph):
    rig = Rig(graph, lock_step=True, seed=4)
    reset = graph.node.create_client(Trigger, "reset")
    graph.until(reset.service_is_ready, "the reset service")
    first = rig.holes[-1].pose.position
    future = reset.call_async(Trigger.Request())
    graph.until(future.done, "the reset")
    assert future.result().success
    graph.until(lambda: rig.holes[-1].pose.position != first, "another board")


def test_robot_in_real_time_moves_for_the_command_time_out_only(graph):
    rig = Rig(graph, lock_step=False, real_time_factor=5.0)
    start = rig.poses[-1].pose.position.x
    rig.command([0.1, 0.0, 0.0])
    began = stamp_of(rig.poses[-1])
    graph.until(lambda: stamp_of(rig.poses[-1]) > began + 2.0, "two simulated seconds")
    assert abs(rig.poses[-1].pose.position.x - start) < 0.025


def test_robot_with_images_publishes_them_with_their_info(graph):
    rig = Rig(graph, lock_step=True, images=True, camera_width=64, camera_height=48)
    images = graph.collect(Image, "camera/wrist/image", 2, of=rig.robot)
    infos = graph.collect(CameraInfo, "camera/wrist/camera_info", 2, of=rig.robot)
    graph.until(lambda: images and infos, "an image and its camera_info")
    assert (images[0].width, images[0].height, images[0].encoding) == (64, 48, "rgb8")
    assert len(images[0].data) == images[0].step * 48
    assert infos[0].k[0] == infos[0].k[4] > 0.0


def test_robot_on_the_wall_clock_stamps_with_it_and_sends_enlarged_noisy_images(graph):
    now = time.time()
    size = {"camera_width": 64, "camera_height": 48, "camera_upscale": 4}
    rig = Rig(graph, wall_clock=True, images=True, **size)
    images = graph.collect(Image, "camera/wrist/image", 2, of=rig.robot)
    graph.until(lambda: len(images) > 1, "two images")
    for message in (rig.poses[0], images[0]):
        assert 0.0 < stamp_of(message) - now < scaled(30.0)
    pixels = np.frombuffer(images[0].data, np.uint8).reshape(12, 4, 16, 4, 3)
    rendered = pixels >> 1  # the lowest bit is noise, or the arm at rest had a frozen camera
    assert (rendered == rendered[:, :1, :, :1]).all() and rendered.std() > 1.0
    assert images[0].data != images[1].data
    assert rig.robot.count_publishers("/clock") == 0


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"wall_clock": True, "lock_step": True}, "expected neither"),
        ({"wall_clock": True, "real_time_factor": 2.0}, "expected neither"),
        ({"camera_upscale": 3}, "camera_upscale: found 3 with images of 128x128"),
    ],
)
def test_robot_with_settings_that_exclude_each_other_is_refused(graph, parameters, match):
    with pytest.raises(ValueError, match=match):
        graph.add(RobotNode, **parameters)


def test_robot_with_a_parameter_out_of_range_is_refused_by_name(graph):
    with pytest.raises((ValueError, ParameterException), match="control_rate"):
        graph.add(RobotNode, control_rate=0.01)
