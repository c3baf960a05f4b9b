# SPDX-License-Identifier: Apache-2.0
"""MoveIt's Panda demo (move_group, mock hardware, RViz) and a servo_node with this suite's parameters.

Python, as MoveIt's configuration is built by moveit_configs_utils. Needs `ros2 launch`, moveit_servo and
moveit_resources_panda_moveit_config. robot.launch.yaml and moveit.launch.yaml with robot:=panda_demo go
beside it: docs/panda_demo.md.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from moveit_configs_utils import MoveItConfigsBuilder

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """As `ros2 launch` calls it."""
    moveit = MoveItConfigsBuilder("moveit_resources_panda").to_moveit_configs()
    share = Path(get_package_share_directory("rlif_bringup"))
    servo = yaml.safe_load((share / "config/panda_demo/servo.yaml").read_text(encoding="utf-8"))
    demo = get_package_share_directory("moveit_resources_panda_moveit_config")
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(f"{demo}/launch/demo.launch.py")
            ),
            Node(
                package="moveit_servo",
                executable="servo_node",
                name="servo_node",
                output="screen",
                parameters=[
                    servo,
                    moveit.robot_description,
                    moveit.robot_description_semantic,
                    moveit.robot_description_kinematics,
                    moveit.joint_limits,
                ],
            ),
        ]
    )
