# SPDX-License-Identifier: Apache-2.0
"""Names on a command line: what is none is said before anything is started."""

import argparse

import pytest
from rlif_node.names import add_namespace, namespace


@pytest.mark.parametrize("text", ["", "robot", "/lab/robot_1"])
def test_namespace_that_is_valid_is_returned(text):
    assert namespace(text) == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], "rlif"), (["--namespace", "none"], ""), (["--namespace", "a"], "a")],
)
def test_option_namespace_defaults_to_rlif_and_none_is_the_root(given, expected):
    parser = argparse.ArgumentParser()
    add_namespace(parser)
    assert parser.parse_args(given).namespace == expected


@pytest.mark.parametrize("text", ["robot-1", "1robot", "a//b", "robot/"])
def test_namespace_that_is_not_valid_names_it(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}': .+[a-z0-9'/]$"):
        namespace(text)
