"""Success, failure and discard buttons of every device, out of the arbiter's table, over DDS."""

from __future__ import annotations

import pytest
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.stamps import to_msg
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.button_inputs import ButtonInputs
from rlif_intervention.episode_node import EpisodeNode
from rlif_msgs.msg import ControlState, Episode

pytestmark = pytest.mark.ros


def joy(*buttons, stamp=0):
    message = Joy(axes=[0.0] * 8, buttons=list(buttons))
    message.header.stamp = to_msg(stamp)
    return message


def pad(button=-1, **kwargs):
    return joy(*(int(i == button) for i in range(11)), **kwargs)


class Bench:
    def __init__(self, graph, devices, locks=(), **values):
        self.graph, self.node = graph, graph.world
        for name, value in values.items():
            name = name.replace("__", ".")
            self.node._parameter_overrides[name] = Parameter(name, value=value)
        self.pressed, self.problems, self._publishers = [], [], {}
        wanted = ("success", "failure", "discard")
        self.inputs = ButtonInputs(
            self.node,
            list(devices),
            list(locks),
            wanted,
            lambda: 0.0,
            lambda name, buttons, stamp: self.pressed.append((name, set(buttons), stamp)),
            self.problems.append,
        )

    def send(self, topic, *messages, qos=RELIABLE):
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(type(messages[0]), topic, qos)
        publisher = self._publishers[topic]
        self.graph.until(lambda: publisher.get_subscription_count() >= 1, what=topic)
        for message in messages:
            publisher.publish(message)


def test_each_device_has_the_buttons_of_its_preset_and_a_message_keeps_its_stamp(make_graph):
    graph = make_graph()
    b = Bench(
        graph, ["pad", "mouse"], pad__preset="xbox", pad__best_effort=True,
        mouse__preset="spacemouse",
    )  # fmt: skip
    b.send("pad", pad(), pad(0, stamp=7), pad(), pad(8, stamp=8), qos=qos_profile_sensor_data)
    graph.until(lambda: len(b.pressed) == 2, what="success and discard of the pad")
    b.send("mouse", joy(), joy(0, 1), joy(0, 0), joy(1))  # as spacenav_node leaves them out
    graph.until(lambda: len(b.pressed) == 4, what="failure and success of the mouse")
    assert b.pressed == [
        ("pad", {"success"}, 7),
        ("pad", {"discard"}, 8),
        ("mouse", {"failure"}, 0),
        ("mouse", {"success"}, 0),
    ]
    assert not b.problems


def test_a_pad_with_fewer_buttons_than_its_table_is_said_by_name(make_graph):
    graph = make_graph()
    b = Bench(graph, ["pad"], pad__preset="xbox")
    b.send("pad", joy(0, 1, 0))
    graph.until(lambda: b.problems, what="a problem")
    assert "pad" in b.problems[0] and "3 buttons, the layout uses button 8" in b.problems[0]


def test_the_buttons_of_a_locked_device_do_nothing(make_graph):
    graph = make_graph()
    b = Bench(graph, ["pad", "other"], ["pause"], pause__priority=50, pad__priority=50)
    pause = graph.world.create_publisher(Bool, "pause", LATCHED)
    pause.publish(Bool(data=True))
    graph.until(lambda: b.inputs._rack.locks[0].held, what="the lock")
    for topic in ("pad", "other"):
        b.send(topic, joy(0, 0, 0), joy(0, 1, 0))
    graph.until(lambda: b.pressed, what="a button of the device above the lock")
    assert [name for name, _, _ in b.pressed] == ["other"]


def test_a_second_pads_success_button_ends_the_episode(make_graph):
    graph = make_graph()
    names = {"devices": ["joy", "pad"], "pad.preset": "xbox"}
    common = {"use_sim_time": True} | names
    arbiter = common | {"lock_step": True, "release_dwell": 0.0}
    episode = common | {"auto_start": True, "settle_time": 0.0, "wait_for_recorder": False}
    for node, values in ((ArbiterNode, arbiter), (EpisodeNode, episode)):
        graph.add(node([Parameter(name, value=value) for name, value in values.items()]))
    graph.world.publish_set()
    graph.until(lambda: graph.world.seen["command"], what="idle zeros")
    second = graph.world.create_publisher(Joy, "pad", RELIABLE)
    graph.until(lambda: second.get_subscription_count() >= 2, what="both nodes listen to the pad")
    second.publish(pad())
    second.publish(pad(7))  # start: arms
    graph.until(
        lambda: graph.world.seen["control_state"][-1].state != ControlState.DISARMED, what="armed"
    )
    graph.until(lambda: len(graph.world.seen["decision"]) >= 3, what="3 decisions")
    second.publish(pad(stamp=graph.world.stamp))
    second.publish(pad(0, stamp=graph.world.stamp))
    ended = graph.until(
        lambda: [e for e in graph.world.seen["episode"] if e.phase == Episode.ENDED], what="the end"
    )[0]
    assert ended.outcome == Episode.OUTCOME_SUCCESS and "pad" in ended.reason
