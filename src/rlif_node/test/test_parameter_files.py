# SPDX-License-Identifier: Apache-2.0
"""Parameter files: what rcl refuses is explained, and a misspelled name is found before a node starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlif_node.known_parameters import NAMES
from rlif_node.parameter_files import check_arguments, check_file, locate, nearest

CONFIG = Path(__file__).parents[3] / "config"
SHIPPED = sorted(
    [*CONFIG.glob("*.yaml"), *CONFIG.glob("*/robot.yaml"), *CONFIG.glob("*/moveit.yaml")]
)


def write(folder, *lines, section="/**"):
    """A file that sets these parameters from line 3 on."""
    path = folder / "robot.yaml"
    path.write_text("\n".join([f"{section}:", "  ros__parameters:", *(f"    {x}" for x in lines)]))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIG)))
def test_check_file_of_a_shipped_configuration_finds_nothing(path):
    assert check_file(path) == []


@pytest.mark.parametrize(
    ("line", "parameter", "text"),
    [
        ("axes: [x, y, z]", "axes", 'y is a truth value in YAML beside texts: write "y" in quotes'),
        ("axes: [x, No]", "axes", 'No is a truth value in YAML beside texts: write "No" in quotes'),
        ("axes: [x, 1]", "axes", '1 is a whole number in YAML beside texts: write "1" in quotes'),
        ("state_scale: [0.5, 1]", "state_scale", "1 is a whole number .*: write 1.0"),
        ("state_scale: [1, 2, 0.5]", "state_scale", "1 is a whole number .*: write 1.0"),
        ("state_scale: [true, 0.5]", "state_scale", "true is a truth value .* beside numbers"),
        ("rlpd: {hidden: [128, 1.5]}", "rlpd.hidden", "128 is a whole number .*: write 128.0"),
        ("joy: {axes: [[0, 1], [2]]}", "joy.axes", "a list of lists"),
        ("control_rate:", "control_rate", "found no value"),
    ],
)  # fmt: skip
def test_check_file_of_a_value_that_rcl_refuses_names_line_parameter_and_remedy(
    tmp_path, line, parameter, text
):
    path = write(tmp_path, "base_frame: base", line)
    (fault,) = check_file(path)
    assert (fault.file, fault.line, fault.parameter) == (str(path), 4, parameter)
    assert str(fault).startswith(f"{path}:4: {parameter}: ") and "\n" not in str(fault)
    assert re.search(text, fault.text), fault.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "is not YAML"),
        ("- 1", "expected NODE"),
        ("", "expected NODE"),
        ("/**: {control_rate: 10.0}", "sets no parameter"),
        ("/**: {ros__parameters: 3}", "expected parameters by name"),
        ("/**: {ros__parameters: {joints: &j [a], axes: *j}}", "alias"),
    ],
)
def test_check_file_that_is_no_parameter_file_says_so(tmp_path, text, expected):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    (fault,) = check_file(path)
    assert expected in fault.text and str(path) in str(fault)


def test_check_file_that_is_not_there_says_so(tmp_path):
    (fault,) = check_file(tmp_path / "none.yaml")
    assert "none.yaml: cannot be read: No such file" in str(fault)


# ---- against rcl

ENTRIES = st.sampled_from(
    ["x", "y", "No", "on", "OFF", "true", "0", "7", "-3", "0x1f", "1.5", "-.5", "1e3", "3.", ".inf",
     ".nan", '"y"', "'1'", '"1.0"', "base", "1_000", "1.2.3", "e3", "+2"]
)  # fmt: skip
VALUES = ENTRIES | st.lists(ENTRIES, min_size=1, max_size=4).map(lambda e: f"[{', '.join(e)}]")


def rcl_reads(path):
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation

    context = rclpy.Context()
    try:
        context.init(["--ros-args", "--params-file", str(path)])
    except rclpy_implementation.RCLError:
        return False
    context.try_shutdown()
    return True


@pytest.mark.ros
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(VALUES)
def test_check_file_of_any_value_agrees_with_rcl(tmp_path, value):
    path = write(tmp_path, f"anything: {value}", section="/somebody_else")
    assert (check_file(path) == []) == rcl_reads(path), value


# ---- names


@pytest.mark.parametrize(
    ("line", "parameter", "near"),
    [
        ("joy: {deadzon: 0.1}", "joy.deadzon", "joy.deadzone"),
        ("joy.deadzon: 0.1", "joy.deadzon", "joy.deadzone"),
        ("deadzon: 0.1", "deadzon", "<device>.deadzone"),
        ("max_linear_sped: 0.1", "max_linear_sped", "max_linear_speed"),
        ("camera.wrist.widht: 640", "camera.wrist.widht", "camera.wrist.width"),
        ("rlpd: {hiden: [1]}", "rlpd.hiden", "rlpd.hidden"),
        ("use_simtime: true", "use_simtime", "use_sim_time"),
    ],
)
def test_check_file_with_a_misspelled_name_gives_the_nearest(tmp_path, line, parameter, near):
    (fault,) = check_file(write(tmp_path, line))
    assert (fault.line, fault.parameter) == (3, parameter)
    assert fault.text == f"unknown parameter; did you mean {near}?"


@given(st.data())
def test_check_file_of_any_known_name_with_one_letter_dropped_finds_it(tmp_path_factory, data):
    known = {n for of in NAMES.values() for n in of if "<" not in n}
    names = sorted(n for n in known if len(n) > 6)
    name = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, len(name) - 1))
    wrong = name[:at] + name[at + 1 :]
    if wrong in known:  # `devices` becomes the learner's `device`
        return
    assert nearest(wrong, names)
    (fault,) = check_file(write(tmp_path_factory.mktemp("names"), f"{wrong}: 1"))
    assert fault.parameter == wrong and "did you mean" in fault.text


def test_check_file_with_a_name_of_another_node_in_a_nodes_section_names_the_node(tmp_path):
    (fault,) = check_file(write(tmp_path, "linear_scale: 0.1", section="/lab/observer"))
    assert "unknown parameter of observer; it is one of arbiter" in fault.text
    (fault,) = check_file(write(tmp_path, "devices: [joy]", section="episode"))
    assert "unknown parameter of episode; it is one of arbiter: write it there" in fault.text
    assert not check_file(write(tmp_path, "linear_scale: 0.1", section="arbiter"))


@pytest.mark.parametrize(
    "line",
    ["use_sim_time: true", "qos_overrides./joy.subscription.depth: 3", "spacemouse.deadzone: 0.1",
     "start_type_description_service: false", "camera: {top: {roi: [0, 0, 8, 8]}}"],
)  # fmt: skip
def test_check_file_with_names_of_rclpy_or_of_any_device_or_camera_finds_nothing(tmp_path, line):
    assert check_file(write(tmp_path, line)) == []


def test_check_file_ignores_names_of_other_nodes(tmp_path):
    assert check_file(write(tmp_path, "publish_period: 0.01", section="/servo_node")) == []


# ---- command lines


def test_check_arguments_finds_faults_of_all_files_and_arguments(tmp_path):
    path = write(tmp_path, "deadzon: 0.1")
    arguments = ["--ros-args", "--params-file", str(path), "-p", "max_linear_sped:=0.1", "-p",
                 "axes:=[x, y]", "-r", "__ns:=/lab"]  # fmt: skip
    found = [str(fault) for fault in check_arguments(arguments, "arbiter")]
    assert found == [
        f"{path}:3: deadzon: unknown parameter; did you mean <device>.deadzone?",
        "command line: max_linear_sped: unknown parameter; did you mean max_linear_speed?",
        'command line: axes: entries of several types: y is a truth value in YAML beside texts: write "y" in quotes',
    ]
    assert check_arguments(arguments[1:], "arbiter") == []  # not after --ros-args


def test_check_arguments_ignores_sections_of_other_nodes_and_unknown_nodes(tmp_path):
    path = write(tmp_path, "deadzon: 0.1", section="arbiter")
    arguments = ["--ros-args", "--params-file", str(path)]
    assert check_arguments(arguments, "arbiter") and not check_arguments(arguments, "observer")
    path = write(tmp_path, "deadzon: 0.1")
    assert not check_arguments(["--ros-args", "--params-file", str(path)], "somebody_else")


def test_locate_gives_the_last_place_that_sets_a_parameter(tmp_path):
    path = write(tmp_path, "control_rate: 10", "max_age: 1")
    arguments = ["--ros-args", "--params-file", str(path)]
    assert locate(arguments, "observer", "max_age") == f"{path}:4"
    assert locate([*arguments, "-p", "max_age:=2"], "observer", "max_age") == "command line"
    assert locate(arguments, "observer", "joints") == ""
