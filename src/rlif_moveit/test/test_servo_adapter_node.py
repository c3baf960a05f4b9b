# SPDX-License-Identifier: Apache-2.0
"""The adapter over DDS, against a stand-in Servo that halts, goes silent and restarts."""

from __future__ import annotations

import math
import time

import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_moveit import servo_adapter_node
from rlif_moveit.servo_adapter_node import ServoAdapterNode
from rlif_moveit.servo_status import Dialect
from rlif_msgs.msg import ControlState, PolicyHold

pytestmark = pytest.mark.ros


def overrides(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def make_adapter(bench, interfaces_of, patient):
    def make(dialect=Dialect.JAZZY, **values):
        values = {"servo_interface": dialect.value, "retry": 0.2} | patient | values
        found = interfaces_of(dialect)
        return bench.add(ServoAdapterNode(overrides(**values), found))

    return make


@pytest.fixture
def driving(bench, stand_in_servo, make_adapter):
    """(servo, adapter): armed, Servo running, nothing holds."""

    def start(dialect=Dialect.JAZZY, **values):
        servo = bench.add(stand_in_servo(dialect))
        adapter = make_adapter(dialect, **values)
        first = ["pause"] + ["select 1"] * (dialect is Dialect.JAZZY)
        bench.until(lambda: servo.asked == first, "pause and command type at start")
        bench.until(lambda: adapter._core.selected, "the answer")
        servo.asked.clear()
        bench.say(ControlState.HOLD)
        bench.until(lambda: bench.hold == "", "no more reason to hold")
        bench.say(ControlState.POLICY)
        return servo, adapter

    return start


def command(bench, frame="base", **linear):
    message = TwistStamped()
    message.header.frame_id = frame
    message.header.stamp = bench.node.get_clock().now().to_msg()
    for name, value in linear.items():
        setattr(message.twist.linear, name, value)
    bench.command.publish(message)


def test_adapter_without_servo_holds_and_names_what_to_start(bench, make_adapter):
    make_adapter()
    bench.until(lambda: bench.hold and "start servo_node" in bench.hold, "the reason")
    bench.until(lambda: bench.diagnostics("servo"), "diagnostics")
    assert bench.diagnostics("servo").level > b"\0"


def test_adapter_on_jazzy_pauses_selects_and_unpauses_with_the_arbiter(bench, driving):
    servo, _ = driving()
    assert servo.asked == ["select 1", "unpause"]
    bench.say(ControlState.FAULT)
    bench.until(lambda: servo.paused, "a pause on FAULT")
    assert "not armed" in bench.until(lambda: bench.hold, "a reason")


def test_adapter_disarmed_in_motion_pauses_servo_after_the_last_command(bench, driving):
    servo, adapter = driving(pause_delay=0.3, pause_deadline=5.0)

    def moved():
        command(bench, x=0.1)
        return math.isfinite(adapter._core._moved_at)

    bench.until(moved, "a command that the adapter received")
    bench.say(ControlState.DISARMED)
    bench.until(lambda: servo.paused, "the pause")
    assert time.monotonic() - adapter._core._moved_at >= 0.3, "the arm brakes before it"
    assert "not armed" in bench.hold


def test_adapter_of_an_arm_slowed_to_a_standstill_holds(bench, driving):
    servo, _ = driving(standstill_after=0.3)
    servo.code = 4

    def pushed():
        bench.pose.publish(PoseStamped())
        command(bench, x=0.1)
        return "standstill" in bench.hold

    bench.until(pushed, "HOLD of an arm that does not move")


def test_adapter_on_humble_starts_and_stops_with_the_arbiter(bench, driving):
    servo, _ = driving(Dialect.HUMBLE)
    assert servo.asked == ["unpause"]
    servo.code = 4  # a halt here, a slow-down in Jazzy
    bench.until(lambda: "collision" in bench.hold, "HOLD at a collision")


def test_adapter_at_a_halt_holds_with_the_reason_and_a_diagnostic(bench, driving):
    servo, _ = driving()
    servo.code = 2

    def pushed():
        command(bench, x=0.1)
        return "singularity" in bench.hold

    bench.until(pushed, "hold at the singularity")

    def said():
        status = bench.diagnostics("servo status")
        return status and status.level == b"\2" and "singularity" in status.message

    bench.until(said, "a diagnostic")
    servo.code = 0
    bench.say(ControlState.OPERATOR)

    def driven():
        command(bench, x=-0.1)
        return bench.hold == ""

    bench.until(driven, "no more reason, once the operator drove out of it")


def test_adapter_of_a_silent_servo_holds_until_it_is_back(bench, driving):
    servo, _ = driving(status_timeout=0.5)
    servo.paused = True  # by somebody else, or it hangs
    bench.until(lambda: "no status" in bench.hold, "hold")
    hold = bench.seen["policy_hold"][-1]
    assert hold.reason_code == PolicyHold.SERVO_STATUS and hold.source == "/servo_adapter"
    assert servo.asked == ["select 1", "unpause"]
    servo.paused = False
    bench.until(lambda: bench.hold == "", "no more reason")


def test_adapter_of_a_restarted_servo_selects_again_and_asks_a_human(
    bench, driving, stand_in_servo
):
    old, _ = driving()
    bench.remove(old)
    new = bench.add(stand_in_servo())
    bench.until(lambda: new.kind == 1, "the command type of the new Servo")
    bench.until(lambda: "restarted" in bench.hold, "a word on the restart")
    bench.say(ControlState.DISARMED)
    bench.until(lambda: new.paused, "a pause")
    bench.say(ControlState.HOLD)
    bench.until(lambda: bench.hold == "", "no more reason")


def test_pause_servo_answers_when_servo_has_confirmed(bench, driving):
    servo, _ = driving()
    answer = bench.call(SetBool, "pause_servo", SetBool.Request(data=True))
    assert answer.success and servo.paused
    bench.say(ControlState.POLICY)
    bench.until(lambda: "paused" in bench.hold, "the reason")
    assert servo.paused
    assert bench.call(SetBool, "pause_servo", SetBool.Request(data=False)).success
    bench.until(lambda: not servo.paused and bench.hold == "", "Servo goes on")


def test_pause_servo_without_a_servo_fails_within_its_time_out(bench, make_adapter):
    make_adapter(call_timeout=0.3)
    answer = bench.call(SetBool, "pause_servo", SetBool.Request(data=True))
    assert not answer.success and "not confirmed" in answer.message


def test_adapter_whose_command_type_is_refused_reports_it_and_retries(
    bench, stand_in_servo, make_adapter
):
    servo = bench.add(stand_in_servo())
    servo.refuses = True
    make_adapter()
    bench.until(lambda: bench.hold and "did not select" in bench.hold, "the refusal, unarmed")
    bench.say(ControlState.HOLD)
    received = len(bench.seen["policy_hold"])
    bench.until(lambda: len(bench.seen["policy_hold"]) > received + 5, "some more words")
    assert "did not select" in bench.hold and "unpause" not in servo.asked
    servo.refuses = False
    bench.until(lambda: bench.hold == "", "the next attempt")


def test_hold_without_a_change_is_repeated(bench, driving):
    driving()
    received = len(bench.seen["policy_hold"])
    bench.until(lambda: len(bench.seen["policy_hold"]) > received + 10, "the same word again", 5.0)
    assert bench.hold == ""


def test_adapter_of_a_dead_arbiter_pauses_and_a_restarted_servo_does_not_undo_it(
    bench, driving, stand_in_servo
):
    servo, _ = driving(arbiter_timeout=0.5)
    bench.lives = False
    bench.until(lambda: servo.paused and "has it died" in bench.hold, "a pause")
    bench.remove(servo)
    again = bench.add(stand_in_servo())
    bench.until(lambda: again.asked == ["pause", "select 1"], "the pause of the new Servo")
    bench.lives = True
    bench.until(lambda: "disarm and arm" in bench.hold, "a word for the human")
    assert again.paused and "unpause" not in again.asked
    bench.say(ControlState.DISARMED)
    bench.until(lambda: "is not armed" in bench.hold, "the disarm")
    bench.say(ControlState.HOLD)
    bench.until(lambda: bench.hold == "" and not again.paused, "Servo follows again")


def test_adapter_beside_an_old_moveit_reports_its_version(bench, make_adapter, monkeypatch):
    monkeypatch.setattr(servo_adapter_node, "installed_version", lambda: (2, 12, 1))
    make_adapter()
    status = bench.until(lambda: bench.diagnostics("MoveIt version"), "the diagnostic")
    assert status.level == b"\2" and "2.12.2" in status.message


def test_relay_of_a_command_converts_units_and_keeps_the_stamp(bench, driving):
    servo, _ = driving(relay=True, command_in_type="unitless", scale_linear=0.4)
    received = bench.seen["servo_command"]
    command(bench, x=0.1)
    bench.until(lambda: received, "a relayed command")
    assert received[-1].twist.linear.x == pytest.approx(0.25)
    assert received[-1].header.frame_id == "base"
    assert received[-1].header.stamp.sec > 0


def test_relay_without_a_fresh_pose_sends_zeros_and_holds(bench, driving):
    driving(relay=True)
    received = bench.seen["servo_command"]
    command(bench, frame="tool", x=0.1)
    bench.until(lambda: received, "a command")
    assert received[-1].twist.linear.x == 0.0
    bench.until(lambda: "ee_pose" in bench.hold, "the reason")
    half = math.sqrt(0.5)
    pose = PoseStamped()
    pose.pose.orientation.z = pose.pose.orientation.w = half

    def turned():
        bench.pose.publish(pose)
        command(bench, frame="tool", x=0.1)
        return received[-1].twist.linear.y > 0.0

    bench.until(turned, "a turned command")
    assert received[-1].twist.linear.y == pytest.approx(0.1)
    assert received[-1].twist.linear.x == pytest.approx(0.0)


def test_adapter_beside_the_real_arbiter_has_its_commands_taken(
    bench, stand_in_servo, make_adapter, monkeypatch
):
    """Selected type, a frame, fresh stamps: by the rules of the stand-in Servo."""
    servo = bench.add(stand_in_servo())
    bench.lives = False  # the real one does
    monkeypatch.setattr("rlif_intervention.arbiter_node.LISTEN_BEATS", 0)
    make_adapter(arbiter_timeout=1.0)
    arbiter = bench.add(ArbiterNode(overrides(stall_timeout=10.0)))
    bench.until(lambda: servo.asked, "Servo paused")
    assert servo.moving is None
    assert bench.call(SetBool, "arm", SetBool.Request(data=True)).success
    bench.until(lambda: bench.hold == "", "nothing to hold")
    bench.until(lambda: servo.moving == [0.0] * 6, "zeros that Servo follows")
    assert bench.call(SetBool, "arm", SetBool.Request(data=False)).success
    bench.until(lambda: servo.paused, "a pause")
    assert bench.call(SetBool, "arm", SetBool.Request(data=True)).success
    bench.until(lambda: not servo.paused, "Servo runs")
    bench.remove(arbiter)
    bench.until(lambda: servo.paused and "has it died" in bench.hold, "a pause of the orphan")


def test_joint_jog_without_joint_names_is_refused(bench, interfaces_of):
    jazzy = interfaces_of(Dialect.JAZZY)
    with pytest.raises(ValueError, match="joints is empty"):
        bench.add(ServoAdapterNode(overrides(command_type="joint_jog"), jazzy))


def test_joint_jog_is_stamped_and_named_and_zero_where_it_is_wrong(
    bench, stand_in_servo, interfaces_of, patient
):
    servo = bench.add(stand_in_servo())
    interfaces = interfaces_of(Dialect.JAZZY, True)
    received = bench.listen(interfaces.joint_jog_type, "servo_joint_command", 10)
    values = overrides(command_type="joint_jog", joints=["a", "b"], **patient)
    bench.add(ServoAdapterNode(values, interfaces))
    bench.say(ControlState.HOLD)
    bench.until(lambda: servo.kind == 0, "the command type")

    def send(*speeds):
        count = len(received)
        bench.joints.publish(Float64MultiArray(data=list(speeds)))
        return bench.until(lambda: len(received) > count and received[-1], "a jog")

    def speeds(m):  # a stand-in travels under its own names
        return list(getattr(m, "velocities", getattr(m, "velocity", None)))

    good = send(0.1, -0.2)
    assert speeds(good) == [0.1, -0.2]
    assert list(getattr(good, "joint_names", getattr(good, "name", None))) == ["a", "b"]
    assert good.header.stamp.sec > 0
    assert speeds(send(math.nan, 0.1)) == [0.0, 0.0]
    bench.until(lambda: "joint_command" in bench.hold, "the reason to hold")
    assert speeds(send(0.1)) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"servo_interface": "foxy"}, "servo_interface"),
        ({"command_type": "pose"}, "command_type"),
        ({"output_frame": "world"}, "output_frame"),
    ],
)
def test_adapter_with_bad_parameters_is_refused_by_name(bench, interfaces_of, values, word):
    with pytest.raises(ValueError, match=word):
        ServoAdapterNode(overrides(**values), interfaces_of(Dialect.JAZZY))


def test_adapter_at_its_end_holds_the_policy(bench, driving, monkeypatch):
    _, adapter = driving()
    bench.executor.remove_node(adapter)  # it publishes nothing after its last message
    adapter.shut_down()
    bench.until(lambda: "has ended" in bench.hold, "the last reason")
    runs = []
    monkeypatch.setattr(servo_adapter_node, "run", lambda *a, **k: runs.append((a, k)))
    servo_adapter_node.main()
    ((arguments, options),) = runs
    assert arguments == ("servo_adapter", ServoAdapterNode)
    assert options["at_end"] is ServoAdapterNode.shut_down
