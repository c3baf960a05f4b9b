# SPDX-License-Identifier: Apache-2.0
"""The checks of nodes, observations, policy, devices and state."""

from __future__ import annotations

import pytest
from healthy_graph import HEALTHY, changed, diagnostics, without, worst

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import Traffic
from rlif_bringup.image_transport import ImageSender

FAILS = [
    ("nodes", {"parameters": {}}, "robot.launch.yaml"),
    ("observation", {"observation": Traffic("/observation")}, "nothing on /observation"),
    ("observation", {"observation": Traffic("/observation", 25, 4.9, 1, 1)}, "4.9 Hz"),
    ("source /ee_pose", {"diagnostics": diagnostics("observer: /ee_pose", 2, "never")}, "driver"),
    ("clocks", {"observation_age": (-2.0, -1.9)}, "future"),
    ("clocks", {"observation_age": (4.0, 5.0)}, "set the clocks"),
    ("images", {"images": ()}, "0 in an observation"),
    ("images", {"images": ((640, 480),)}, "640"),
    ("policy", {"policy_action": Traffic("/policy_action")}, "its log"),
    ("action", {"action_size": 6}, "axes"),
    ("weights", {"weights": (7, {"state_dim": 9, "action_dim": 3})}, "state_dim"),
    ("weights", {"weights": (8, {"state_dim": 6, "action_dim": 3})}, "refused"),
    ("device joy", {"diagnostics": diagnostics("arbiter: device joy", 1, "never moved")}, "move it"),
    ("device", {"diagnostics": without("arbiter: device joy")}, "devices"),
    ("weights", {"learned": 9, "weights_age": 900.0}, "publish_every"),
    ("weights", {"learned": 9}, "publishes no weights"),
    ("stop", {"stop": True}, "safe"),
    ("control", {"control": None}, "start it"),
    ("control", {"control": (4, "not finite")}, "not finite"),
    ("publishers", {"observation": Traffic("/observation", 50, 4.9, 2, 3)}, "expected one"),
    ("publishers", {"policy_action": Traffic("/policy_action", 50, 4.9, 2, 1)}, "expected one"),
    ("publishers", {"alive": Traffic("/arbiter_heartbeat", 200, 4.95, 2, 2)}, "expected one"),
    ("images", {"image_problems": ("image 0: all pixels are the same",)}, "the same"),
    (
        "weights",
        {"weights": (7, {"state_dim": 6, "action_dim": 3, "images": [[64, 64, 3]]})},
        "cameras of [(64, 64)]",
    ),
    ("image transport", {"image_senders": (ImageSender("cam", "/rgb", 921600, 524288),)}, "512 KiB"),
]  # fmt: skip
WARNS = [
    ("clocks", {"observation_age": (0.1, 5.0)}),
    ("encoder", {"LEARNER_encoder": "none"}),
    ("recording", {"parameters": {k: v for k, v in HEALTHY.parameters.items() if k != "recorder"}}),
    ("weights", {"weights": None, "policy_version": 0}),
    ("control", {"control": (2, "the policy drives")}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), FAILS)
def test_check_of_a_faulty_graph_fails_and_names_the_remedy(name, change, words):
    verdict, text = worst(changed(**change), name)
    assert verdict is Verdict.FAIL and words in text


@pytest.mark.parametrize(("name", "change"), WARNS)
def test_check_of_a_doubtful_graph_warns(name, change):
    assert worst(changed(**change), name)[0] is Verdict.WARN


def test_check_of_a_healthy_graph_passes_everything():
    findings = check(HEALTHY)
    assert {f.verdict for f in findings} == {Verdict.PASS}
    assert len({f.name for f in findings}) >= 15


def test_check_clocks_in_simulation_judges_nothing():
    snapshot = changed(ARBITER_use_sim_time=True, observation_age=(-0.1, 0.0))
    assert all(f.name != "clocks" for f in check(snapshot))
