# SPDX-License-Identifier: Apache-2.0
"""Success, failure and discard buttons of every device, out of the arbiter's table."""

from __future__ import annotations

import pytest
from rlif_node.qos import RELIABLE
from rlif_node.stamps import to_msg
from ros_graph import params
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from trace_rig import StandIn

from rlif_intervention.button_inputs import ButtonInputs
from rlif_intervention.episode_node import EpisodeNode
from rlif_msgs.msg import ControlState, Episode


def joy(*buttons, stamp=0):
    message = Joy(axes=[0.0] * 8, buttons=list(buttons))
    message.header.stamp = to_msg(stamp)
    return message


def pad(button=-1, **kwargs):
    return joy(*(int(i == button) for i in range(11)), **kwargs)


class Bench:
    def __init__(self, devices, locks=(), **values):
        self.node = StandIn({k.replace("__", "."): v for k, v in values.items()})
        self.pressed, self.problems = [], []
        ButtonInputs(
            self.node,
            list(devices),
            list(locks),
            ("success", "failure", "discard"),
            lambda: 0.0,
            lambda name, buttons, stamp: self.pressed.append((name, set(buttons), stamp)),
            self.problems.append,
        )

    def send(self, topic, *messages):
        for message in messages:
            self.node.callbacks[topic][1](message)


def test_buttons_of_each_device_are_those_of_its_preset_with_the_stamp_of_the_message():
    presets = {"pad__preset": "xbox", "mouse__preset": "spacemouse"}
    b = Bench(["pad", "mouse"], pad__best_effort=True, **presets)
    assert [b.node.qos[t].reliability.name for t in ("pad", "mouse")] == ["BEST_EFFORT", "RELIABLE"]
    b.send("pad", pad(), pad(0, stamp=7), pad(), pad(8, stamp=8))
    b.send("mouse", joy(), joy(0, 1), joy(0, 0), joy(1))  # as spacenav_node leaves them out
    assert b.pressed == [
        ("pad", {"success"}, 7),
        ("pad", {"discard"}, 8),
        ("mouse", {"failure"}, 0),
        ("mouse", {"success"}, 0),
    ]
    assert not b.problems


def test_pad_with_fewer_buttons_than_its_table_is_reported_by_name():
    b = Bench(["pad"], pad__preset="xbox")
    b.send("pad", joy(0, 1, 0))
    assert "pad" in b.problems[0] and "3 buttons, the layout uses button 8" in b.problems[0]


def test_buttons_of_a_locked_device_do_nothing():
    b = Bench(["pad", "other"], ["pause"], pause__priority=50, pad__priority=50)
    b.send("pause", Bool(data=True))
    for topic in ("pad", "other"):
        b.send(topic, joy(0, 0, 0), joy(0, 1, 0))
    assert [name for name, _, _ in b.pressed] == ["other"]


@pytest.mark.ros
def test_success_button_of_a_second_pad_ends_the_episode(make_graph):
    graph = make_graph()
    names = {"devices": ["joy", "pad"], "pad.preset": "xbox"}
    episode = {"use_sim_time": True, "auto_start": True, "settle_time": 0.0}
    graph.add_arbiter(**names)
    graph.add(EpisodeNode(params(wait_for_recorder=False, **(names | episode))))
    second = graph.world.create_publisher(Joy, "pad", RELIABLE)
    graph.until(lambda: second.get_subscription_count() >= 2, "both nodes to subscribe to the pad")
    second.publish(pad())
    second.publish(pad(7))  # start: arms
    graph.until(lambda: graph.control.state != ControlState.DISARMED, "armed")
    graph.decisions(3)
    second.publish(pad(stamp=graph.world.stamp))
    second.publish(pad(0, stamp=graph.world.stamp))
    ended = graph.until(
        lambda: [e for e in graph.seen["episode"] if e.phase == Episode.ENDED], "the end"
    )[0]
    assert ended.outcome == Episode.OUTCOME_SUCCESS and "pad" in ended.reason
