# SPDX-License-Identifier: Apache-2.0
"""Node `sim_robot`: the simulated arm, with the interface of a real stack with Servo.

Subscribes
    servo_node/delta_twist_cmds  geometry_msgs/TwistStamped   by Servo's rules (rlif_sim.servo)
Publishes
    joint_states                 sensor_msgs/JointState
    ee_pose                      geometry_msgs/PoseStamped    tip of the peg, base frame
    object_pose                  geometry_msgs/PoseStamped    centre of the hole on the board's face
    wrench                       geometry_msgs/WrenchStamped  what the board does to the peg, base frame
    task_success                 rlif_msgs/TaskSuccess        once, when the peg is in the hole
    true_success                 rlif_msgs/TaskSuccess        instead, with `hide_success`: it ends nothing
    camera/{wrist,fixed}/image, .../camera_info               if `images`
    /clock                       rosgraph_msgs/Clock          after the samples of the same time;
                                                              not with `wall_clock`
Services
    reset                        std_srvs/Trigger             another board, another start

In lock-step the world stands still until a command of the newest samples' stamp arrives, then moves
for one control period. Otherwise it runs at `real_time_factor`, or with `wall_clock` in real time with
the stamps of the system's clock.
"""

from __future__ import annotations

import array
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rlif_node.parameters import Param, declare
from rlif_node.qos import RELIABLE, RELIABLE_1
from rlif_node.running import run
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from rlif_msgs.msg import TaskSuccess
from rlif_sim.peg_in_hole import CAMERAS, PegInHole, WorldConfig
from rlif_sim.servo import Command, ServoConfig, follow

PARAMETERS = (
    Param("lock_step", False, "move only in answer to a command, one control period each"),
    Param(
        "wall_clock",
        False,
        "as a robot's drivers: stamps of the system's clock, no /clock, real time",
    ),
    Param("real_time_factor", 1.0, "simulated over wall time, where not in lock-step", 0.01, 100.0),
    Param("control_rate", 10.0, "Hz; 1 / the control period of lock-step", 1.0, 100.0),
    Param("state_rate", 50.0, "Hz; of joints, pose and wrench, where not in lock-step", 1.0, 100.0),
    Param("images", False, "render and publish the cameras"),
    Param("camera_rate", 15.0, "Hz; where not in lock-step", 0.1, 60.0),
    Param("camera_width", 128, "pixels that the cameras send", 16, 640),
    Param("camera_height", 128, "pixels that the cameras send", 16, 480),
    Param("camera_upscale", 1, "images are rendered smaller by this factor and enlarged", 1, 8),
    Param("base_frame", "base", "frame of poses, wrenches and twists"),
    Param("command_in_type", "speed_units", "as Servo's: speed_units or unitless"),
    Param("incoming_command_timeout", 0.1, "s; a command older than this moves nothing", 0.01, 2.0),
    Param("board_spread", 0.04, "m; the board lies up to this far from its centre", 0.0, 0.1),
    Param("start_spread", 0.04, "m; the peg starts up to this far from the hole", 0.0, 0.1),
    Param(
        "clearance", 0.001, "m between the radius of the peg and that of the hole", 0.0005, 0.005
    ),
    Param("success_depth", 0.02, "m below the face at which the peg is in", 0.001, 0.035),
    Param(
        "hide_success", False, "success on true_success alone: a person or a detector has to see it"
    ),
    Param(
        "seed", 0, "of boards and starts; set, it counts from the next reset", 0, 2**31 - 1, True
    ),
)
_WALL_PERIOD = 0.01  # s of simulated time per turn of the timer, where not in lock-step
_LONGEST_TURN = 0.05  # s; with wall_clock the world does not jump further than this
_RESET_PAUSE = 0.5  # s without samples: no velocity may be taken from the jump to another start
_REPEAT_PERIOD = 0.5  # s of wall time after which an idle lock-step world repeats its samples
_START_TIME = 1.0  # s; a stamp of zero means "no stamp"


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation matrix [3, 3]."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    w, x, y, z = quaternion.tolist()
    return x, y, z, w


def _check(value: Mapping[str, Any]) -> None:
    """ValueError for settings that exclude each other."""
    if value["wall_clock"] and (value["lock_step"] or value["real_time_factor"] != 1.0):
        raise ValueError(
            "wall_clock: found it with lock_step or a real_time_factor other than 1, expected neither"
        )
    factor, sizes = value["camera_upscale"], (value["camera_width"], value["camera_height"])
    if any(size % factor for size in sizes):
        raise ValueError(
            f"camera_upscale: found {factor} with images of {sizes[0]}x{sizes[1]}, expected a factor "
            "of both"
        )


class RobotNode(Node):
    """Shell around `PegInHole` and Servo's rules."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("sim_robot", parameter_overrides=list(overrides))
        value = declare(self, PARAMETERS)
        self._lock_step: bool = value["lock_step"]
        self._period = 1.0 / value["control_rate"]
        self._frame: str = value["base_frame"]
        self._success_topic = "true_success" if value["hide_success"] else "task_success"
        self._images: bool = value["images"]
        self._size: tuple[int, int] = (value["camera_width"], value["camera_height"])
        self._upscale: int = value["camera_upscale"]
        self._wall_clock: bool = value["wall_clock"]
        _check(value)
        self._servo = ServoConfig(
            frames=(self._frame,),
            command_in_type=value["command_in_type"],
            incoming_command_timeout=value["incoming_command_timeout"],
        )
        self._world = PegInHole(
            WorldConfig(
                board_spread=value["board_spread"],
                start_spread=value["start_spread"],
                success_depth=value["success_depth"],
                clearance=value["clearance"],
            ),
            seed=value["seed"],
        )
        self._seed: int | None = None
        self._command: Command | None = None
        self._stamp = 0.0
        self._succeeded = False
        self._refused = ""
        self._moves = 0  # since the last look of `_repeat_if_idle`
        self._advertise()
        self.add_post_set_parameters_callback(self._on_parameters)
        if not self._lock_step:
            self._every_state = max(1, round(1.0 / value["state_rate"] / _WALL_PERIOD))
            self._every_image = max(1, round(1.0 / value["camera_rate"] / _WALL_PERIOD))
            self._turn = 0
            self._turned: float | None = None  # steady time of the last turn, in s
            self._rng = np.random.default_rng(value["seed"])
            pixels = 3 * self._size[0] * self._size[1]
            self._noise = self._rng.integers(0, 2, 2 * pixels, dtype=np.uint8)  # the lowest bits
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            period = _WALL_PERIOD / value["real_time_factor"]
            self.create_timer(period, self._on_timer, clock=steady)
        else:
            # Samples are events here, and a subscriber that starts late has missed the last ones.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(_REPEAT_PERIOD, self._repeat_if_idle, clock=steady)
        self._publish_all()

    def _advertise(self) -> None:
        reliable, image_qos = RELIABLE, QoSProfile(depth=2)
        self._joints = self.create_publisher(JointState, "joint_states", reliable)
        self._pose = self.create_publisher(PoseStamped, "ee_pose", reliable)
        self._object = self.create_publisher(PoseStamped, "object_pose", reliable)
        self._wrench = self.create_publisher(WrenchStamped, "wrench", reliable)
        self._success = self.create_publisher(TaskSuccess, self._success_topic, reliable)
        self._clock_publisher = (
            None if self._wall_clock else self.create_publisher(ClockMessage, "/clock", reliable)
        )
        self._cameras = {
            name: (
                self.create_publisher(Image, f"camera/{name}/image", image_qos),
                self.create_publisher(CameraInfo, f"camera/{name}/camera_info", image_qos),
            )
            for name in (CAMERAS if self._images else ())
        }
        self.create_subscription(
            TwistStamped, "servo_node/delta_twist_cmds", self._on_command, RELIABLE_1
        )
        self.create_service(Trigger, "reset", self._on_reset)

    def _on_parameters(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "seed":
                self._seed = parameter.value

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._world.reset(self._seed)
        self._seed = None
        self._command, self._succeeded = None, False
        self._world.advance(np.zeros(6), self._period if self._lock_step else _RESET_PAUSE)
        self._publish_all()
        response.success, response.message = True, "another board, another start"
        return response

    def _on_command(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self._command = Command(twist, message.header.frame_id, stamp)
        if self._lock_step and stamp > self._stamp - 1e-6:
            self._moves += 1
            self._move(self._period)
            self._publish_all()

    def _on_timer(self) -> None:
        self._move(self._turn_duration())
        self._turn += 1
        if self._turn % self._every_state == 0:
            self._publish_states()
        # One camera a turn: rendering two would delay the next samples of the state.
        for index, name in enumerate(self._cameras):
            if (self._turn + index) % self._every_image == 0:
                self._publish_image(name)
        self._publish_clock()

    def _turn_duration(self) -> float:
        """Simulated s of this turn; with `wall_clock` as long as the last one really took."""
        now = time.monotonic()
        last, self._turned = self._turned, now
        if not self._wall_clock or last is None:
            return _WALL_PERIOD
        return min(now - last, _LONGEST_TURN)

    def _repeat_if_idle(self) -> None:
        if self._moves == 0:
            self._publish_all()
        self._moves = 0

    def _move(self, duration: float) -> None:
        answer = follow(self._command, self._now(), self._servo)
        if answer.refused and not self._refused and self._command is not None:
            self.get_logger().warning(f"standing still: {answer.refused}")
        self._refused = answer.refused
        self._world.advance(answer.twist, duration)

    def _now(self) -> float:
        if self._wall_clock:
            return self.get_clock().now().nanoseconds * 1e-9
        return self._world.time + _START_TIME

    def _header(self) -> Header:
        header = Header(frame_id=self._frame)
        nanoseconds = round(self._now() * 1e9)
        header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)
        return header

    def _publish_all(self) -> None:
        self._publish_states()
        if self._images:
            self._publish_images()
        self._publish_clock()

    def _publish_states(self) -> None:
        world, header = self._world, self._header()
        self._stamp = header.stamp.sec + header.stamp.nanosec * 1e-9
        if world.success and not self._succeeded:
            self._succeeded = True
            success = TaskSuccess(confidence=1.0, source="peg in hole")
            success.header.stamp = header.stamp
            self._success.publish(success)
        joints = JointState(header=header, name=world.joint_names)
        joints.position = array.array("d", world.joint_positions.tobytes())
        joints.velocity = array.array("d", world.joint_velocities.tobytes())
        self._joints.publish(joints)
        hole = PoseStamped(header=header)
        hole.pose.orientation.w = 1.0
        position = hole.pose.position
        position.x, position.y, position.z = world.hole_position.tolist()
        self._object.publish(hole)
        wrench = WrenchStamped(header=header)
        force, torque = wrench.wrench.force, wrench.wrench.torque
        force.x, force.y, force.z, torque.x, torque.y, torque.z = world.wrench.tolist()
        self._wrench.publish(wrench)
        pose = PoseStamped(header=header)
        position, orientation = pose.pose.position, pose.pose.orientation
        position.x, position.y, position.z = world.end_effector_position.tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = _quaternion(
            world.end_effector_rotation
        )
        self._pose.publish(pose)

    def _publish_images(self) -> None:
        for name in self._cameras:
            self._publish_image(name)

    def _publish_image(self, name: str) -> None:
        (width, height), factor = self._size, self._upscale
        image_publisher, info_publisher = self._cameras[name]
        header = self._header()
        header.frame_id = f"{name}_camera"
        pixels = self._world.render(name, width // factor, height // factor)
        if factor > 1:
            pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        if not self._lock_step:
            # A sensor's noise: without it the images of an arm at rest are those of a frozen camera.
            first = int(self._rng.integers(pixels.size))
            pixels = pixels ^ self._noise[first : first + pixels.size].reshape(pixels.shape)
        image = Image(header=header, height=height, width=width, encoding="rgb8")
        image.step = 3 * width
        image.data = array.array("B", pixels.tobytes())
        image_publisher.publish(image)
        info_publisher.publish(self._camera_info(name, header))

    def _camera_info(self, name: str, header: Header) -> CameraInfo:
        width, height = self._size
        focal = 0.5 * height / math.tan(0.5 * math.radians(self._world.field_of_view(name)))
        x, y = 0.5 * width, 0.5 * height
        info = CameraInfo(header=header, height=height, width=width)
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        info.k = [focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def _publish_clock(self) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(ClockMessage(clock=self._header().stamp))

    def destroy_node(self) -> None:
        """Free the renderers with the node."""
        self._world.close()
        super().destroy_node()


def main() -> None:
    """Console script `robot`."""
    sys.exit(run("sim_robot", RobotNode))
