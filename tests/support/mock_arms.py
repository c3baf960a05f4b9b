# SPDX-License-Identifier: Apache-2.0
"""The MoveIt stack of a shipped robot configuration over mock hardware: `python mock_arms.py ur5e_gamepad`.

Description, SRDF, limits and planners are the vendor's; Servo's and the controller's parameters are those of
config/ROBOT. The vendor's driver is replaced by ros2_control's mock system and a joint_trajectory_controller
of the same name, which take positions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Arm:
    """description, semantic: package, file and arguments of xacro; start: rad, by joint."""

    moveit: str  # package
    description: tuple[str, str, tuple[str, ...]]
    semantic: tuple[str, str, tuple[str, ...]]
    limits: str  # file of joint limits in `moveit`
    controller: str
    start: dict[str, float]


ARMS = {
    "ur5e_gamepad": Arm(
        moveit="ur_moveit_config",
        description=("ur_description", "urdf/ur.urdf.xacro", ("name:=ur", "ur_type:=ur5e")),
        semantic=("ur_moveit_config", "srdf/ur.srdf.xacro", ("name:=ur",)),
        limits="joint_limits.yaml",
        controller="scaled_joint_trajectory_controller",
        start={
            "shoulder_pan_joint": 1.57,
            "shoulder_lift_joint": -1.57,
            "elbow_joint": 1.57,
            "wrist_1_joint": -1.57,
            "wrist_2_joint": -1.57,
            "wrist_3_joint": 0.0,
        },
    ),
    "franka_fr3_spacemouse": Arm(
        moveit="franka_fr3_moveit_config",
        description=("franka_description", "robots/fr3/fr3.urdf.xacro", ("hand:=true",)),
        semantic=("franka_description", "robots/fr3/fr3.srdf.xacro", ("hand:=true",)),
        limits="fr3_joint_limits.yaml",
        controller="fr3_arm_controller",
        start={
            f"fr3_joint{i}": at
            for i, at in enumerate((0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785), 1)
        },
    ),
}


def share(package: str) -> Path:
    return Path(get_package_share_directory(package))


def xacro(package: str, file: str, arguments: tuple[str, ...]) -> str:
    command = ["xacro", str(share(package) / file), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def with_mock_hardware(description: str, start: dict[str, float]) -> str:
    joints = "".join(
        f'<joint name="{name}"><command_interface name="position"/><state_interface name="position">'
        f'<param name="initial_value">{at}</param></state_interface><state_interface name="velocity"/>'
        "</joint>"
        for name, at in start.items()
    )
    block = (
        '<ros2_control name="mock" type="system"><hardware><plugin>mock_components/GenericSystem'
        '</plugin><param name="calculate_dynamics">true</param></hardware>'
        f"{joints}</ros2_control></robot>"
    )
    return description.replace("</robot>", block)


def parameters(robot: str) -> dict[str, dict[str, Any]]:
    """By program: robot_state_publisher, controller_manager, move_group, servo_node."""
    arm = ARMS[robot]
    config, moveit = ROOT / "config" / robot, share(arm.moveit) / "config"
    description = {
        "robot_description": with_mock_hardware(xacro(*arm.description), arm.start),
    }
    model = description | {
        "robot_description_semantic": xacro(*arm.semantic),
        "robot_description_kinematics": load(moveit / "kinematics.yaml"),
        "robot_description_planning": load(moveit / arm.limits),
    }
    controller = load(config / "controllers.yaml")[arm.controller]["ros__parameters"] | {
        "joints": list(arm.start),
        "command_interfaces": ["position"],
        "state_interfaces": ["position", "velocity"],
    }
    names = "planning_request_adapters", "planning_response_adapters"
    request, response = (f"default_{name}" for name in names)
    planning = {
        "planning_pipelines": ["ompl"],
        "default_planning_pipeline": "ompl",
        "ompl": {
            "planning_plugins": ["ompl_interface/OMPLPlanner"],
            "request_adapters": [
                f"{request}/{adapter}"
                for adapter in (
                    *("ResolveConstraintFrames", "ValidateWorkspaceBounds"),
                    *("CheckStartStateBounds", "CheckStartStateCollision"),
                )
            ],
            "response_adapters": [
                f"{response}/AddTimeOptimalParameterization",
                f"{response}/ValidateSolution",
            ],
        },
        "moveit_controller_manager": (
            "moveit_simple_controller_manager/MoveItSimpleControllerManager"
        ),
        "moveit_simple_controller_manager": {
            "controller_names": [arm.controller],
            arm.controller: {
                "action_ns": "follow_joint_trajectory",
                "type": "FollowJointTrajectory",
                "default": True,
                "joints": list(arm.start),
            },
        },
        "publish_robot_description_semantic": True,
        **{
            f"publish_{what}": True
            for what in (
                *("planning_scene", "geometry_updates", "state_updates", "transforms_updates"),
            )
        },
    }
    return {
        "robot_state_publisher": description,
        "controller_manager": {
            "update_rate": 100,
            arm.controller: {"type": "joint_trajectory_controller/JointTrajectoryController"},
            "joint_state_broadcaster": {"type": "joint_state_broadcaster/JointStateBroadcaster"},
        },
        arm.controller: controller,
        "move_group": model | planning,
        "servo_node": model | load(config / "servo.yaml"),
    }


def main(robot: str, directory: str) -> int:
    """Write the parameters into `directory`, and launch."""
    from launch_ros.actions import Node

    from launch import LaunchDescription, LaunchService

    found = parameters(robot)
    file = Path(directory) / "stack.yaml"
    content = {name: {"ros__parameters": values} for name, values in found.items()}
    file.write_text(json.dumps(content), encoding="utf-8")  # YAML would alias the descriptions
    controller = ARMS[robot].controller
    nodes = [
        Node(package=package, executable=program, parameters=[str(file)], output="screen")
        for package, program in (
            ("robot_state_publisher", "robot_state_publisher"),
            ("controller_manager", "ros2_control_node"),
            ("moveit_ros_move_group", "move_group"),
            ("moveit_servo", "servo_node"),
        )
    ]
    spawner = Node(
        package="controller_manager",
        executable="spawner",
        arguments=["joint_state_broadcaster", controller],
        output="screen",
    )
    service = LaunchService()
    service.include_launch_description(LaunchDescription([*nodes, spawner]))
    return service.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
