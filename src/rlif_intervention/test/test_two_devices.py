"""Two devices and a lock over DDS, in real time, as users of twist_mux expect; a trace over DDS."""

from __future__ import annotations

import time

import pytest
import trace_rig
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import LATCHED, RELIABLE
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.diagnostics import Level, arbiter_statuses
from rlif_msgs.msg import ControlState, InterventionEvent

pytestmark = pytest.mark.ros


class Hands:
    """An arbiter in real time with a pad (priority 10) and a 3D mouse (50), held as `says` has it."""

    def __init__(self, graph, **values):
        self.graph, self.world = graph, graph.world
        # Patient, since a loaded machine may let a test stand still for a while.
        defaults = {
            "devices": ["pad", "mouse"],
            "pad.preset": "xbox",
            "pad.priority": 10,
            "mouse.preset": "spacemouse",
            "mouse.priority": 50,
            "mouse.best_effort": True,
            "locks": ["pause"],
            "pause.priority": 10,
            "device_timeout": 1.0,
            "policy_timeout": 1.0,
            "observation_timeout": 1.0,
            "stall_timeout": 10.0,
        }
        values = defaults | values
        self.node = graph.add(ArbiterNode([Parameter(n, value=v) for n, v in values.items()]))
        self.pause = self.world.create_publisher(Bool, "pause", LATCHED)
        self.publishers = {
            "pad": self.world.create_publisher(Joy, "pad", RELIABLE),
            "mouse": self.world.create_publisher(Joy, "mouse", qos_profile_sensor_data),
        }
        self.says = {"pad": False, "mouse": False}  # None: silent
        self.world.create_timer(0.1, self._tick)
        self.world.create_timer(0.03, self._hold)

    def _tick(self):
        self.world.stamp = self.world.get_clock().now().nanoseconds
        self.world.publish_set()

    def _hold(self):
        """With a stamp of 0: what counts is when a message is received."""
        pad, mouse = self.says["pad"], self.says["mouse"]
        if pad is not None:
            buttons = [int(pad and i == 5) for i in range(11)]
            self.publishers["pad"].publish(Joy(axes=[0.0, float(pad)] + [0.0] * 6, buttons=buttons))
        if mouse is not None:
            self.publishers["mouse"].publish(Joy(axes=[0.6 * mouse] + [0.0] * 5))

    def drive(self):
        live = self.node._core.rack
        self.graph.until(lambda: live.problem(self.node._now()) is None, what="a live device")
        assert self.graph.arm().success
        self.world.run_episode(1, start=self.world.get_clock().now().nanoseconds)
        self.wait(ControlState.POLICY)

    def wait(self, state, device=""):
        def there():
            seen = self.world.seen["control_state"]
            return seen and (seen[-1].state, seen[-1].device) == (state, device) and seen[-1]

        return self.graph.until(there, what=f"state {state}, device {device!r}")


def test_the_higher_priority_drives_then_the_other_and_it_is_one_intervention(make_graph):
    hands = Hands(make_graph(lock_step=False))
    hands.drive()
    hands.says["pad"] = True
    hands.wait(ControlState.OPERATOR, "pad")
    hands.says["mouse"] = True
    hands.wait(ControlState.OPERATOR, "mouse")
    hands.says["mouse"] = False
    hands.wait(ControlState.OPERATOR, "pad")
    hands.says["pad"] = False
    hands.wait(ControlState.POLICY)
    events = [e.event for e in hands.world.seen["intervention"]]
    assert events == [InterventionEvent.STARTED, InterventionEvent.ENDED]


def test_a_lock_masks_the_lower_device_and_the_higher_still_takes_over(make_graph):
    hands = Hands(make_graph(lock_step=False))
    hands.drive()
    hands.says["pad"] = True
    hands.wait(ControlState.OPERATOR, "pad")
    hands.pause.publish(Bool(data=True))
    assert "locked by pause" in hands.wait(ControlState.HOLD).reason
    hands.says["mouse"] = True
    hands.wait(ControlState.OPERATOR, "mouse")
    hands.says["mouse"] = False
    hands.wait(ControlState.HOLD)
    hands.says["pad"] = False
    hands.pause.publish(Bool(data=False))
    hands.wait(ControlState.POLICY)


def test_silence_is_said_of_the_device_and_stops_the_policy_only_when_no_other_is_left(make_graph):
    hands = Hands(make_graph(lock_step=False))
    hands.drive()
    hands.says["pad"] = None

    def status(name):
        found = arbiter_statuses(hands.node._core, hands.node._now())
        return next(s for s in found if s.name == f"device {name}")

    hands.graph.until(lambda: status("pad").level is Level.ERROR, what="the pad is reported")
    assert hands.world.seen["control_state"][-1].state == ControlState.POLICY
    assert "never moved" in status("mouse").message and status("mouse").level is Level.WARN
    hands.says["mouse"] = None
    reason = hands.wait(ControlState.HOLD).reason
    assert "pad is silent" in reason and "mouse is silent" in reason


def test_a_trace_over_dds_is_one_intervention(make_graph):
    """The jittering thumb at its own pace; a long dwell, since here the machine jitters as well."""
    hands = Hands(make_graph(lock_step=False), release_dwell=1.0)
    hands.drive()
    hands.says["pad"] = None  # the trace speaks
    begin = time.monotonic()
    for sample in trace_rig.load("gamepad_jittering_thumb"):
        while time.monotonic() - begin < sample.time:
            hands.graph.executor.spin_once(timeout_sec=0.005)
        hands.publishers["pad"].publish(sample.message(Joy))
    hands.says["pad"] = False
    hands.wait(ControlState.POLICY)
    seen = hands.world.seen["intervention"]
    hands.graph.until(lambda: len(seen) >= 2, what="the end of the intervention")
    assert [e.event for e in seen] == [InterventionEvent.STARTED, InterventionEvent.ENDED]
    assert {e.device for e in seen} == {"pad"}
    assert sum(d.onset for d in hands.world.seen["decision"]) == 1
