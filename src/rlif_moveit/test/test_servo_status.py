# SPDX-License-Identifier: Apache-2.0
"""Servo's codes: complete for both interfaces, and halts hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlif_intervention.diagnostics import Level
from rlif_moveit.servo_status import TABLES, Dialect, condition


@pytest.mark.parametrize("dialect", Dialect)
def test_tables_have_every_code_once(dialect):
    assert sorted(TABLES[dialect]) == list(range(-1, 7))
    names = [c.name for c in TABLES[dialect].values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dialect", Dialect)
def test_condition_that_stops_holds_and_that_slows_warns(dialect):
    for c in TABLES[dialect].values():
        stops = c.name.startswith("HALT") or c.name in ("INVALID", "JOINT_BOUND")
        assert c.holds == stops
        assert (c.level is Level.ERROR) == stops


def test_condition_of_a_code_depends_on_the_dialect():
    assert condition(Dialect.JAZZY, 4).name == "DECELERATE_FOR_COLLISION"
    assert condition(Dialect.HUMBLE, 4).name == "HALT_FOR_COLLISION"
    assert condition(Dialect.JAZZY, 6).holds and not condition(Dialect.HUMBLE, 6).holds


def test_condition_of_an_unknown_code_holds_and_names_the_parameter():
    unknown = condition(Dialect.JAZZY, 42)
    assert unknown.holds and "42" in unknown.meaning and "servo_interface" in unknown.meaning


def test_tables_are_those_of_moveit_msgs():
    message = pytest.importorskip("moveit_msgs.msg").ServoStatus
    for code, c in TABLES[Dialect.JAZZY].items():
        assert getattr(message, c.name) == code


def test_tables_are_those_of_the_documentation():
    text = (Path(__file__).parents[3] / "docs" / "moveit.md").read_text(encoding="utf-8")
    humble = {c.name: code for code, c in TABLES[Dialect.HUMBLE].items()}
    for code, c in TABLES[Dialect.JAZZY].items():
        reaction = "HOLD" if c.holds else "–"
        row = f"| {c.name} | {code} | {humble[c.name]} | {c.level.name} | {reaction} |"
        assert row in text
