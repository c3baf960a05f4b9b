# SPDX-License-Identifier: Apache-2.0
"""Mapping files to start from, as `--describe` prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from external_sessions import (
    SECOND,
    TYPES,
    header,
    jog,
    joint_session,
    joint_state,
    session,
    write_session,
)
from step_bags import Cli

from rlif_bags.external.convert import external_steps
from rlif_bags.external.guess import Facts, starter
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ConversionReport


def test_starter_of_joint_commands_reads_the_bag(tmp_path: Path, cli: Cli) -> None:
    states = [
        ("/joint_states", stamp, kind, message)
        for topic, stamp, _, _ in session()
        if topic == "/arm/pose"
        for kind, message in [joint_state(0.0, 0.0)]
    ]
    for _, _, _, message in states:
        message.position = np.array([0.0, 0.1, 0.2])
    bag = write_session(tmp_path / "bag", joint_session(jog, states))
    text = cli.succeeds("relabel", bag, "--describe")
    guess = yaml.safe_load(text)
    assert guess["output"] == "joint_velocity" and guess["command"] == "/arm/joints"
    assert guess["joints"] == ["base", "wrist", "elbow"], "as in the joint states"
    assert guess["axes"] == ["wrist", "elbow"], "as commanded"
    assert "axes: [wrist, elbow]\n" in text
    (tmp_path / "guess.yaml").write_text(text.replace("base_frame: base", "base_frame: world"))
    found = TopicMapping.read(tmp_path / "guess.yaml")
    assert len([*external_steps(bag, found, ConversionReport())]) == 11


def test_starter_takes_what_it_can_read(tmp_path: Path) -> None:
    text = starter(
        {"/c": "sensor_msgs/msg/CompressedImage", "/u": "std_msgs/msg/Float64MultiArray"}, Facts()
    )
    guess = yaml.safe_load(text)
    assert guess["cameras"] == {"camera0": "/c"} and guess["command"] == "/u"


def test_starter_of_twists_reads_the_bag(tmp_path: Path, cli: Cli) -> None:
    bag = write_session(tmp_path / "teleop", session())
    text = cli.succeeds("relabel", bag, "--describe")
    guess = yaml.safe_load(text)
    assert guess["command"] == "/arm/twist" and guess["base_frame"] == "world"
    assert guess["driver"] == {"joy": "/joy", "button": 4, "timeout": 0.5}
    assert guess["linear_scale"] == 9.0
    assert "# guess: the button that is pressed most, 1 times (others: none)" in text
    assert "# guess: the largest linear command in the recording, 9 m/s" in text
    (tmp_path / "guess.yaml").write_text(text)
    found = TopicMapping.read(tmp_path / "guess.yaml")
    assert len([*external_steps(bag, found, ConversionReport())]) == 11


def test_starter_joint_states_without_names_are_described(tmp_path: Path, cli: Cli) -> None:
    kind = "sensor_msgs/msg/JointState"
    empty = np.zeros(0)
    state = TYPES[kind](
        header=header(SECOND), name=[], position=empty, velocity=empty, effort=empty
    )
    bag = write_session(tmp_path / "bag", [("/joint_states", SECOND, kind, state)])
    assert yaml.safe_load(cli.succeeds("relabel", bag, "--describe"))["joints"] == []


def test_starter_without_known_topics_is_refused_by_the_mapping(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(starter({"/a": "std_msgs/msg/String"}, Facts()))
    with pytest.raises(ValueError, match=r"m\.yaml"):
        TopicMapping.read(tmp_path / "m.yaml")


def test_starter_joy_that_is_never_pressed_is_a_warning(tmp_path: Path, cli: Cli) -> None:
    bag = write_session(tmp_path / "bag", session(operator=range(0)))
    assert "# WARNING: no button of /joy is ever pressed" in cli.succeeds(
        "relabel", "--describe", bag
    )
