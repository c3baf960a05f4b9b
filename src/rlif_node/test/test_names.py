# SPDX-License-Identifier: Apache-2.0
"""Names on a command line: what is none is said before anything is started."""

import argparse

import pytest
from rlif_node.names import namespace


@pytest.mark.parametrize("text", ["", "robot", "/lab/robot_1"])
def test_namespace_that_is_valid_is_returned(text):
    assert namespace(text) == text


@pytest.mark.parametrize("text", ["robot-1", "1robot", "a//b", "robot/"])
def test_namespace_that_is_not_valid_names_it(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}': .+[a-z0-9'/]$"):
        namespace(text)
