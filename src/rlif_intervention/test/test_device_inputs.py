"""Devices by parameter, over DDS: a 3D mouse by motion, a twist with a deadman, a lock."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import LATCHED, RELIABLE, SENSOR
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rlif_intervention.device_inputs import (
    Handlers,
    device_parameters,
    device_qos,
    lock_parameters,
    make_rack,
)
from rlif_intervention.presets import PRESETS, Preset

pytestmark = pytest.mark.ros

AXES = ("x", "y", "yaw")


class Bench:
    """Devices on the world's node; keeps what the arbiter would get."""

    def __init__(self, graph, devices, locks=(), **values):
        self.graph, self.node = graph, graph.world
        for name, value in values.items():
            name = name.replace("__", ".")
            self.node._parameter_overrides[name] = Parameter(name, value=value)
        self.readings, self.pressed, self.problems, self.arrived = [], [], [], []
        handlers = Handlers(
            reading=lambda n, r: (self.readings.append((n, r)), self.update(n, r)),
            pressed=lambda n, p: self.pressed.append((n, set(p))),
            problem=lambda n, w: self.problems.append((n, w)),
            arrived=lambda n, s: self.arrived.append((n, s)),
        )
        self.rack = make_rack(
            self.node, list(devices), list(locks), AXES, 0.5, lambda: 0.0, handlers
        )

    def update(self, name, reading):
        self.rack.device(name).update(reading, 0.0)

    def send(self, topic, *messages):
        publisher = self.node.create_publisher(type(messages[0]), topic, RELIABLE)
        self.graph.until(lambda: publisher.get_subscription_count() >= 1, what=topic)
        for message in messages:
            publisher.publish(message)


def joy(*axes, buttons=()):
    return Joy(axes=[float(a) for a in axes], buttons=list(buttons))


def test_a_3d_mouse_takes_over_by_motion(make_graph):
    graph = make_graph()
    b = Bench(graph, ["mouse"], mouse__preset="spacemouse", mouse__topic="spacenav/joy")
    rest, small, push = joy(*[0.0] * 6), joy(0.1, *[0.0] * 5), joy(0.5, *[0.0] * 4, -0.3)
    rest.buttons = small.buttons = push.buttons = [0, 0]
    b.send("spacenav/joy", rest, small, push, small, rest)
    graph.until(lambda: len(b.readings) == 5, what="5 readings")
    assert [r.engaged for _, r in b.readings] == [False, False, True, True, False]
    assert b.readings[2][1].action == pytest.approx((0.5, 0.0, -0.3))
    assert b.rack.device("mouse").moved


def test_a_twist_with_a_deadman(make_graph):
    graph = make_graph()
    b = Bench(graph, ["keys"], keys__preset="twist", keys__deadman_topic="held")
    message = TwistStamped()
    message.twist.linear.x, message.twist.angular.z = 1.0, 0.5
    b.send("keys", message)
    graph.until(lambda: len(b.readings) == 1, what="a reading")
    b.send("held", Bool(data=True))
    graph.until(lambda: b.send("keys", message) or b.readings[-1][1].engaged, what="engaged")
    assert b.readings[0][1].engaged is False
    assert b.readings[-1][1].action == pytest.approx((1.0, 0.0, 0.5))


def test_letting_go_of_a_deadman_topic_counts_without_another_twist(make_graph):
    graph = make_graph()
    b = Bench(graph, ["keys"], keys__preset="twist", keys__deadman_topic="held")
    message = TwistStamped()
    message.twist.linear.x = 1.0
    held = graph.world.create_publisher(Bool, "held", RELIABLE)
    graph.until(lambda: held.get_subscription_count() >= 1, what="held")

    def engaged():
        count = len(b.arrived)
        b.send("keys", message)
        graph.until(lambda: len(b.arrived) > count, what="the twist")
        return b.readings[-1][1].engaged

    held.publish(Bool(data=True))
    graph.until(engaged, what="engaged")
    held.publish(Bool(data=False))
    graph.until(lambda: not b.readings[-1][1].engaged, what="let go")
    assert b.rack.driving(0.0) is None and b.readings[-1][1].action == (0.0, 0.0, 0.0)
    # Said again it is no sign of life of the device: the twists are.
    for data in (False, False, True):
        held.publish(Bool(data=data))
    graph.until(engaged, what="engaged again")
    assert len(b.readings) == len(b.arrived) + 1


def test_an_unstamped_twist_that_is_not_finite_is_a_problem_by_name(make_graph):
    graph = make_graph()
    b = Bench(graph, ["nav"], nav__preset="twist", nav__kind="twist")
    message = Twist()
    message.linear.y = math.nan
    b.send("nav", message)
    graph.until(lambda: b.problems, what="a problem")
    assert b.problems[0][0] == "nav" and "nan" in b.problems[0][1]
    assert not b.readings and not b.arrived


def test_buttons_of_a_preset_and_a_tap_between_two_commands(make_graph):
    graph = make_graph()
    b = Bench(graph, ["pad"], pad__preset="xbox")
    up, down = [0] * 11, [0] * 11
    down[7] = 1
    b.send("pad", joy(*[0.0] * 8, buttons=up), joy(*[0.0] * 8, buttons=down))
    b.send("pad", joy(*[0.0] * 8, buttons=up))
    graph.until(lambda: len(b.readings) == 3, what="3 readings")
    assert b.pressed == [("pad", {"arm"})]


@pytest.mark.parametrize("name", [name for name, p in PRESETS.items() if p.turbo >= 0])
def test_turbo_of_a_preset_is_full_speed_and_without_it_is_slow(make_graph, name):
    graph, preset = make_graph(), PRESETS[name]
    b = Bench(graph, ["pad"], pad__preset=name)
    axes = [float(i == preset.axes[0]) for i in range(8)]
    held = [int(i == preset.deadman) for i in range(13)]
    turbo = [int(i in (preset.deadman, preset.turbo)) for i in range(13)]
    b.send("pad", joy(*axes, buttons=held), joy(*axes, buttons=turbo))
    graph.until(lambda: len(b.readings) == 2, what="2 readings")
    assert [r.action[0] for _, r in b.readings] == pytest.approx([0.4, 1.0])


@pytest.mark.parametrize("kind", ["joy", "twist", "twist_stamped"])
def test_a_device_whose_driver_publishes_best_effort_is_heard(make_graph, kind):
    graph = make_graph()
    b = Bench(graph, ["it"], it__kind=kind, it__best_effort=kind == "joy")
    message = {"twist": Twist, "twist_stamped": TwistStamped}.get(kind, Joy)()
    if kind == "joy":
        message = joy(*[0.0] * 6, buttons=[1, 0, 0, 0])
    publisher = graph.world.create_publisher(type(message), "it", qos_profile_sensor_data)
    graph.until(lambda: publisher.get_subscription_count() >= 1, what="a subscription")
    graph.until(lambda: publisher.publish(message) or b.readings, what="a reading")


def test_a_joy_is_heard_reliably_unless_asked_otherwise():
    """Regression: best effort for all devices could lose a tap of the stop button."""
    reliability = [
        device_qos(kind, loose).reliability.name
        for kind, loose in (("joy", False), ("motion", False), ("joy", True), ("twist", False))
    ]
    assert reliability == ["RELIABLE", "RELIABLE", "BEST_EFFORT", "BEST_EFFORT"]


def test_a_lock_masks_a_device(make_graph):
    graph = make_graph()
    b = Bench(graph, ["joy"], ["pause"], pause__priority=100)
    b.send("joy", joy(1, 0, 0, 0, 0, 0, buttons=[1, 0, 0, 0]))
    graph.until(lambda: b.rack.driving(0.0), what="the joystick drives")
    b.send("pause", Bool(data=True))
    graph.until(lambda: b.rack.driving(0.0) is None, what="masked")


@pytest.mark.parametrize("qos", [LATCHED, RELIABLE, SENSOR])
def test_a_lock_of_any_quality_masks_and_so_does_one_latched_before_the_start(make_graph, qos):
    graph = make_graph()
    pause = graph.world.create_publisher(Bool, "pause", qos)
    if qos is LATCHED:
        pause.publish(Bool(data=True))
    b = Bench(graph, ["joy"], ["pause"])
    if qos is not LATCHED:
        graph.until(lambda: pause.get_subscription_count() >= 1, what="a subscription of the lock")
        pause.publish(Bool(data=True))
    device = b.rack.device("joy")
    graph.until(lambda: b.rack.lock_on(device, 0.0), what="masked")


def test_of_a_locked_device_the_stop_button_counts_and_the_arm_button_does_not(make_graph):
    graph = make_graph()
    b = Bench(graph, ["pad"], ["pause"], pad__preset="xbox")
    up, arm, stop = ([int(i == down) for i in range(11)] for down in (-1, 7, 6))
    b.send("pause", Bool(data=True))
    graph.until(lambda: b.rack.lock_on(b.rack.device("pad"), 0.0), what="masked")
    b.send("pad", *(joy(*[0.0] * 8, buttons=buttons) for buttons in (up, arm, up, stop)))
    graph.until(lambda: len(b.readings) == 4, what="4 readings")
    assert b.pressed == [("pad", {"stop"})]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"joy__preset": "wii"}, "joy.preset is 'wii'"),
        ({"joy__kind": "pedal"}, "joy.kind is 'pedal'"),
        ({"joy__deadman_button": -1}, "deadman_button"),
        ({"joy__kind": "motion", "joy__motion_off": 0.5}, "thresholds"),
        ({"joy__axes": [0, 1]}, "axes has 2 entries"),
        ({"joy__scales": [math.nan] + [1.0] * 5}, "scales is .*expected finite"),
    ],
)
def test_a_device_that_cannot_work_is_refused_by_name(make_graph, values, words):
    with pytest.raises(ValueError, match=words):
        Bench(make_graph(), ["joy"], **values)


@pytest.mark.parametrize("name", ["timeout", "deadzone", "slow", "motion_on", "motion_off"])
def test_a_number_of_a_device_that_is_none_is_refused_by_name(make_graph, name):
    with pytest.raises(InvalidParameterValueException, match=f"joy.{name}"):
        Bench(make_graph(), ["joy"], **{f"joy__{name}": math.nan})


def test_docs_list_every_parameter_of_devices_and_locks():
    page = (Path(__file__).parents[3] / "docs" / "devices.md").read_text(encoding="utf-8")
    for row in (*device_parameters("NAME", "generic", Preset(), 0.5), *lock_parameters("NAME")):
        assert f"| `{row.name}` | " in page and row.about in page, row.name
    assert all(f"| `{name}` | " in page for name in PRESETS)
