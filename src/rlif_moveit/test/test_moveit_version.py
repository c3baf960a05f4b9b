# SPDX-License-Identifier: Apache-2.0
"""The version of the installed MoveIt."""

from __future__ import annotations

import pytest

from rlif_moveit import moveit_version
from rlif_moveit.moveit_version import installed_version, version_problem


@pytest.mark.parametrize("version", [None, (2, 5, 7), (2, 12, 2), (2, 12, 4), (2, 14, 0)])
def test_version_problem_of_a_good_or_unknown_version_is_none(version):
    assert version_problem(version) == ""


@pytest.mark.parametrize("version", [(2, 10, 0), (2, 12, 1)])
def test_version_problem_of_one_that_jumps_names_the_least_version(version):
    assert "2.12.2 or newer" in version_problem(version)
    assert ".".join(map(str, version)) in version_problem(version)


@pytest.mark.parametrize(
    ("text", "version"),
    [("<package><version>2.12.4</version></package>", (2, 12, 4)), ("<package/>", None)],
)
def test_installed_version_is_that_of_the_package_xml(tmp_path, monkeypatch, text, version):
    (tmp_path / "package.xml").write_text(text)
    monkeypatch.setattr(moveit_version, "get_package_share_directory", lambda _: str(tmp_path))
    assert installed_version() == version


def test_installed_version_without_moveit_is_none(monkeypatch):
    monkeypatch.setattr(moveit_version, "PACKAGE", "no_such_moveit")
    assert installed_version() is None
