# SPDX-License-Identifier: Apache-2.0
"""What a live graph should look like before it is armed: one small check for each concern. No ROS.

`check` turns a `Snapshot` of what was seen into findings; each names what was found and, unless all is
well, what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rlif_bringup.doctor_findings import (
    CLOCKS,
    Check,
    Finding,
    Verdict,
    diagnostic_findings,
    failed,
    late,
    one_publisher,
    passed,
    rate_finding,
    warned,
)
from rlif_bringup.doctor_moveit import check_reset, check_servo, check_servo_settings
from rlif_bringup.doctor_robot import (
    SLOWEST,
    check_box,
    check_command,
    check_frames,
    check_limits,
    check_pose,
    check_stall_timeout,
    check_watchdog,
)
from rlif_bringup.doctor_snapshot import Snapshot

OLD_WEIGHTS = 30.0  # s; the learner publishes every 5 s
NEEDED = {
    "observer": "rlif_policy",
    "policy": "rlif_policy",
    "arbiter": "rlif_intervention",
    "episode": "rlif_intervention",
}


def check_nodes(s: Snapshot) -> Iterator[Finding]:
    missing = [name for name in NEEDED if name not in s.parameters]
    if missing:
        yield failed(
            "nodes",
            f"no answer from {', '.join(missing)}",
            "start robot.launch.yaml; check --namespace, ROS_DOMAIN_ID and "
            "ROS_AUTOMATIC_DISCOVERY_RANGE",
        )
    else:
        yield passed("nodes", ", ".join(NEEDED) + " answer")
    yield from one_publisher(s.alive)  # of several arbiters only the oldest acts
    if "recorder" not in s.parameters:
        yield warned("recording", "no recorder", "nothing is recorded or learned; start it")
    elif not s.parameter("recorder", "bag_directory", ""):
        yield warned("recording", "no bag is written", "give bag_directory to keep the raw data")


def check_observation(s: Snapshot) -> Iterator[Finding]:
    rate = s.parameter("observer", "control_rate", 10.0)
    yield from rate_finding(
        "observation", s, s.observation, SLOWEST * rate, "see the sources below"
    )
    yield from one_publisher(s.observation)
    advice = "is its driver running, and its topic remapped in the robot configuration?"
    yield from diagnostic_findings(s, "observer: ", advice, "source {}")


def check_clocks(s: Snapshot) -> Iterator[Finding]:
    if s.observation_age is None or s.lock_step or s.sim_time:
        return
    allowed = s.parameter("observer", "max_age", 0.2) + 0.1 + CLOCKS
    if s.images:
        allowed += s.parameter("observer", "camera_max_age", 0.3)
    least, greatest = s.observation_age
    if finding := late("clocks", "observations", s.observation_age, allowed):
        yield finding
    elif greatest > allowed:
        yield warned(
            "clocks",
            f"observations are between {least:.3f} and {greatest:.3f} s old when they come",
            "this machine is overloaded, or a source is slow: rlif status shows the ages",
        )
    else:
        yield passed("clocks", f"observations are at most {greatest:.3f} s old")


def check_images(s: Snapshot) -> Iterator[Finding]:
    if not s.observation.count or not s.parameter("observer", "images", False):
        return
    cameras = s.parameter("observer", "cameras", [])
    if s.parameter("learner", "encoder", "small") == "none":
        yield warned(
            "encoder",
            f"none: the policy sees none of the cameras {', '.join(cameras)}",
            "fine if they are only recorded; else set encoder in robot.yaml: docs/cameras.md",
        )
    size = tuple(int(s.parameter("observer", f"image_{n}", 0)) for n in ("width", "height"))
    if len(s.images) != len(cameras):
        yield failed(
            "images",
            f"{len(s.images)} in an observation, {len(cameras)} cameras are configured",
            "check `cameras` of the observer",
        )
    elif any(found != size for found in s.images):
        yield failed(
            "images", f"{list(s.images)}, expected {size} each", "check image_width, image_height"
        )
    elif s.image_problems:
        yield failed(
            "images", "; ".join(s.image_problems), "look at the cameras' topics, e.g. in rqt"
        )
    else:
        yield passed("images", f"{len(cameras)} of {size[0]} x {size[1]}")


def check_image_transport(s: Snapshot) -> Iterator[Finding]:
    known = [sender for sender in s.image_senders if sender.segment is not None]
    small = [c for c in known if c.segment is not None and c.segment < 2 * c.image]
    for c in small:
        yield failed(
            "image transport",
            f"{c.node} has {(c.segment or 0) >> 10} KiB of shared memory, an image on {c.topic} has "
            f"{c.image >> 10} KiB: images get lost",
            "start it with the profile of Fast DDS (source scripts/env.bash): docs/cameras.md",
        )
    if known and not small:
        yield passed("image transport", f"shared memory has room for {len(known)} cameras")


def check_policy(s: Snapshot) -> Iterator[Finding]:
    least = SLOWEST * s.parameter("observer", "control_rate", 10.0)
    advice = "the policy answers observations only: mend these first, then look at its log"
    yield from rate_finding("policy", s, s.policy_action, least, advice)
    yield from one_publisher(s.policy_action)
    axes = s.parameter("arbiter", "axes", [])
    if s.action_size and axes and s.action_size != len(axes):
        yield failed(
            "action",
            f"{s.action_size} entries, the arbiter has the axes {' '.join(axes)}",
            "give `axes` once, in the robot configuration's robot.yaml",
        )
    elif s.action_size:
        yield passed("action", f"{s.action_size} entries: {' '.join(axes)}")
    yield from _weights(s)


def _weights(s: Snapshot) -> Iterator[Finding]:
    real_time = not s.lock_step and not s.sim_time
    if real_time and s.learned and (s.weights_age is None or s.weights_age > OLD_WEIGHTS):
        since = "none" if s.weights_age is None else f"none for {s.weights_age:.0f} s"
        yield failed(
            "weights",
            f"the learner learns and publishes no weights: {since}",
            "the policy stays as it is: look at the learner's log, and at publish_every",
        )
    if s.weights is None:
        if s.policy_action.count and s.policy_version == 0:
            yield warned(
                "weights",
                "none yet: the policy does what `initial` says",
                "fine for a first run; else give checkpoint, or start the learner",
            )
        return
    version, spec = s.weights
    for name, found in (("state_dim", s.state_size), ("action_dim", s.action_size)):
        if found and spec.get(name) != found:
            yield failed(
                "weights",
                f"{name} of the published weights is {spec.get(name)}, the graph has {found}",
                "the weights are of another robot configuration: check features, axes, checkpoint",
            )
            return
    wanted = [(width, height) for height, width, _ in spec.get("images") or ()]
    if wanted and s.observation.count and wanted != list(s.images):
        yield failed(
            "weights",
            f"the published weights are for cameras of {wanted}, an observation has "
            f"{list(s.images)}",
            "the weights are of another robot configuration: check images, cameras, image_width, image_height",
        )
        return
    if s.policy_action.count and s.policy_version != version:
        yield failed(
            "weights",
            f"the policy uses version {s.policy_version}, the learner has published {version}",
            "the policy refused them: see its log (learn: false keeps the checkpoint's)",
        )
    else:
        uses = f"; and cameras {wanted}" if wanted else ""
        yield passed("weights", f"version {version}, of this graph's sizes{uses}")


def check_devices(s: Snapshot) -> Iterator[Finding]:
    advice = "start its driver, move it once, and look at its topic"
    found = list(diagnostic_findings(s, "arbiter: ", advice))
    found = [f for f in found if f.name.startswith("device ")]
    if not found and "arbiter" in s.parameters:
        yield failed("device", "the arbiter reports none", "is /diagnostics there? check `devices`")
    for f in found:
        if f.verdict is Verdict.FAIL and f.name == "device console":
            yield warned(f.name, f.found, "to operate from the page, take the controls there")
        else:
            yield f


def check_state(s: Snapshot) -> Iterator[Finding]:
    if s.stop:
        yield failed("stop", "the stop topic is true", "publish false on stop when it is safe")
    if s.control is None:
        yield failed("control", "the arbiter has published nothing", "start it")
        return
    state, reason = s.state, s.control[1]
    if state == "FAULT":
        yield failed("control", f"FAULT: {reason}", "remove the cause; arming clears it")
    elif state == "DISARMED":
        yield passed("control", "DISARMED, as it should be before arming")
    else:
        yield warned("control", f"{state}: {reason}", "it is armed already")


CHECKS: tuple[Check, ...] = (
    check_nodes,
    check_observation,
    check_clocks,
    check_images,
    check_image_transport,
    check_policy,
    check_command,
    check_frames,
    check_pose,
    check_limits,
    check_box,
    check_devices,
    check_state,
    check_stall_timeout,
    check_watchdog,
    check_servo,
    check_servo_settings,
    check_reset,
)


def check(s: Snapshot) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    if not (math.isfinite(s.seconds) and s.seconds > 0.0):
        raise ValueError(f"seconds is {s.seconds}; expected more than 0")
    return [finding for one in CHECKS for finding in one(s)]
