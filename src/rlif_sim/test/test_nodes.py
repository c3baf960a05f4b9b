"""The nodes of rlif_sim over DDS, as the rest of the graph meets them."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState, Joy
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from rlif_msgs.msg import ControlState, Episode, PolicyAction

pytestmark = pytest.mark.ros


def stamp_of(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


class Rig:
    """What a test hears from the robot, and how it commands it."""

    def __init__(self, node):
        self.node = node
        self.poses, self.holes, self.successes, self.joints = [], [], [], []
        node.create_subscription(PoseStamped, "ee_pose", self.poses.append, 10)
        node.create_subscription(PoseStamped, "object_pose", self.holes.append, 10)
        node.create_subscription(Header, "task_success", self.successes.append, 10)
        node.create_subscription(JointState, "joint_states", self.joints.append, 10)
        self.publisher = node.create_publisher(TwistStamped, "servo_node/delta_twist_cmds", 1)

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


@pytest.fixture
def rig(ros_node, start_node, spin_until):
    def make(**parameters):
        made = Rig(ros_node)
        start_node("rlif_sim", "robot", **parameters)
        spin_until(lambda: made.poses and made.holes, "the first samples of the robot")
        spin_until(lambda: made.publisher.get_subscription_count(), "the robot's subscription")
        return made

    return make


def test_lock_step_moves_one_period_per_command_and_the_peg_goes_in(rig, spin_until):
    robot = rig(lock_step=True, seed=4)
    steps = 0
    while not robot.successes and steps < 60:
        offset, before = robot.relative(), stamp_of(robot.poses[-1])
        down = -0.08 if np.hypot(*offset[:2]) < 0.0008 else 0.0
        robot.command([*np.clip(-8.0 * offset[:2], -0.1, 0.1), down])
        spin_until(
            lambda since=before: (
                stamp_of(robot.poses[-1]) > since
                and stamp_of(robot.holes[-1]) == stamp_of(robot.poses[-1])
            ),
            "the next samples",
        )
        assert stamp_of(robot.poses[-1]) - before == pytest.approx(0.1, abs=0.005)
        steps += 1
        robot.node.executor.spin_once(timeout_sec=0.0)
    assert len(robot.successes) == 1, f"the peg is not in after {steps} steps"


def test_an_old_command_and_a_zero_stamp_do_not_move_a_lock_step_world(rig, spin_until):
    robot = rig(lock_step=True)
    old = robot.poses[-1].header.stamp
    robot.command([0.05, 0.0, 0.0])
    spin_until(lambda: robot.poses[-1].header.stamp != old, "one step")
    newest = stamp_of(robot.poses[-1])
    robot.command([0.05, 0.0, 0.0], stamp=old)
    robot.command([0.05, 0.0, 0.0], stamp=Header().stamp)
    count = len(robot.poses)
    # Idle, the robot repeats its samples: two of them later nothing has moved.
    spin_until(lambda: len(robot.poses) >= count + 2, "two repetitions")
    assert stamp_of(robot.poses[-1]) == newest


def test_reset_gives_another_board_and_a_seed_repeats_it(rig, spin_until, ros_node):
    robot = rig(lock_step=True, seed=4)
    reset = ros_node.create_client(Trigger, "reset")
    spin_until(reset.service_is_ready, "the reset service")
    first = robot.holes[-1].pose.position
    future = reset.call_async(Trigger.Request())
    spin_until(future.done, "the reset")
    assert future.result().success
    spin_until(lambda: robot.holes[-1].pose.position != first, "another board")


def test_in_real_time_a_command_that_is_not_renewed_moves_for_its_time_out_only(rig, spin_until):
    robot = rig(lock_step=False, real_time_factor=5.0)
    start = robot.poses[-1].pose.position.x
    robot.command([0.1, 0.0, 0.0])
    began = stamp_of(robot.poses[-1])
    spin_until(lambda: stamp_of(robot.poses[-1]) > began + 2.0, "two simulated seconds")
    assert abs(robot.poses[-1].pose.position.x - start) < 0.025


def test_the_cameras_are_published_with_their_info(rig, spin_until, ros_node):
    images, infos = [], []
    ros_node.create_subscription(Image, "camera/wrist/image", images.append, 2)
    ros_node.create_subscription(CameraInfo, "camera/wrist/camera_info", infos.append, 2)
    rig(lock_step=True, images=True, camera_width=64, camera_height=48)
    spin_until(lambda: images and infos, "a picture and its camera_info")
    assert (images[0].width, images[0].height, images[0].encoding) == (64, 48, "rgb8")
    assert len(images[0].data) == images[0].step * 48
    assert infos[0].k[0] == infos[0].k[4] > 0.0


def test_a_parameter_out_of_range_is_refused_by_name(start_node):
    process = start_node("rlif_sim", "robot", control_rate=0.01)
    output, _ = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "control_rate" in output


def test_the_operator_arms_then_answers_each_action_with_its_stamp(
    ros_node, start_node, spin_until
):
    heard = []
    ros_node.create_subscription(Joy, "joy", heard.append, 10)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    control = ros_node.create_publisher(ControlState, "control_state", latched)
    episode = ros_node.create_publisher(Episode, "episode", latched)
    action = ros_node.create_publisher(PolicyAction, "policy_action", 10)
    poses = {
        name: ros_node.create_publisher(PoseStamped, name, 10)
        for name in ("ee_pose", "object_pose")
    }
    start_node(
        "rlif_sim", "operator",
        lock_step=True, use_sim_time=True, beta=1.0, actor_noise=0.0, actor_bias=0.0,
    )  # fmt: skip
    spin_until(lambda: any(joy.buttons[3] for joy in heard), "the arm button")
    control.publish(ControlState(state=ControlState.HOLD))
    episode.publish(Episode(id=1, phase=Episode.RUNNING))
    spin_until(lambda: action.get_subscription_count() == 1, "the operator's subscription")
    heard.clear()

    def ask(second, policy_action):
        header = Header(frame_id="base")
        header.stamp.sec = second
        tip = PoseStamped(header=header)
        tip.pose.position.x, tip.pose.position.z = 0.03, 0.05
        poses["object_pose"].publish(PoseStamped(header=header))
        action.publish(PolicyAction(header=header, tick=second, action=policy_action))
        poses["ee_pose"].publish(tip)

    answers = []
    for second, policy_action in ((5, [-1.0, 0.0, -1.0]), (6, [1.0, 0.0, 0.0])):
        ask(second, policy_action)
        spin_until(
            lambda s=second: any(joy.header.stamp.sec == s for joy in heard),
            "the operator's answer",
        )
        answers.append(next(joy for joy in heard if joy.header.stamp.sec == second))
    assert list(answers[0].buttons) == [0, 0, 0, 0], "a good action is left alone"
    assert list(answers[1].buttons) == [1, 0, 0, 0], "a bad action is taken over"
    assert answers[1].axes[0] < -0.5, "towards the hole"


def test_the_operator_never_arms_what_may_be_a_real_arm(ros_node, start_node, spin_until):
    heard = []
    ros_node.create_subscription(Joy, "joy", heard.append, 10)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    ros_node.create_publisher(ControlState, "control_state", latched).publish(
        ControlState(state=ControlState.DISARMED)
    )
    start_node("rlif_sim", "operator", use_sim_time=False)
    spin_until(lambda: len(heard) > 20, "a second of Joy messages")
    assert not any(joy.buttons[3] for joy in heard)
