# SPDX-License-Identifier: Apache-2.0
"""`rlif doctor`: its arguments, its table, its exit code."""

from __future__ import annotations

import argparse
import io
import json

import pytest
from healthy_graph import HEALTHY, changed
from rich.console import Console

from rlif_bringup import doctor
from rlif_bringup.doctor_checks import check


@pytest.mark.parametrize(
    ("change", "code", "strict"),
    [({}, 0, 0), ({"weights": None, "policy_version": 0}, 0, 1), ({"stop": True}, 1, 1)],
)
def test_exit_code_counts_failures_and_when_strict_warnings(change, code, strict):
    findings = check(changed(**change))
    assert doctor.exit_code(findings, strict=False) == code
    assert doctor.exit_code(findings, strict=True) == strict


def test_show_of_findings_ends_with_whether_to_arm():
    out = io.StringIO()
    doctor.show(check(changed(stop=True)), Console(file=out, width=200))
    text = out.getvalue()
    assert "Do not arm yet." in text and "the stop topic is true" in text
    assert "the end effector is inside" in text
    rows = json.loads(doctor.as_json(check(HEALTHY)))
    assert {r["verdict"] for r in rows} == {"pass"}


def arguments(*given):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return parser.parse_args(given)


def test_doctor_with_an_unknown_robot_lists_those_there_are(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "topics.launch.yaml").write_text("launch: []\n")
    got = doctor.run(arguments("--robot", "yours", "--config-directory", str(tmp_path)))
    assert got == 2 and "there are: mine" in capsys.readouterr().err
    assert doctor.run(arguments("--seconds", "0")) == 2
