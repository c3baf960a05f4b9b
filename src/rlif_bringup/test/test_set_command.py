# SPDX-License-Identifier: Apache-2.0
"""`rlif set`: the value in the type that the parameter has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from waiting import scaled

from rlif_bringup import cli
from rlif_bringup.set_command import converted

PARAMETERS = {
    "scale": 1.0, "count": 3, "on": False, "name": "a", "axes": ["x"], "box": [0.5], "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("scale", "1", 1.0),
        ("scale", "0.3", 0.3),
        ("count", "4", 4),
        ("on", "true", True),
        ("name", "true", "true"),
        ("axes", "[x, z]", ["x", "z"]),
        ("box", "[1, 2.5]", [1.0, 2.5]),
    ],
)
def test_converted_text_has_the_type_of_the_parameter(name: str, text: str, value: Any) -> None:
    found = converted(text, name, PARAMETERS)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scales", "1.0", "did you mean 'scale'"),
        ("scale", "fast", "found 'fast', expected float"),
        ("on", "1", "expected bool"),
        ("count", "[", "not YAML"),
    ],
)
def test_converted_text_that_does_not_fit_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converted(text, name, PARAMETERS)


@pytest.mark.ros
def test_set_of_a_running_node_prints_the_value_or_the_reason(
    start_graph: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    graph, _ = start_graph()
    within = [
        "--namespace",
        "none",
        "--timeout",
        str(scaled(20.0)),
        "--domain-id",
        os.environ["ROS_DOMAIN_ID"],
    ]
    assert cli.main(["set", "sim_operator", "mode", "never", *within]) == 0
    assert capsys.readouterr().out == "sim_operator: mode = 'never'\n"
    assert graph.value("sim_operator", "mode") == "never"
    assert cli.main(["set", "sim_operator", "mode", "sometimes", *within]) == 1
    assert "refuses mode='sometimes': no such mode" in capsys.readouterr().err
    assert cli.main(["set", "sim_operator", "modus", "never", *within]) == 2
    assert "did you mean 'mode'" in capsys.readouterr().err
    assert cli.main(["set", "nobody", "mode", "never", "--timeout", "0.2"]) == 1
    assert "/nobody" in capsys.readouterr().err
