# SPDX-License-Identifier: Apache-2.0
"""Node `sim_operator`: a scripted, imperfect person with a joystick.

Subscribes
    policy_action  rlif_msgs/PolicyAction        what the policy is about to do
    ee_pose        geometry_msgs/PoseStamped     where the peg is
    object_pose    geometry_msgs/PoseStamped     where the hole is
    episode        rlif_msgs/Episode             no take-over between episodes
    true_success   rlif_msgs/TaskSuccess         of a robot that hides it: success button `success_delay`
                                                 steps later; failure button after an episode that ended
                                                 as a success without it
    control_state  rlif_msgs/ControlState        presses the arm button of a disarmed arbiter
Publishes
    joy            sensor_msgs/Joy               axes: x, y, z; buttons: deadman, success, failure, arm

It answers every PolicyAction once; in lock-step its Joy carries the stamp of that action.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE
from rlif_node.running import run
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Joy

from rlif_msgs.msg import ControlState, Episode, PolicyAction, TaskSuccess
from rlif_sim.strategies import (
    Actor,
    ActorConfig,
    Approach,
    Operator,
    RandomStrategy,
    ReferenceJudge,
    ValueStrategy,
)

MODES = ("intervene", "always", "never")
STRATEGIES = ("value", "random")
PARAMETERS = (
    Param(
        "mode",
        "intervene",
        "when the operator acts; always: at every step",
        live=True,
        choices=MODES,
    ),
    Param("strategy", "value", "when to take over", choices=STRATEGIES),
    Param("beta", 0.95, "value: probability of taking over where the policy is worse", 0.5, 1.0),
    Param("delta", 0.6, "value: steps by which the policy must be worse", 0.0, 100.0),
    Param("alpha", 0.0, "value: relative margin instead of delta; 0: delta", 0.0, 1.0),
    Param("probability", 0.3, "random: of taking over, per step", 0.0, 1.0),
    Param("take_over_length", 4, "steps of a take-over", 1, 1000),
    Param(
        "actor_bias",
        0.0014,
        "standard deviation of the error in the hole's position, per axis and episode, m",
        0.0,
        0.05,
    ),
    Param(
        "actor_noise",
        0.15,
        "standard deviation of the error of an action, which is in [-1, 1]",
        0.0,
        2.0,
    ),
    Param("actor_noise_memory", 0.7, "correlation of the noise from step to step", 0.0, 0.99),
    Param("linear_scale", 0.1, "m/s of an action of 1; as the arbiter's", 0.001, 1.0),
    Param("control_rate", 10.0, "Hz; as the observer's", 1.0, 100.0),
    Param("joy_rate", 20.0, "Hz of repeated Joy messages, as joy_node's autorepeat", 1.0, 100.0),
    Param("lock_step", False, "one Joy for each PolicyAction, with its stamp"),
    Param("arms", True, "press the arm button of a disarmed arbiter; with use_sim_time only"),
    Param(
        "arms_in_real_time",
        False,
        "press it also without use_sim_time, and after a FAULT: only with a simulated robot",
    ),
    Param(
        "success_delay",
        2,
        "steps from true_success to the press of the success button; -1: presses neither button",
        -1,
        1000,
        live=True,
    ),
    Param("seed", 0, "of bias, noise and take-overs", 0, 2**31 - 1),
)
Stamp = tuple[int, int]
_KEPT = 50  # poses, until the PolicyAction of their stamp arrives


class OperatorNode(Node):
    """Shell around `Operator`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("sim_operator", parameter_overrides=list(overrides))
        value = declare(self, PARAMETERS)
        self._mode: str = value["mode"]
        self._lock_step: bool = value["lock_step"]
        # Without simulated time there may be a real arm on these topics: a person arms that.
        self._real_time: bool = value["arms_in_real_time"]
        sim_time = self.get_parameter("use_sim_time").value
        self._arms: bool = value["arms"] and (sim_time or self._real_time)
        if value["arms"] and not self._arms:
            self.get_logger().warning("use_sim_time is false: does not press the arm button")
        self._operator = _make_operator(value)
        self._episode = Episode()
        self._armed = False
        self._success_delay: int = value["success_delay"]
        self._truth: int | None = None  # ns, of the newest true_success
        self._until_press: int | None = None  # answers until the success button is pressed
        self._poses: OrderedDict[Stamp, dict[str, NDArray[np.float64]]] = OrderedDict()
        self._pending: PolicyAction | None = None
        self._joy = self._message(None)
        self._publisher = self.create_publisher(Joy, "joy", RELIABLE)
        self.create_subscription(PolicyAction, "policy_action", self._on_action, RELIABLE)
        self.create_subscription(PoseStamped, "ee_pose", self._on_end_effector, RELIABLE)
        self.create_subscription(PoseStamped, "object_pose", self._on_object, RELIABLE)
        self.create_subscription(Episode, "episode", self._on_episode, LATCHED_10)
        self.create_subscription(ControlState, "control_state", self._on_control_state, LATCHED)
        self.create_subscription(TaskSuccess, "true_success", self._on_true_success, RELIABLE)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / value["joy_rate"], self._on_timer, clock=steady)
        self.add_on_set_parameters_callback(self._validate)
        self.add_post_set_parameters_callback(self._on_parameters)

    def _validate(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "mode" and parameter.value not in MODES:
                reason = f"mode: found {parameter.value!r}, expected one of {', '.join(MODES)}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _on_parameters(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "mode":
                self._mode = parameter.value
            elif parameter.name == "success_delay":
                self._success_delay = parameter.value

    def _on_episode(self, message: Episode) -> None:
        if message.id != self._episode.id:
            self._operator.start_episode()
        self._episode = message
        if message.phase == Episode.RUNNING:
            self._truth = self._until_press = None
        elif message.phase == Episode.ENDED and message.outcome == Episode.OUTCOME_SUCCESS:
            self._judge(to_ns(message.header.stamp))

    def _judge(self, end: int) -> None:
        """Press the failure button after an episode that was no success at its end."""
        seen = self._truth is not None and self._truth <= end
        hidden = self.count_publishers(self.resolve_topic_name("true_success")) > 0
        if self._success_delay < 0 or seen or not hidden:
            return
        for pressed in (1, 0):
            buttons = [0, 0, pressed, 0]
            self._publisher.publish(Joy(header=self._joy.header, axes=[0.0] * 3, buttons=buttons))

    def _on_true_success(self, message: TaskSuccess) -> None:
        self._truth = to_ns(message.header.stamp)
        if self._success_delay >= 0 and self._episode.phase == Episode.RUNNING:
            self._until_press = self._success_delay

    def _on_control_state(self, message: ControlState) -> None:
        self._armed = message.state != ControlState.DISARMED
        if message.state == ControlState.FAULT and self._real_time:
            self._armed = False
            self.get_logger().warning(f"arms after a FAULT: {message.reason}")

    def _on_end_effector(self, message: PoseStamped) -> None:
        self._keep("end_effector", message)

    def _on_object(self, message: PoseStamped) -> None:
        self._keep("object", message)

    def _keep(self, name: str, message: PoseStamped) -> None:
        position, stamp = message.pose.position, message.header.stamp
        poses = self._poses.setdefault((stamp.sec, stamp.nanosec), {})
        poses[name] = np.array([position.x, position.y, position.z])
        if len(self._poses) > _KEPT:
            self._poses.popitem(last=False)
        self._answer()

    def _on_action(self, message: PolicyAction) -> None:
        self._pending = message
        self._answer()

    def _answer(self) -> None:
        """Answer the newest PolicyAction as soon as the poses that it was made from are known."""
        if self._pending is None:
            return
        stamp = self._pending.header.stamp
        poses = self._poses_at((stamp.sec, stamp.nanosec))
        if poses is None:
            return
        action = np.asarray(self._pending.action, dtype=np.float64)
        self._joy = self._message(self._choose(poses["end_effector"] - poses["object"], action))
        if self._until_press is not None:
            self._joy.buttons[1] = int(self._until_press == 0)
            self._until_press = self._until_press - 1 if self._until_press else None
        self._joy.header.stamp = stamp
        self._pending = None
        self._publisher.publish(self._joy)

    def _poses_at(self, stamp: Stamp) -> dict[str, NDArray[np.float64]] | None:
        if self._lock_step:
            poses = self._poses.get(stamp, {})
            return poses if len(poses) == 2 else None
        complete = (poses for poses in reversed(self._poses.values()) if len(poses) == 2)
        return next(complete, None)

    def _choose(
        self, position: NDArray[np.float64], policy_action: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        if self._mode == "always":
            return self._operator.act(position)
        if self._mode == "never" or self._episode.phase != Episode.RUNNING:
            return None
        return self._operator.decide(position, policy_action)

    def _message(self, action: NDArray[np.float64] | None) -> Joy:
        axes = [0.0] * 3 if action is None else action.tolist()
        return Joy(axes=axes, buttons=[int(action is not None), 0, 0, 0])

    def _on_timer(self) -> None:
        """Press the arm button if need be; otherwise repeat, as a joystick driver does."""
        if self._arms and not self._armed:
            pressed = Joy(header=self._joy.header, axes=[0.0] * 3, buttons=[0, 0, 0, 1])
            self._publisher.publish(pressed)
            self._publisher.publish(
                Joy(header=self._joy.header, axes=[0.0] * 3, buttons=[0, 0, 0, 0])
            )
        elif not self._lock_step:
            self._joy.header.stamp = self.get_clock().now().to_msg()
            self._publisher.publish(self._joy)


def _make_operator(value: dict[str, Any]) -> Operator:
    strategy: RandomStrategy | ValueStrategy
    if value["strategy"] == "random":
        strategy = RandomStrategy(value["probability"])
    else:
        strategy = ValueStrategy(value["beta"], value["delta"], value["alpha"] or None)
    approach = Approach(speed=value["linear_scale"], period=1.0 / value["control_rate"])
    actor = Actor(
        ActorConfig(value["actor_bias"], value["actor_noise"], value["actor_noise_memory"]),
        approach,
        value["seed"],
    )
    return Operator(
        strategy, ReferenceJudge(approach), actor, value["take_over_length"], value["seed"] + 1
    )


def main() -> None:
    """Console script `operator`."""
    sys.exit(run("sim_operator", OperatorNode))
