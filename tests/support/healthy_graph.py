# SPDX-License-Identifier: Apache-2.0
"""What the doctor sees of a graph in which nothing is wrong, and of one that differs in one thing."""

from __future__ import annotations

import dataclasses

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import Diagnostic, Snapshot, Traffic

ARBITER = {
    "axes": ["x", "y", "yaw"],
    "command_rate": 50.0,
    "command_frame": "base",
    "lock_step": False,
    "linear_scale": 0.1,
    "speed_scale": 0.5,
    "max_linear_speed": 0.1,
    "max_linear_acceleration": 0.5,
    "max_linear_deceleration": 1.0,
    "angular_scale": 0.5,
    "max_angular_speed": 0.5,
    "max_angular_acceleration": 2.0,
    "max_angular_deceleration": 4.0,
    "pose_timeout": 0.3,
    "pose_latency": 0.05,
    "hold_timeout": 0.5,
    "stall_timeout": 0.25,
    "workspace_min": [0.3, -0.3, 0.0],
    "workspace_max": [0.7, 0.3, 0.5],
}
OBSERVER = {
    "control_rate": 10.0,
    "base_frame": "base",
    "images": True,
    "cameras": ["wrist"],
    "image_width": 128,
    "image_height": 128,
}
WAITS = {"state": "paused", "command_type_selected": "true"}
HEALTHY = Snapshot(
    seconds=5.0,
    moveit=True,
    parameters={
        "arbiter": ARBITER,
        "observer": OBSERVER,
        "policy": {},
        "episode": {"reset_service": True},
        "recorder": {"bag_directory": "somewhere"},
        "learner": {"encoder": "small"},
        "watchdog": {"timeout": 0.3},
    },
    observation=Traffic("/observation", 50, 4.9, 1, 3),
    observation_age=(0.01, 0.08),
    state_size=6,
    images=((128, 128),),
    policy_action=Traffic("/policy_action", 50, 4.9, 1, 1),
    action_size=3,
    policy_version=7,
    weights=(7, {"state_dim": 6, "action_dim": 3}),
    command=Traffic("/servo_node/delta_twist_cmds", 250, 4.98, 2, 1),
    command_publishers=frozenset({"arbiter", "watchdog"}),
    command_frames=frozenset({"base"}),
    control=(0, "not armed yet"),
    hold="Servo is paused: the arbiter is not armed",
    holds=Traffic("/policy_hold", 50, 4.9, 1, 1),
    alive=Traffic("/arbiter_heartbeat", 100, 4.95, 1, 2),
    ee_pose=((0.5, 0.0, 0.2), "base"),
    pose=Traffic("/tip", 500, 4.99, 1, 2),
    pose_age=(0.001, 0.02),
    diagnostics=(
        Diagnostic("observer: /ee_pose", 0, "ok"),
        Diagnostic("arbiter: device joy", 0, "fresh"),
        Diagnostic("watchdog: arbiter", 0, "the arbiter is alive"),
        Diagnostic("servo_adapter: servo", 1, "Servo is paused", WAITS),
        Diagnostic("servo_adapter: servo status", 3, "none; a paused Servo sends none"),
        Diagnostic("reset_by_planning: reset", 0, "ready"),
    ),
)


def changed(**values):
    """A healthy graph but for this; ARBITER_x, OBSERVER_x and so on change a parameter."""
    parameters = {name: dict(p) for name, p in HEALTHY.parameters.items()}
    for name in [n for n in values if n.partition("_")[0].isupper()]:
        node, key = name.split("_", 1)
        parameters[node.lower()][key] = values.pop(name)
    return dataclasses.replace(HEALTHY, **({"parameters": parameters} | values))


def diagnostics(name, level, message, **values):
    return (*without(name), Diagnostic(name, level, message, values))


def without(name):
    return tuple(d for d in HEALTHY.diagnostics if d.name != name)


def worst(snapshot, name):
    """(verdict, found and advice) of a check."""
    found = [f for f in check(snapshot) if f.name == name]
    assert found, f"no check {name}: {[f.name for f in check(snapshot)]}"
    order = list(Verdict)
    f = max(found, key=lambda f: order.index(f.verdict))
    return f.verdict, f"{f.found} | {f.advice}"
