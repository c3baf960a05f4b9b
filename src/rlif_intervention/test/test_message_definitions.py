# SPDX-License-Identifier: Apache-2.0
"""Definitions and hashes of message types, out of the installed packages."""

from __future__ import annotations

import pytest

from rlif_intervention.message_definitions import definition, type_hash


def test_definition_has_the_message_and_each_message_that_it_uses_once():
    text = definition("rlif_msgs/msg/Step")
    used = [line.removeprefix("MSG: ") for line in text.splitlines() if line.startswith("MSG: ")]
    assert used == ["std_msgs/Header", "sensor_msgs/Image", "builtin_interfaces/Time"]
    assert text.index("executed_action") < text.index("MSG: ")


def test_type_hash_is_that_of_the_installed_package():
    # As in rosbag2's own bags of Jazzy.
    expected = "RIHS01_feb91e995ff9ebd09c0cb3d2aed18b11077585839fb5db80193b62d74528f6c9"
    assert type_hash("std_msgs/msg/Bool") in (expected, "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Joy", "expected package/msg/Name"),
        ("no_msgs/msg/Nothing", "package 'no_msgs' is not installed"),
        ("std_msgs/msg/Nothing", "there is no .*Nothing.msg"),
    ],
)
def test_definition_of_a_type_that_is_not_there_is_an_error_that_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        definition(name)
