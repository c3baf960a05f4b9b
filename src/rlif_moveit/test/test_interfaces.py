# SPDX-License-Identifier: Apache-2.0
"""The optional interfaces of MoveIt."""

from __future__ import annotations

import importlib.util

import pytest
from std_msgs.msg import Int8

from rlif_moveit import interfaces
from rlif_moveit.interfaces import MissingInterfacesError, servo_interfaces
from rlif_moveit.servo_status import Dialect


def test_servo_interfaces_of_humble_need_no_moveit_msgs():
    found = servo_interfaces(Dialect.HUMBLE, joint_jog=False)
    assert found.read_code(Int8(data=4)) == 4 and found.select_service is None


@pytest.mark.skipif(importlib.util.find_spec("moveit_msgs") is not None, reason="it is installed")
def test_servo_interfaces_of_jazzy_without_moveit_msgs_name_it():
    with pytest.raises(MissingInterfacesError, match="moveit_msgs"):
        servo_interfaces(Dialect.JAZZY, joint_jog=False)


def test_require_of_a_missing_package_names_it_and_how_to_install_it():
    with pytest.raises(MissingInterfacesError, match="apt install .*no-such-msgs") as found:
        interfaces.require("no_such_msgs", "msg", "this test")
    assert "this test needs the package no_such_msgs" in str(found.value)
