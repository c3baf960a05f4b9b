# SPDX-License-Identifier: Apache-2.0
"""Node `success_detector`: reports that the task has succeeded, as it has learned from the success button.

Subscribes
    observation    rlif_msgs/Observation      what it judges
    episode        rlif_msgs/Episode          nothing counts between episodes (latched)
    control_state  rlif_msgs/ControlState     with `in_take_overs: false` nothing counts in take-overs (latched)
    operator_buttons  rlif_msgs/OperatorButtons  the failure button after an episode that it has ended
Publishes
    task_success   rlif_msgs/TaskSuccess      once an episode, after `ticks` confidences in a row
    success_confidence    rlif_msgs/SuccessConfidence    of each Observation, for console and bag
    success_disagreement  rlif_msgs/SuccessDisagreement  where the operator judges otherwise, for the next
                                              training
    /diagnostics   diagnostic_msgs/DiagnosticArray  once a second: the detector, or why it judges nothing

It is no part of what keeps the robot safe: if it dies or is wrong, an episode ends late, or early.
`rlif detector train` makes the detector; one for other observations is refused.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_1, RELIABLE_100
from rlif_node.running import run
from rlif_node.stamps import to_msg, to_ns
from rlif_node.states import Outcome, Phase

from rlif_msgs.msg import (
    ControlState,
    Episode,
    Observation,
    OperatorButtons,
    SuccessConfidence,
    SuccessDisagreement,
    TaskSuccess,
)
from rlif_policy.detector import FILE, Detector, load_detector
from rlif_policy.images import image_names
from rlif_policy.policy_node import pixels
from rlif_policy.success import SOURCE, Disagreement, SuccessWatch

PARAMETERS = (
    Param(
        "detector", "", "directory of the detector; one that is empty still: none yet", live=True
    ),
    Param("threshold", 0.0, "confidence that counts; 0: the detector's own", 0.0, 1.0, live=True),
    Param("ticks", 2, "confidences above it in a row that end the episode", 1, 1000),
    Param("in_take_overs", True, "false: nothing counts while the operator drives", live=True),
    Param("features", [], "of the state, as the observer's: compared with the detector's", items=str),
    Param("encoder_weights", "torchvision", "of a frozen encoder, as the learner's"),
)  # fmt: skip
REMIND = 5.0  # s of wall time between two logs of the same reason


class SuccessDetectorNode(Node):
    """Shell around `Detector` and `SuccessWatch`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("success_detector", parameter_overrides=list(overrides))
        value = declare(self, PARAMETERS)
        torch.set_num_threads(1)  # the cores are the learner's
        self._features: list[str] = value["features"]
        self._encoder_weights: str = value["encoder_weights"]
        self._threshold: float = value["threshold"]
        self._in_take_overs: bool = value["in_take_overs"]
        self._watch = SuccessWatch(value["ticks"])
        self._operator = False
        self._problem, self._logged_at = "", 0.0
        self._detector = self._load(value["detector"])
        self._success = self.create_publisher(TaskSuccess, "task_success", RELIABLE)
        self._confidence = self.create_publisher(SuccessConfidence, "success_confidence", RELIABLE)
        self._disagreement = self.create_publisher(
            SuccessDisagreement, "success_disagreement", RELIABLE
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_subscription(Episode, "episode", self._on_episode, LATCHED_10)
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED)
        self.create_subscription(
            OperatorButtons, "operator_buttons", self._on_buttons, RELIABLE_100
        )
        # The newest alone: a detector slower than the control rate must not fall behind.
        self.create_subscription(Observation, "observation", self._on_observation, RELIABLE_1)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _load(self, path: str) -> Detector | None:
        """None for a directory without anything in it. DetectorError for one that cannot be used."""
        directory = Path(path).expanduser()
        if not path or (directory.is_dir() and not any(directory.iterdir())):
            self.get_logger().warning(f"no detector yet in {path!r}: judges nothing")
            return None
        detector = load_detector(directory, self._encoder_weights)
        detector.spec.layout.check_features(self._features)
        found = detector.threshold.item()
        self.get_logger().info(f"judges by {directory / FILE}, threshold {found:.3f}")
        return detector

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        new = {parameter.name: parameter.value for parameter in parameters}
        if "detector" in new:
            try:
                self._detector = self._load(new["detector"])
            except ValueError as problem:
                return SetParametersResult(successful=False, reason=str(problem))
        self._threshold = new.get("threshold", self._threshold)
        self._in_take_overs = new.get("in_take_overs", self._in_take_overs)
        return SetParametersResult(successful=True)

    # ---- inputs

    def _on_observation(self, message: Observation) -> None:
        if self._detector is None:
            return
        try:
            state = np.frombuffer(message.state, dtype=np.float32)
            images = [pixels(image) for image in message.images]
            confidence = self._detector.confidence(state, image_names(message), images)
        except ValueError as problem:
            self._watch.interrupt()
            self._log(str(problem))
            return
        self._problem = ""
        threshold = self._threshold or self._detector.threshold.item()
        off = self._operator and not self._in_take_overs
        answer = SuccessConfidence(tick=message.tick, confidence=confidence, threshold=threshold)
        answer.header.stamp, answer.off = message.header.stamp, off
        self._confidence.publish(answer)
        if self._watch.observe(to_ns(message.header.stamp), confidence, threshold, off):
            success = TaskSuccess(confidence=confidence, source=SOURCE)
            success.header.stamp = message.header.stamp
            self._success.publish(success)

    def _on_episode(self, message: Episode) -> None:
        outcome, stamp = Outcome(message.outcome), to_ns(message.header.stamp)
        self._publish(self._watch.episode(message.id, Phase(message.phase), stamp, outcome))

    def _on_control(self, message: ControlState) -> None:
        self._operator = message.state == ControlState.OPERATOR

    def _on_buttons(self, message: OperatorButtons) -> None:
        if "failure" in message.pressed:
            self._publish(self._watch.failure_pressed())

    def _publish(self, found: Disagreement | None) -> None:
        if found is None:
            return
        message = SuccessDisagreement(
            episode_id=found.episode_id, detector=found.detector,
            operator_success=found.operator_success, confidence=found.confidence,
        )  # fmt: skip
        message.header.stamp = to_msg(found.stamp)
        self._disagreement.publish(message)
        what = "no success" if found.detector else "a success that was not detected"
        self.get_logger().info(
            f"episode {found.episode_id} was {what}, by the operator: recorded for the next training"
        )

    # ---- what goes wrong

    def _log(self, reason: str) -> None:
        now = time.monotonic()
        if reason != self._problem or now - self._logged_at > REMIND:
            self._problem, self._logged_at = reason, now
            self.get_logger().error(f"judges nothing: {reason}")

    def _diagnose(self) -> None:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: detector"
        status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK, message="ok")
        if self._problem:
            status.level, status.message = DiagnosticStatus.ERROR, self._problem
        elif self._detector is None:
            status.level, status.message = DiagnosticStatus.WARN, "no detector yet"
        report = DiagnosticArray(status=[status])
        report.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(report)


def main() -> None:
    """Console script `success_detector`."""
    sys.exit(run("success_detector", SuccessDetectorNode))
