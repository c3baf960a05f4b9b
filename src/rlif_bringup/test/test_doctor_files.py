# SPDX-License-Identifier: Apache-2.0
"""The files of a robot configuration, checked while nothing runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlif_bringup.doctor_files import check_files
from rlif_bringup.doctor_findings import Verdict

CONFIG = Path(__file__).resolve().parents[3] / "config"
REAL = sorted(
    p.parent.name for p in CONFIG.glob("*/robot.yaml") if not p.parent.name.startswith("sim")
)


@pytest.mark.parametrize("robot", REAL)
def test_check_files_of_a_shipped_robot_passes(robot: str) -> None:
    assert {f.verdict for f in check_files(CONFIG, robot)} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("old", "new", "check", "words"),
    [
        ("max_steps:", "max_stepps:", "parameter files", "did you mean max_steps"),
        ("    encoder: small", "    #", "encoder", "none of them"),
        ("axes: [", "axes: [[", "parameter files", "is not YAML"),
        ("max_linear_speed:", "max_linear_speed: 0.0  #", "speed", "max_linear_speed is off"),
        (
            "/**:\n  ros__parameters:",
            "/**:\n  ros__parameters:\n    stall_timeout: 0.3\n    timeout: 0.3",
            "stall_timeout",
            "acts first",
        ),
    ],
)
def test_check_files_of_a_faulty_robot_fails_and_names_the_remedy(
    old: str, new: str, check: str, words: str, tmp_path: Path
) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    path = tmp_path / "config" / "ur5e_gamepad" / "robot.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    failed = [
        f for f in check_files(tmp_path / "config", "ur5e_gamepad") if f.verdict is Verdict.FAIL
    ]
    assert [f.name for f in failed] == [check]
    assert words in failed[0].found + failed[0].advice
