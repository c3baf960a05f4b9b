# SPDX-License-Identifier: Apache-2.0
"""The success detector over DDS: confidences, one success an episode, disagreements, what it refuses."""

from __future__ import annotations

import array

import numpy as np
import pytest
import torch
from policies import LATCHED, image_message
from rclpy.parameter import Parameter
from rlif_node.stamps import to_msg, to_ns

from rlif_msgs.msg import (
    ControlState,
    Episode,
    Observation,
    OperatorButtons,
    SuccessConfidence,
    SuccessDisagreement,
    TaskSuccess,
)
from rlif_policy.detector import Detector, DetectorSpec, ObservationLayout, save_detector
from rlif_policy.success_detector_node import SuccessDetectorNode

pytestmark = pytest.mark.ros

LAYOUT = ObservationLayout(1, ("height",), ("wrist",), ((16, 16, 3),))


@pytest.fixture
def directory(tmp_path):
    """Of a detector whose confidence is near 1 for a state above 0, and near 0 below."""
    detector = Detector(DetectorSpec(ObservationLayout(1, ("height",)), None, ()))
    with torch.no_grad():
        detector.layers[0].weight.fill_(10.0)
    save_detector(detector, tmp_path)
    return tmp_path


class Rig:
    """A detector node that is shown observations."""

    def __init__(self, graph, **parameters):
        self.graph, self.tick = graph, 0
        self.node = graph.add(SuccessDetectorNode, **parameters)
        collect = lambda kind, topic: graph.collect(kind, topic, of=self.node)  # noqa: E731
        self.confidences = collect(SuccessConfidence, "success_confidence")
        self.successes = collect(TaskSuccess, "task_success")
        self.disagreements = collect(SuccessDisagreement, "success_disagreement")
        self.observations = graph.publisher(Observation, "observation")
        self.episodes = graph.publisher(Episode, "episode", LATCHED)
        self.control = graph.publisher(ControlState, "control_state", LATCHED)
        self.buttons = graph.publisher(OperatorButtons, "operator_buttons")

    def send(self, state, images=()):
        self.tick += 1
        message = Observation(tick=self.tick, state=array.array("f", [state]))
        message.header.stamp = to_msg(self.tick * 100)
        message.images = [image_message(image) for image in images]
        message.camera_names = ["wrist"] * len(images)
        self.observations.publish(message)

    def show(self, *states):
        """Observations, one after the other's answer; the last confidence."""
        for state in states:
            self.send(state)
            tick = self.tick
            got = lambda: self.confidences and self.confidences[-1].tick == tick  # noqa: B023, E731
            self.graph.until(got, f"confidence {tick}")
        return self.confidences[-1]

    def stage(self, phase, number=1, outcome=0):
        message = Episode(id=number, phase=phase, outcome=outcome)
        self.episodes.publish(message)
        watch = self.node._watch
        self.graph.until(lambda: (watch._episode, watch._phase) == (number, phase), "the episode")


def test_node_ends_an_episode_at_the_stamp_of_the_last_of_ticks_in_a_row(graph, directory):
    rig = Rig(graph, detector=str(directory), ticks=2)
    rig.show(1.0, 1.0)
    rig.stage(Episode.RUNNING)
    answer = rig.show(1.0, -1.0, 1.0)
    assert answer.confidence > 0.99 and answer.threshold == pytest.approx(0.5)
    assert to_ns(answer.header.stamp) == 500 and not rig.successes
    rig.show(1.0, 1.0)
    graph.until(lambda: rig.successes, "task_success")
    (success,) = rig.successes
    assert to_ns(success.header.stamp) == 600 and success.source == "success detector"


def test_node_switched_off_in_take_overs_reports_its_confidence_alone(graph, directory):
    rig = Rig(graph, detector=str(directory), ticks=1, in_take_overs=False)
    rig.stage(Episode.RUNNING)
    rig.control.publish(ControlState(state=ControlState.OPERATOR))
    graph.until(lambda: rig.node._operator, "the take-over")
    assert rig.show(1.0).off and not rig.successes
    rig.control.publish(ControlState(state=ControlState.POLICY))
    graph.until(lambda: not rig.node._operator, "its end")
    assert not rig.show(1.0).off
    graph.until(lambda: rig.successes, "task_success")


def test_node_publishes_where_the_operator_judges_otherwise(graph, directory):
    rig = Rig(graph, detector=str(directory), ticks=1)
    rig.stage(Episode.RUNNING)
    rig.show(-1.0)
    rig.stage(Episode.ENDED, 1, Episode.OUTCOME_SUCCESS)
    graph.until(lambda: rig.disagreements, "the one that it missed")
    rig.stage(Episode.RUNNING, 2)
    rig.show(1.0)
    rig.stage(Episode.ENDED, 2, Episode.OUTCOME_SUCCESS)
    rig.buttons.publish(OperatorButtons(pressed=["failure"]))
    graph.until(lambda: len(rig.disagreements) == 2, "the false one")
    found = [(d.episode_id, d.detector, d.operator_success) for d in rig.disagreements]
    assert found == [(1, False, True), (2, True, False)]


def test_node_shown_other_observations_judges_nothing_and_says_why(graph, tmp_path, capfd):
    from rlif_policy.encoders import EncoderSpec  # noqa: PLC0415

    spec = DetectorSpec(LAYOUT, EncoderSpec(features=4, channels=4))
    save_detector(Detector(spec), tmp_path)
    rig = Rig(graph, detector=str(tmp_path))
    rig.send(1.0, [np.zeros((8, 8, 3), np.uint8)])
    graph.until_logged("judges nothing: the observation has images of ((8, 8, 3),)", capfd)
    assert not rig.confidences
    rig.send(1.0, [np.zeros((16, 16, 3), np.uint8)])
    graph.until(lambda: rig.confidences, "the confidence of a right one")


def test_node_waits_for_a_detector_and_takes_it_while_it_runs(graph, directory, tmp_path_factory):
    rig = Rig(graph, detector=str(tmp_path_factory.mktemp("later")))
    rig.send(1.0)
    (refused,) = rig.node.set_parameters([Parameter("detector", value="/nowhere")])
    assert not refused.successful and "rlif detector train" in refused.reason
    (taken,) = rig.node.set_parameters([Parameter("detector", value=str(directory))])
    assert taken.successful and rig.show(1.0).confidence > 0.99


def test_node_with_a_detector_of_other_features_is_refused(graph, directory):
    with pytest.raises(ValueError, match="found ee_position, expected height"):
        graph.add(SuccessDetectorNode, detector=str(directory), features=["ee_position"])
