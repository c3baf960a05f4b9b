# SPDX-License-Identifier: Apache-2.0
"""Packages of messages that are not everywhere."""

import pytest
from rlif_node.optional import MissingInterfacesError, require


def test_require_of_an_installed_package_gives_its_module():
    assert require("std_msgs", "msg", "a test").__name__ == "std_msgs.msg"


def test_require_of_a_missing_package_names_how_to_install_it():
    with pytest.raises(MissingInterfacesError, match=r"goals needs .*no_such_msgs.*-no-such-msgs"):
        require("no_such_msgs", "msg", "goals")
