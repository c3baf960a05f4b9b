# SPDX-License-Identifier: Apache-2.0
"""Devices by parameter: take-over by deadman, motion or topic, locks, buttons; recorded timings.

Traces are replayed through the real inputs and the arbiter's core (trace_rig); the labels that come
out of the same traces are in tests/test_device_labels.py.
"""

from __future__ import annotations

import itertools
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
from trace_rig import TRACES, Replay, Sample, StandIn, load

from rlif_intervention.device_inputs import (
    Handlers,
    device_parameters,
    device_qos,
    lock_parameters,
    make_rack,
)
from rlif_intervention.diagnostics import Level, arbiter_statuses
from rlif_intervention.presets import PRESETS
from rlif_intervention.ticks import Source

AXES = ("x", "y", "yaw")


class Bench:
    """Devices at a stand-in for the node, or at a real one; keeps what the arbiter would get."""

    def __init__(self, devices, locks=(), node=None, **values):
        values = {k.replace("__", "."): v for k, v in values.items()}
        self.node = node or StandIn(values)
        if node:
            node._parameter_overrides |= {k: Parameter(k, value=v) for k, v in values.items()}
        self.now = 0.0
        self.readings, self.pressed, self.problems, self.arrived = [], [], [], []
        handlers = Handlers(
            reading=lambda n, r: (
                self.readings.append((n, r)),
                self.rack.device(n).update(r, self.now),
            ),
            pressed=lambda n, p, _: self.pressed.append((n, set(p))),
            problem=lambda n, w: self.problems.append((n, w)),
            arrived=lambda n, s: self.arrived.append((n, s)),
        )
        self.rack = make_rack(
            self.node, list(devices), list(locks), AXES, 0.5, lambda: self.now, handlers
        )

    def send(self, topic, *messages):
        """Their readings."""
        count = len(self.readings)
        for message in messages:
            self.node.callbacks[topic][1](message)
        return [reading for _, reading in self.readings[count:]]


def joy(*axes, buttons=()):
    return Joy(axes=[float(a) for a in axes], buttons=list(buttons))


def pad(*down, axes=(0.0,) * 8):
    """A pad of the preset xbox with these buttons down."""
    return joy(*axes, buttons=[int(i in down) for i in range(13)])


def twist(x=0.0, yaw=0.0, kind=TwistStamped):
    message = kind()
    t = message if kind is Twist else message.twist
    t.linear.x, t.angular.z = x, yaw
    return message


def test_motion_device_takes_over_beyond_its_threshold():
    b = Bench(["mouse"], mouse__preset="spacemouse", mouse__topic="spacenav/joy")
    rest, small = joy(*[0.0] * 6, buttons=[0, 0]), joy(0.1, *[0.0] * 5, buttons=[0, 0])
    push = joy(0.5, *[0.0] * 4, -0.3, buttons=[0, 0])
    found = b.send("spacenav/joy", rest, small, push, small, rest)
    assert [r.engaged for r in found] == [False, False, True, True, False]
    assert found[2].action == pytest.approx((0.5, 0.0, -0.3))
    assert b.rack.device("mouse").moved


def test_twist_with_a_deadman_topic_is_engaged_while_it_is_held():
    b = Bench(["keys"], keys__preset="twist", keys__deadman_topic="held")
    assert not b.send("keys", twist(1.0, 0.5))[0].engaged
    b.send("held", Bool(data=True))
    reading = b.send("keys", twist(1.0, 0.5))[0]
    assert reading.engaged and reading.action == pytest.approx((1.0, 0.0, 0.5))


def test_deadman_topic_let_go_counts_without_another_twist():
    b = Bench(["keys"], keys__preset="twist", keys__deadman_topic="held")
    b.send("held", Bool(data=True))
    assert b.send("keys", twist(1.0))[0].engaged
    let_go = b.send("held", Bool(data=False))
    assert [(r.engaged, r.action) for r in let_go] == [(False, (0.0, 0.0, 0.0))]
    assert b.rack.driving(0.0) is None
    # Repeated it is no sign that the device lives: the twists are.
    assert not b.send("held", *(Bool(data=d) for d in (False, False, True)))
    assert b.send("keys", twist(1.0))[0].engaged
    assert len(b.readings) == len(b.arrived) + 1


def test_unstamped_twist_that_is_not_finite_is_a_problem_by_name():
    b = Bench(["nav"], nav__preset="twist", nav__kind="twist")
    b.send("nav", twist(math.nan, kind=Twist))
    assert b.problems[0][0] == "nav" and "nan" in b.problems[0][1]
    assert not b.readings and not b.arrived


def test_button_tapped_between_two_commands_is_pressed_once():
    b = Bench(["pad"], pad__preset="xbox")
    assert len(b.send("pad", pad(), pad(7), pad())) == 3
    assert b.pressed == [("pad", {"arm"})]


def test_start_button_is_ignored_while_the_device_is_engaged():
    """A stick is pressed by accident while it drives."""
    b = Bench(["pad"], pad__preset="xbox", pad__start_button=10)
    b.send("pad", pad(), pad(5), pad(5, 10), pad(10), pad(), pad(10))
    assert b.pressed == [("pad", {"deadman"}), ("pad", {"start"})]


@pytest.mark.parametrize(("name", "count"), [("xbox", 9), ("ps5", 11)])
def test_preset_of_a_gamepad_needs_no_buttons_of_sticks(name, count):
    """Regression: a start button on a stick was a FAULT for pads that have none there."""
    b = Bench(["pad"], pad__preset=name)
    assert b.send("pad", joy(*[0.0] * 8, buttons=[0] * count)) and not b.problems


@pytest.mark.parametrize("name", [name for name, p in PRESETS.items() if p.turbo >= 0])
def test_turbo_of_a_preset_is_full_speed_and_without_it_is_slow(name):
    preset = PRESETS[name]
    b = Bench(["pad"], pad__preset=name)
    axes = [float(i == preset.axes[0]) for i in range(8)]
    held, both = pad(preset.deadman, axes=axes), pad(preset.deadman, preset.turbo, axes=axes)
    found = b.send("pad", pad(), held, both)
    assert [r.action[0] for r in found] == pytest.approx([0.0, 0.4, 1.0])


@pytest.mark.ros
@pytest.mark.parametrize("kind", ["joy", "twist", "twist_stamped"])
def test_device_with_a_best_effort_driver_is_received(make_graph, kind):
    graph = make_graph()
    b = Bench(["it"], node=graph.world, it__kind=kind, it__best_effort=kind == "joy")
    message = {"twist": Twist, "twist_stamped": TwistStamped}.get(kind, pad)()
    publisher = graph.world.create_publisher(type(message), "it", qos_profile_sensor_data)
    graph.until(lambda: publisher.get_subscription_count() >= 1, "a subscription")
    graph.until(lambda: publisher.publish(message) or b.readings, "a reading")


def test_device_qos_of_a_joy_is_reliable_unless_asked_otherwise():
    """Regression: best effort for all devices could lose a tap of the stop button."""
    reliability = [
        device_qos(kind, loose).reliability.name
        for kind, loose in (("joy", False), ("motion", False), ("joy", True), ("twist", False))
    ]
    assert reliability == ["RELIABLE", "RELIABLE", "BEST_EFFORT", "BEST_EFFORT"]


def test_lock_that_is_held_masks_a_device():
    b = Bench(["joy"], ["pause"], pause__priority=100)
    b.send("joy", joy(*[0.0] * 6, buttons=[0, 0, 0, 0]), joy(1, *[0] * 5, buttons=[1, 0, 0, 0]))
    assert b.rack.driving(0.0)
    b.send("pause", Bool(data=True))
    assert b.rack.driving(0.0) is None


@pytest.mark.ros
@pytest.mark.parametrize("qos", [LATCHED, RELIABLE, SENSOR])
def test_lock_of_any_quality_of_service_or_latched_before_the_start_masks(make_graph, qos):
    graph = make_graph()
    pause = graph.world.create_publisher(Bool, "pause", qos)
    if qos is LATCHED:
        pause.publish(Bool(data=True))
    b = Bench(["joy"], ["pause"], node=graph.world)
    if qos is not LATCHED:
        graph.until(lambda: pause.get_subscription_count() >= 1, "a subscription of the lock")
        pause.publish(Bool(data=True))
    graph.until(lambda: b.rack.lock_on(b.rack.device("joy"), 0.0), "masked")


def test_locked_device_can_stop_and_not_arm():
    b = Bench(["pad"], ["pause"], pad__preset="xbox")
    b.send("pause", Bool(data=True))
    assert len(b.send("pad", pad(), pad(7), pad(), pad(6))) == 4
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
def test_device_that_cannot_work_is_refused_by_name(values, words):
    with pytest.raises(ValueError, match=words):
        Bench(["joy"], **values)


@pytest.mark.ros
@pytest.mark.parametrize("name", ["timeout", "deadzone", "slow", "motion_on", "motion_off"])
def test_device_with_a_number_that_is_not_finite_is_refused_by_name(make_graph, name):
    with pytest.raises(InvalidParameterValueException, match=f"joy.{name}"):
        Bench(["joy"], node=make_graph().world, **{f"joy__{name}": math.nan})


def test_docs_list_every_parameter_of_devices_and_locks():
    page = (Path(__file__).parents[3] / "docs" / "devices.md").read_text(encoding="utf-8")
    for row in (
        *device_parameters("NAME", "generic", PRESETS["generic"], 0.5),
        *lock_parameters("NAME"),
    ):
        assert f"| `{row.name}` | " in page and row.about in page, row.name
    assert all(f"| `{name}` | " in page for name in PRESETS)


# ---- traces of devices, with irregular timing

PAD = {"pad__preset": "xbox"}
MOUSE = {"devices": ["mouse"], "mouse__preset": "spacemouse"}
KEYS = {"devices": ["keys"], "keys__preset": "twist", "keys__idle_ok": True}


def sources(replay):
    """Control sources, one letter for each run of equal steps."""
    return "".join(
        "NPO"[source] for source, _ in itertools.groupby(d.source for d in replay.decisions)
    )


def onsets(replay):
    return [d.step_index for d in replay.decisions if d.onset]


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.csv")), ids=lambda path: path.stem)
def test_trace_names_its_origin_and_has_the_timing_of_a_driver(path):
    assert "Not recorded from hardware" in path.read_text(encoding="utf-8")
    times = [sample.time for sample in load(path.stem)]
    steps = {round(b - a, 4) for a, b in itertools.pairwise(times)}
    assert len(steps) > 10 or len(times) < 12


def test_trace_of_a_jittering_thumb_is_one_intervention_and_one_onset():
    replay = Replay(**PAD).play(load("gamepad_jittering_thumb"))
    assert replay.events() == ["STARTED", "ENDED"]
    assert len(onsets(replay)) == 1 and sources(replay) in ("PONP", "POP")
    begin, end = (c.intervention.started + c.duration for c in replay.changes)
    assert begin == pytest.approx(0.6137, abs=0.021) and end == pytest.approx(1.942, abs=0.025)


def test_trace_of_a_jittering_thumb_without_a_dwell_is_many_interventions():
    replay = Replay(dwell=0.0, **PAD).play(load("gamepad_jittering_thumb"))
    assert replay.events().count("STARTED") >= 5


@pytest.mark.parametrize(("gap", "count"), [(80, 1), (350, 2)])
def test_trace_let_go_for_80_ms_is_one_intervention_and_for_350_ms_two(gap, count):
    replay = Replay(**PAD).play(load(f"gamepad_released_{gap}_ms"))
    assert replay.events() == ["STARTED", "ENDED"] * count
    assert len(onsets(replay)) == count
    assert not replay.moved(1.2043 + 0.021, 1.2843), "let go: zeros, within one command"
    assert replay.states(1.2043 + 0.021, 1.2843) == {"OPERATOR"}


def test_trace_of_an_unplugged_pad_stops_holds_and_gives_one_label():
    replay = Replay(**PAD).play(load("gamepad_unplugged"))
    last = max(s.time for s in load("gamepad_unplugged") if s.time < 1.13)
    assert replay.states(last, last + 0.5) == {"OPERATOR"}
    assert replay.states(last + 0.521, 2.6) == {"HOLD"} and not replay.moved(last + 0.521, 2.6)
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(2.75, 3.1) == {"POLICY"}, "back, and let go"


def test_trace_of_a_3d_mouse_with_noise_around_its_thresholds_is_one_intervention():
    replay = Replay(**MOUSE).play(load("spacemouse_noise"))
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(0.45, 1.0) == {"POLICY"}, "a hand that rests on the cap takes nothing over"
    assert replay.states(1.3, 2.5) == {"OPERATOR"}
    assert not replay.pressed


def test_trace_of_the_same_noise_with_thresholds_too_close_is_many_interventions():
    close = {"mouse__motion_on": 0.111, "mouse__motion_off": 0.11}
    replay = Replay(dwell=0.0, **MOUSE, **close).play(load("spacemouse_noise"))
    assert replay.events().count("STARTED") >= 3


def test_trace_of_a_3d_mouse_that_reads_zeros_for_ever_is_reported_and_takes_nothing_over():
    """Pitfall: a 3D mouse that reads zeros for ever, with no diagnosis."""
    replay = Replay(**MOUSE).play(load("spacemouse_zeros"))
    assert not replay.changes and sources(replay) == "P"
    status = next(s for s in arbiter_statuses(replay.core, replay.now) if s.name == "device mouse")
    assert status.level is Level.WARN and "never moved" in status.message


def test_trace_of_a_driver_that_leaves_buttons_out_has_its_buttons():
    replay = Replay(**MOUSE).play(load("spacemouse_buttons"))
    assert replay.pressed == [("mouse", {"success"}), ("mouse", {"failure"})]
    assert "FAULT" not in replay.states(0.0, 2.4) and replay.events() == ["STARTED", "ENDED"]


def test_trace_of_taps_between_two_observations_loses_neither_button_nor_take_over():
    """Pitfall: a success button tapped within one poll was lost."""
    replay = Replay(**PAD).play(load("gamepad_taps"))
    assert [p - {"deadman"} for _, p in replay.pressed if p - {"deadman"}] == [{"success"}, {"arm"}]
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    driven = [d for d in replay.decisions if d.source is Source.OPERATOR]
    assert len(driven) == 1 and driven[0].onset


def test_trace_of_a_keyboard_with_a_deadman_is_one_intervention_that_stands_still_between_keys():
    replay = Replay(**KEYS, keys__deadman_topic="held").play(load("keyboard_with_deadman"))
    assert replay.states(0.25, 1.0) == {"POLICY"}, "the deadman is the heartbeat"
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(1.15, 3.3) == {"OPERATOR"}
    assert replay.moved(1.22, 1.3) and not replay.moved(1.6, 1.8), "a tap, then nothing"
    assert replay.moved(2.4, 2.7) and replay.states(3.7, 3.9) == {"POLICY"}


def test_trace_of_a_deadman_that_falls_silent_leads_to_hold():
    samples = [s for s in load("keyboard_with_deadman") if not 1.4 < s.time < 3.4]
    replay = Replay(**KEYS, keys__deadman_topic="held").play(samples)
    assert replay.states(1.96, 3.3) == {"HOLD"} and not replay.moved(1.96, 3.3)
    # A keyboard alone is no heartbeat where a deadman is what takes over.
    keys = [s for s in load("keyboard_with_deadman") if s.topic == "keys"]
    replay = Replay(**KEYS, keys__deadman_topic="held").play(keys, until=4.0)
    assert replay.states(0.3, 4.0) == {"HOLD"} and not replay.changes


def test_trace_of_a_keyboard_by_motion_takes_over_until_its_zeros():
    replay = Replay(**KEYS, keys__timeout=1.0).play(load("keyboard_by_motion"), until=4.6)
    assert replay.states(0.3, 1.2) == {"POLICY"}, "silent at rest is no failure with idle_ok"
    assert replay.states(1.25, 2.5) == {"OPERATOR"}
    assert replay.states(3.65, 3.9) == {"HOLD"} and not replay.moved(3.65, 3.9)
    assert replay.events() == ["STARTED", "ENDED"]
    assert replay.states(4.0, 4.5) == {"POLICY"}


def test_trace_of_a_silent_keyboard_without_idle_ok_leads_to_hold():
    values = KEYS | {"keys__idle_ok": False}
    replay = Replay(**values, keys__timeout=1.0).play(load("keyboard_by_motion"), until=4.6)
    assert replay.states(1.11, 1.19) == {"HOLD"}


def test_trace_of_a_silent_or_locked_keyboard_is_reported():
    replay = Replay(**KEYS, locks=["pause"]).play(load("keyboard_by_motion")[:1], until=1.1)

    def status():
        found = arbiter_statuses(replay.core, replay.now)
        return next(s for s in found if s.name == "device keys")

    assert status().level is Level.OK and "unplugged, it looks the same" in status().message
    replay.core.rack.locks[0].update(True, replay.now)
    assert status().level is Level.WARN and "locked by pause" in status().message


# ---- pads that report what nobody does


def messages(*parts, topic="pad", rate=20):
    """Samples of a driver that repeats: parts of (s, axes, buttons that are down)."""
    time, found = 0.0, []
    for seconds, axes, down in parts:
        for _ in range(round(seconds * rate)):
            time += 1.0 / rate
            found.append(Sample(time, topic, tuple(axes), tuple(int(i in down) for i in range(11))))
    return found


def status(replay, name):
    found = arbiter_statuses(replay.core, replay.now)
    return next(s for s in found if s.name == f"device {name}")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("rest", [1.0, -1.0, 0.4])
def test_joy_with_an_axis_that_rests_off_centre_moves_nothing_and_names_it(axis, rest):
    axes = [rest if i == axis else 0.0 for i in range(6)]
    replay = Replay().play(messages((0.5, axes, ()), (2.0, axes, (0,))))
    assert replay.states(1.0, 2.4) == {"OPERATOR"} and not replay.moved(0.55, 2.4)
    found = status(replay, "pad")
    assert found.level is Level.WARN and f"{'xyz'[axis]} ({rest:+.2f})" in found.message


def test_joy_with_triggers_that_rest_at_1_after_their_first_press_moves_nothing():
    rest, pressed = [0, 0, 1, 0, 0, 1], [0, 0, -1, 0, 0, 1]
    parts = [(0.3, [0] * 6, ()), (0.2, pressed, ()), (1.5, rest, ()), (2.0, rest, (0,))]
    replay = Replay().play(messages(*parts))
    assert replay.states(2.2, 3.9) == {"OPERATOR"} and not replay.moved(2.05, 3.9)
    assert "z (+1.00)" in status(replay, "pad").message


def test_joy_with_a_trigger_off_centre_still_moves_with_its_sticks():
    rest, push = [0, 0, 1, 0, 0, 1], [0, 1, 1, 0, 0, 1]
    replay = Replay().play(messages((0.5, rest, ()), (1.0, push, (0,))))
    moved = {tuple(v > 0 for v in twist) for t, twist, _ in replay.outputs if 0.6 < t < 1.4}
    assert moved == {(False, True, False)}


def test_joy_with_a_preset_that_knows_the_trigger_moves_by_its_press():
    values = {"pad__preset": "xbox", "pad__axes": [1, 0, 5, -1, -1, 3]}
    rest, press = [0, 0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, -1, 0, 0]
    parts = [(0.5, [0] * 8, ()), (0.5, [0] * 8, (5,)), (1.0, rest, (5,)), (1.0, press, (5,))]
    replay = Replay(**values).play(messages(*parts))
    assert not replay.moved(0.6, 2.0), "0 until its first press is no press"
    assert any(twist[2] > 0.0 for t, twist, _ in replay.outputs if 2.1 < t < 2.9)


@pytest.mark.parametrize(
    ("values", "gone"),
    [({}, True), ({"pad__repeat_limit": 0.0}, False), ({"pad__repeat_limit": 2.0}, True)],
)
def test_pad_out_of_range_that_repeats_its_last_message_is_gone_after_the_limit(values, gone):
    push, rest = [0, 1, 0, 0, 0, 0, 0, 0], [0] * 8
    replay = Replay(pad__preset="xbox", **values).play(
        messages((0.5, rest, ()), (20.0, push, (5,)))
    )
    limit = values.get("pad__repeat_limit", 10.0)
    assert replay.moved(0.6, 0.5 + (limit or 10.0))
    assert replay.moved(limit + 0.7, 20.4) is not gone
    assert (replay.states(limit + 0.7, 20.4) == {"HOLD"}) is gone
    assert (status(replay, "pad").level is Level.ERROR) is gone
    assert not gone or "out of range" in replay.core.reason
    assert not gone or "out of range" in status(replay, "pad").message
    assert replay.events() == (["STARTED", "ENDED"] if gone else ["STARTED"])


def test_pad_that_is_back_in_range_takes_over_again():
    push, rest = [0, 1, 0, 0, 0, 0, 0, 0], [0] * 8
    parts = [(0.5, rest, ()), (4.0, push, (5,)), (0.5, rest, ()), (1.0, push, (5,))]
    replay = Replay(pad__preset="xbox", pad__repeat_limit=2.0).play(messages(*parts))
    assert replay.states(2.7, 4.4) == {"HOLD"} and replay.states(4.8, 4.95) == {"POLICY"}
    assert replay.states(5.1, 5.9) == {"OPERATOR"}
