# SPDX-License-Identifier: Apache-2.0
"""Parameters of a node out of its table."""

from __future__ import annotations

import pytest
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.parameters import Param, check_choice, declare

TABLE = (
    Param("rate", 10.0, "Hz", 0.1, 200.0),
    Param("count", 3, "of something", 0, 9),
    Param("axes", ["x", "y"], "names"),
    Param("offset", [], "numbers"),
    Param("joints", [], "names", items=str),
    Param("mode", "hold", "what to do", choices=("hold", "random")),
    Param("scale", 1.0, "at any time", live=True),
)


@pytest.fixture
def make(graph):
    def make(**values):
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        node = Node("made", parameter_overrides=parameters)
        graph.nodes.append(node)
        return node

    return make


@pytest.mark.ros
def test_declare_without_values_gives_the_defaults(make):
    assert declare(make(), TABLE) == {row.name: row.default for row in TABLE}


@pytest.mark.ros
def test_declare_with_values_gives_them_in_the_types_of_the_table(make):
    values = {"rate": 5.0, "offset": [1.0, 2.0], "joints": ["a"], "axes": ["z"], "mode": "random"}
    found = declare(make(**values), TABLE)
    assert found == {row.name: row.default for row in TABLE} | values
    assert isinstance(found["offset"], list)


@pytest.mark.ros
def test_declare_with_an_empty_list_of_a_file_replaces_the_default(make):
    """Regression: `cameras: []` in robot.yaml, which rclpy gives no value, ended the observer."""
    assert declare(make(axes=None, offset=None), TABLE)["axes"] == []


@pytest.mark.ros
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 500.0),
        ("rate", 5),
        ("rate", None),
        ("count", 10),
        ("mode", "dance"),
        ("joints", [1.0]),
    ],
)
def test_declare_with_a_value_out_of_range_or_type_names_the_parameter(make, name, value):
    with pytest.raises((ValueError, ParameterException), match=name):
        declare(make(**{name: value}), TABLE)


@pytest.mark.ros
def test_declare_makes_all_but_live_parameters_read_only(make):
    node = make()
    declare(node, TABLE)
    results = node.set_parameters([Parameter("rate", value=1.0), Parameter("scale", value=2.0)])
    assert [result.successful for result in results] == [False, True]


def test_check_choice_of_another_text_names_all_choices():
    with pytest.raises(ValueError, match="mode: found 'dance', expected one of hold, random"):
        check_choice(TABLE[5], "dance")
