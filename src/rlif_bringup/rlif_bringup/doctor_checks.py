"""What a live graph should look like before it is armed: one small check for each concern. No ROS.

`check` turns a `Snapshot` of what was seen into findings; each says what was found and, unless all is
well, what to do.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlif_bringup.doctor_snapshot import Snapshot, Traffic

OK_LEVEL, WARN_LEVEL = 0, 1  # of diagnostic_msgs/DiagnosticStatus
CONTROL_STATES = ("DISARMED", "HOLD", "POLICY", "OPERATOR", "FAULT")
NEEDED = {
    "observer": "rlif_policy",
    "policy": "rlif_policy",
    "arbiter": "rlif_intervention",
    "episode": "rlif_intervention",
}
SLOWEST = 0.8  # of the configured rate
SERVO_RATE = 30.0  # Hz; three commands within Servo's incoming_command_timeout of 0.1 s
CLOCKS = 0.05  # s that clocks may differ
FAST = 0.25  # m/s that a collaborating arm should not exceed without a thought


class Verdict(enum.Enum):
    """Of one check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """found: what was seen; advice: what to do, empty where nothing is."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


Check = Callable[[Snapshot], Iterator[Finding]]


def _pass(name: str, found: str) -> Finding:
    return Finding(name, Verdict.PASS, found)


def _warn(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Verdict.WARN, found, advice)


def _fail(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Verdict.FAIL, found, advice)


def check_nodes(s: Snapshot) -> Iterator[Finding]:
    missing = [name for name in NEEDED if name not in s.parameters]
    if missing:
        yield _fail(
            "nodes",
            f"no answer from {', '.join(missing)}",
            "start robot.launch.yaml; check --namespace, ROS_DOMAIN_ID and "
            "ROS_AUTOMATIC_DISCOVERY_RANGE",
        )
    else:
        yield _pass("nodes", ", ".join(NEEDED) + " answer")
    if "recorder" not in s.parameters:
        yield _warn("recording", "no recorder", "nothing is recorded or learned; start it")
    elif not s.parameter("recorder", "bag_directory", ""):
        yield _warn("recording", "no bag is written", "give bag_directory to keep the raw data")


def check_observation(s: Snapshot) -> Iterator[Finding]:
    rate = s.parameter("observer", "control_rate", 10.0)
    yield from _rate("observation", s, s.observation, SLOWEST * rate, "see the sources below")
    for d in s.diagnostics:
        if d.name.startswith("observer: ") or "/observer: " in d.name:
            name = "source " + d.name.split(": ", 1)[1]
            if d.level == OK_LEVEL:
                yield _pass(name, d.message)
            else:
                yield _fail(
                    name, d.message, "is its driver running, and its topic remapped in the set-up?"
                )


def _rate(name: str, s: Snapshot, traffic: Traffic, least: float, advice: str) -> Iterator[Finding]:
    if traffic.count == 0:
        yield _fail(name, f"nothing on {traffic.name} in {s.seconds:.0f} s", advice)
    elif s.lock_step:
        yield _pass(name, f"{traffic.count} messages, in lock-step")
    elif traffic.rate < least:
        yield _fail(name, f"{traffic.rate:.1f} Hz, expected at least {least:.1f} Hz", advice)
    else:
        yield _pass(name, f"{traffic.rate:.1f} Hz")


def check_clocks(s: Snapshot) -> Iterator[Finding]:
    if s.observation_age is None or s.lock_step or s.sim_time:
        return
    least, greatest = s.observation_age
    advice = (
        "set the clocks of all machines by one source (chrony), or use_sim_time alike everywhere"
    )
    if least < -CLOCKS:
        yield _fail("clocks", f"observations come {-least:.3f} s from the future", advice)
        return
    allowed = s.parameter("observer", "max_age", 0.2) + 0.1 + CLOCKS
    if s.images:
        allowed += s.parameter("observer", "camera_max_age", 0.3)
    if greatest > allowed:
        yield _fail("clocks", f"observations are {greatest:.3f} s old when they come", advice)
    else:
        yield _pass("clocks", f"observations are at most {greatest:.3f} s old")


def check_images(s: Snapshot) -> Iterator[Finding]:
    if not s.observation.count or not s.parameter("observer", "images", False):
        return
    cameras = s.parameter("observer", "cameras", [])
    size = tuple(int(s.parameter("observer", f"image_{n}", 0)) for n in ("width", "height"))
    if len(s.images) != len(cameras):
        yield _fail(
            "images",
            f"{len(s.images)} in an observation, {len(cameras)} cameras are configured",
            "check `cameras` of the observer",
        )
    elif any(found != size for found in s.images):
        yield _fail(
            "images", f"{list(s.images)}, expected {size} each", "check image_width, image_height"
        )
    else:
        yield _pass("images", f"{len(cameras)} of {size[0]} x {size[1]}")


def check_policy(s: Snapshot) -> Iterator[Finding]:
    least = SLOWEST * s.parameter("observer", "control_rate", 10.0)
    advice = "the policy answers observations only: mend these first, then look at its log"
    yield from _rate("policy", s, s.policy_action, least, advice)
    axes = s.parameter("arbiter", "axes", [])
    if s.action_size and axes and s.action_size != len(axes):
        yield _fail(
            "action",
            f"{s.action_size} entries, the arbiter has the axes {' '.join(axes)}",
            "give `axes` once, in the set-up's robot.yaml",
        )
    elif s.action_size:
        yield _pass("action", f"{s.action_size} entries: {' '.join(axes)}")
    yield from _weights(s)


def _weights(s: Snapshot) -> Iterator[Finding]:
    if s.weights is None:
        if s.policy_action.count and s.policy_version == 0:
            yield _warn(
                "weights",
                "none yet: the policy does what `initial` says",
                "fine for a first run; else give checkpoint, or start the learner",
            )
        return
    version, spec = s.weights
    for name, found in (("state_dim", s.state_size), ("action_dim", s.action_size)):
        if found and spec.get(name) != found:
            yield _fail(
                "weights",
                f"{name} of the published weights is {spec.get(name)}, the graph has {found}",
                "the weights are of another set-up: check features, axes, checkpoint",
            )
            return
    if s.policy_action.count and s.policy_version != version:
        yield _fail(
            "weights",
            f"the policy uses version {s.policy_version}, the learner has published {version}",
            "the policy refused them: see its log (learn: false keeps the checkpoint's)",
        )
    else:
        yield _pass("weights", f"version {version}, of this graph's sizes")


def check_command(s: Snapshot) -> Iterator[Finding]:
    rate = s.parameter("arbiter", "command_rate", 50.0)
    advice = "is the arbiter overloaded? See docs/arbiter.md on priorities"
    yield from _rate("command", s, s.command, SLOWEST * rate, advice)
    if rate < SERVO_RATE and not s.lock_step:
        yield _fail(
            "command_rate",
            f"{rate:g} Hz",
            f"Servo drops commands older than 0.1 s: use {SERVO_RATE:g} Hz or more",
        )
    if s.command.count and s.command.subscribers == 0:
        yield _fail(
            "robot",
            f"nobody listens on {s.command.name}",
            "start Servo or the controller, or remap `command` in topics.launch.yaml",
        )
    elif s.command.count:
        yield _pass("robot", f"{s.command.subscribers} listening on {s.command.name}")
    disarmed = s.control is not None and CONTROL_STATES[s.control[0]] in ("DISARMED", "FAULT")
    if disarmed and s.command_moves:
        yield _fail(
            "zeros",
            "commands that are not zero although the arbiter is not armed",
            f"somebody else publishes on {s.command.name}: stop it",
        )


def check_frames(s: Snapshot) -> Iterator[Finding]:
    base = s.parameter("observer", "base_frame", "")
    frame = s.parameter("arbiter", "command_frame", "")
    boxed = bool(s.parameter("arbiter", "workspace_min", []))
    if boxed and base and frame != base:
        yield _fail(
            "frames",
            f"command_frame is {frame!r}, base_frame {base!r}",
            "the workspace box needs commands in the base frame",
        )
    elif s.ee_pose and base and s.ee_pose[1] != base:
        yield _fail(
            "frames",
            f"ee_pose comes in {s.ee_pose[1]!r}, base_frame is {base!r}",
            "publish it in the base frame, or correct base_frame",
        )
    elif s.command_frames and frame and s.command_frames != {frame}:
        yield _fail(
            "frames", f"commands come in {sorted(s.command_frames)}", f"expected {frame!r} only"
        )
    elif frame:
        yield _pass("frames", f"commands in {frame!r}, poses in {base!r}")


def check_limits(s: Snapshot) -> Iterator[Finding]:
    if "arbiter" not in s.parameters or s.lock_step:
        return
    scale = s.parameter("arbiter", "linear_scale", 0.0) * s.parameter("arbiter", "speed_scale", 1.0)
    if scale > FAST:
        yield _warn("speed", f"up to {scale:.2f} m/s per axis", "begin with speed_scale 0.3")
    else:
        yield _pass("speed", f"up to {scale:.2f} m/s per axis")
    names = ("max_linear_acceleration", "max_linear_deceleration")
    off = [n for n in names if not s.parameter("arbiter", n, 0.0)]
    if off:
        yield _warn("acceleration", f"{', '.join(off)} off", "set them, e.g. 0.5 and 1.0 m/s^2")
    else:
        yield _pass("acceleration", "limited")
    yield from _box(s)


def _box(s: Snapshot) -> Iterator[Finding]:
    low = s.parameter("arbiter", "workspace_min", [])
    high = s.parameter("arbiter", "workspace_max", [])
    if not low or not high:
        yield _warn("workspace", "no box", "set workspace_min and workspace_max around the task")
    elif s.ee_pose is None:
        yield _fail("workspace", "no ee_pose", "the box needs it: remap it in topics.launch.yaml")
    else:
        where = s.ee_pose[0]
        inside = all(a <= v <= b for a, v, b in zip(low, where, high, strict=True))
        words = "(" + ", ".join(f"{v:.3f}" for v in where) + ") m"
        if inside:
            yield _pass("workspace", f"the end effector is inside, at {words}")
        else:
            yield _fail(
                "workspace",
                f"the end effector is at {words}, outside of the box",
                "drive it inside by the robot's own means, or correct the box",
            )


def check_devices(s: Snapshot) -> Iterator[Finding]:
    found = [d for d in s.diagnostics if ": device " in d.name]
    if not found and "arbiter" in s.parameters:
        yield _fail("device", "the arbiter reports none", "is /diagnostics there? check `devices`")
    for d in found:
        name = d.name.split(": ", 1)[1]
        if d.level == OK_LEVEL:
            yield _pass(name, d.message)
        else:
            yield _fail(name, d.message, "start its driver, move it once, and look at its topic")


def check_state(s: Snapshot) -> Iterator[Finding]:
    if s.stop:
        yield _fail("stop", "the stop topic says true", "publish false on stop when it is safe")
    if s.control is None:
        yield _fail("control", "the arbiter has said nothing", "start it")
        return
    state, reason = CONTROL_STATES[s.control[0]], s.control[1]
    if state == "FAULT":
        yield _fail("control", f"FAULT: {reason}", "remove the cause; arming clears it")
    elif state == "DISARMED":
        yield _pass("control", "DISARMED, as it should be before arming")
    else:
        yield _warn("control", f"{state}: {reason}", "it is armed already")


def check_watchdog(s: Snapshot) -> Iterator[Finding]:
    if s.lock_step:
        return
    found = [d for d in s.diagnostics if "watchdog: " in d.name]
    if not found:
        yield _warn(
            "watchdog", "there is none", "start it: nobody else stops the robot if the arbiter dies"
        )
    for d in found:
        if d.level == OK_LEVEL:
            yield _pass("watchdog", d.message)
        else:
            yield _fail("watchdog", d.message, "see the log of the arbiter")


def check_servo(s: Snapshot) -> Iterator[Finding]:
    if s.hold is None:
        if not s.lock_step:
            yield _warn(
                "servo",
                "no servo_adapter",
                "with MoveIt Servo start it (rlif_moveit); without, nothing tells of its halts",
            )
        return
    waits = "not armed" in s.hold  # Servo is paused until then: as it should be
    if not s.hold or waits:
        yield _pass("servo", s.hold or "Servo follows the arbiter")
    else:
        yield _fail("servo", s.hold, "see docs/moveit.md")
    for d in s.diagnostics:
        if d.name.endswith("servo status") and d.level == WARN_LEVEL:
            yield _warn("servo status", d.message, "drive the arm away from there")


CHECKS: tuple[Check, ...] = (
    check_nodes,
    check_observation,
    check_clocks,
    check_images,
    check_policy,
    check_command,
    check_frames,
    check_limits,
    check_devices,
    check_state,
    check_watchdog,
    check_servo,
)


def check(s: Snapshot) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    if not (math.isfinite(s.seconds) and s.seconds > 0.0):
        raise ValueError(f"seconds is {s.seconds}; expected more than 0")
    return [finding for one in CHECKS for finding in one(s)]
