"""The adapter over DDS, against a stand-in Servo that halts, goes silent and restarts."""

from __future__ import annotations

import math
import signal

import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from rlif_moveit import interfaces
from rlif_moveit.interfaces import MissingInterfacesError
from rlif_moveit.servo_adapter_node import ServoAdapterNode
from rlif_moveit.servo_status import Dialect
from rlif_msgs.msg import ControlState

pytestmark = pytest.mark.ros


def overrides(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def make_adapter(bench, interfaces_of):
    def make(dialect=Dialect.JAZZY, **values):
        values = {"servo_interface": dialect.value, "retry": 0.2} | values
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


def test_without_servo_it_holds_and_says_what_to_start(bench, make_adapter):
    make_adapter()
    bench.until(lambda: bench.hold and "start servo_node" in bench.hold, "the reason")
    bench.until(lambda: bench.diagnostics("servo"), "diagnostics")
    assert bench.diagnostics("servo").level > b"\0"


def test_jazzy_is_paused_selected_and_unpaused_with_the_arbiter(bench, driving):
    servo, _ = driving()
    assert servo.asked == ["select 1", "unpause"]
    bench.say(ControlState.FAULT)
    bench.until(lambda: servo.paused, "a pause on FAULT")
    assert "not armed" in bench.until(lambda: bench.hold, "a reason")


def test_humble_is_started_and_stopped_with_the_arbiter(bench, driving):
    servo, _ = driving(Dialect.HUMBLE)
    assert servo.asked == ["unpause"]
    servo.code = 4  # a halt here, a slow-down in Jazzy
    bench.until(lambda: "collision" in bench.hold, "HOLD at a collision")


def test_a_halt_becomes_hold_with_the_reason_and_a_diagnostic(bench, driving):
    servo, _ = driving()
    servo.code = 2
    bench.until(lambda: "singularity" in bench.hold, "hold at the singularity")

    def said():
        status = bench.diagnostics("servo status")
        return status and status.level == b"\2" and "singularity" in status.message

    bench.until(said, "a diagnostic")
    servo.code = 0
    bench.say(ControlState.OPERATOR)
    bench.until(lambda: bench.hold == "", "no more reason, once the operator drove out of it")


def test_a_servo_that_goes_silent_holds_and_goes_on_when_it_is_back(bench, driving):
    servo, _ = driving()
    servo.paused = True  # by somebody else, or it hangs
    bench.until(lambda: "no status" in bench.hold, "hold")
    assert servo.asked == ["select 1", "unpause"]
    servo.paused = False
    bench.until(lambda: bench.hold == "", "no more reason")


def test_a_servo_that_restarts_is_selected_again_and_a_human_is_asked(
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


def test_pause_servo_without_a_servo_says_so_within_its_time_out(bench, make_adapter):
    make_adapter(call_timeout=0.3)
    answer = bench.call(SetBool, "pause_servo", SetBool.Request(data=True))
    assert not answer.success and "not confirmed" in answer.message


def test_a_refused_command_type_is_said_and_tried_again(bench, stand_in_servo, make_adapter):
    servo = bench.add(stand_in_servo())
    servo.refuses = True
    make_adapter()
    bench.until(lambda: bench.hold and "did not select" in bench.hold, "the refusal, unarmed")
    bench.say(ControlState.HOLD)
    heard = len(bench.seen["hold"])
    bench.until(lambda: len(bench.seen["hold"]) > heard + 5, "some more words")
    assert "did not select" in bench.hold and "unpause" not in servo.asked
    servo.refuses = False
    bench.until(lambda: bench.hold == "", "the next attempt")


def test_hold_is_repeated_so_that_its_end_is_noticed(bench, driving):
    driving()
    heard = len(bench.seen["hold"])
    bench.until(lambda: len(bench.seen["hold"]) > heard + 10, "the same word again", 5.0)
    assert bench.hold == ""


def test_a_dead_arbiter_leads_to_a_pause_that_a_restarted_servo_does_not_undo(
    bench, driving, stand_in_servo
):
    servo, _ = driving()
    bench.lives = False
    bench.until(lambda: servo.paused and "has it died" in bench.hold, "a pause")
    bench.remove(servo)
    again = bench.add(stand_in_servo())
    bench.until(lambda: again.asked == ["pause", "select 1"], "the pause of the new Servo")
    bench.lives = True
    bench.until(lambda: "disarm and arm" in bench.hold, "a word for the human")
    assert again.paused and "unpause" not in again.asked
    bench.say(ControlState.DISARMED)
    bench.say(ControlState.HOLD)
    bench.until(lambda: bench.hold == "" and not again.paused, "Servo follows again")


def test_relay_turns_commands_into_servos_units_and_keeps_the_stamp(bench, driving):
    servo, _ = driving(relay=True, command_in_type="unitless", scale_linear=0.4)
    heard = bench.seen["servo_command"]
    command(bench, x=0.1)
    bench.until(lambda: heard, "a relayed command")
    assert heard[-1].twist.linear.x == pytest.approx(0.25)
    assert heard[-1].header.frame_id == "base"
    assert heard[-1].header.stamp.sec > 0


def test_relay_without_a_fresh_pose_sends_zeros_and_holds(bench, driving):
    driving(relay=True)
    heard = bench.seen["servo_command"]
    command(bench, frame="tool", x=0.1)
    bench.until(lambda: heard, "a command")
    assert heard[-1].twist.linear.x == 0.0
    bench.until(lambda: "ee_pose" in bench.hold, "the reason")
    half = math.sqrt(0.5)
    pose = PoseStamped()
    pose.pose.orientation.z = pose.pose.orientation.w = half

    def turned():
        bench.pose.publish(pose)
        command(bench, frame="tool", x=0.1)
        return heard[-1].twist.linear.y > 0.0

    bench.until(turned, "a turned command")
    assert heard[-1].twist.linear.y == pytest.approx(0.1)
    assert heard[-1].twist.linear.x == pytest.approx(0.0)


def test_the_real_arbiters_commands_are_taken_by_servos_rules(
    bench, stand_in_servo, make_adapter, start_node
):
    """Selected type, a frame, fresh stamps: from the arbiter's process to the stand-in Servo."""
    servo = bench.add(stand_in_servo())
    bench.lives = False  # the real one does
    make_adapter()
    process = start_node(
        "rlif_intervention", "arbiter", remap={"command": "servo_node/delta_twist_cmds"}
    )
    bench.until(lambda: servo.asked, "Servo paused", 30.0)
    assert servo.moving is None
    assert bench.call(SetBool, "arm", SetBool.Request(data=True)).success
    bench.until(lambda: bench.hold == "", "nothing to hold")
    bench.until(lambda: servo.moving == [0.0] * 6, "zeros that Servo follows")
    assert bench.call(SetBool, "arm", SetBool.Request(data=False)).success
    bench.until(lambda: servo.paused, "a pause")
    assert bench.call(SetBool, "arm", SetBool.Request(data=True)).success
    bench.until(lambda: not servo.paused, "Servo runs")
    process.kill()
    bench.until(lambda: servo.paused and "has it died" in bench.hold, "a pause of the orphan")


def test_joint_jog_needs_names_and_control_msgs(bench, interfaces_of):
    jazzy = interfaces_of(Dialect.JAZZY)
    with pytest.raises(ValueError, match="joints is empty"):
        bench.add(ServoAdapterNode(overrides(command_type="joint_jog"), jazzy))


def test_joint_jog_is_stamped_named_and_zero_where_it_is_wrong(
    bench, stand_in_servo, interfaces_of
):
    servo = bench.add(stand_in_servo())
    interfaces = interfaces_of(Dialect.JAZZY, True)
    heard = bench.listen(interfaces.joint_jog_type, "servo_joint_command", 10)
    values = overrides(command_type="joint_jog", joints=["a", "b"])
    bench.add(ServoAdapterNode(values, interfaces))
    bench.say(ControlState.HOLD)
    bench.until(lambda: servo.kind == 0, "the command type")

    def send(*speeds):
        count = len(heard)
        bench.joints.publish(Float64MultiArray(data=list(speeds)))
        return bench.until(lambda: len(heard) > count and heard[-1], "a jog")

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
def test_bad_parameters_are_refused_by_name(bench, interfaces_of, values, word):
    with pytest.raises(ValueError, match=word):
        ServoAdapterNode(overrides(**values), interfaces_of(Dialect.JAZZY))


def test_a_missing_package_is_named_with_how_to_get_it():
    with pytest.raises(MissingInterfacesError, match="apt install .*no-such-msgs") as found:
        interfaces.require("no_such_msgs", "msg", "this test")
    assert "this test needs the package no_such_msgs" in str(found.value)


def test_the_process_says_what_is_missing_or_runs_and_leaves_last_words(bench, start_node):
    process = start_node("rlif_moveit", "servo_adapter", servo_interface="humble")
    bench.until(lambda: bench.hold and "not there" in bench.hold, "the adapter's process")
    process.send_signal(signal.SIGINT)
    bench.until(lambda: "has ended" in bench.hold, "last words")
    assert process.wait(10) == 0
