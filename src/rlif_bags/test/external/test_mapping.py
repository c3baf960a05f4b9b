# SPDX-License-Identifier: Apache-2.0
"""Mapping files: a wrong entry is refused by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from external_sessions import ARM, GRIPPER, GRIPPING, JOINTS, MAPPING, mapping

from rlif_bags.external.mapping import TopicMapping


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "position"}, "output"),
        ({"axes": ["elbow"]}, "output joint_velocity names of joints"),
        ({"output": "joint_velocity"}, "expected joints"),
        ({**ARM, "axes": []}, "axes"),
        ({**ARM, "axes": ["elbow", "elbow"]}, "each once"),
        ({**ARM, "axes": ["gripper"], "gripper": GRIPPER}, "axes"),
        ({**GRIPPING, "axes": ["gripper", *JOINTS]}, "last"),
        ({**GRIPPING, "axes": JOINTS}, "or neither"),
        ({**GRIPPING, "gripper": {}}, "or neither"),
        ({**GRIPPING, "gripper": {"topic": "/grip"}}, "expected topic, open and closed"),
        ({**GRIPPING, "gripper": {**GRIPPER, "open": 0.0}}, "two numbers"),
        ({**GRIPPING, "gripper": {**GRIPPER, "open": "wide"}}, "two numbers"),
        ({**GRIPPING, "gripper_threshold": 2.0}, "gripper_threshold"),
        ({**ARM, "joint_scale": 0.0}, "joint_scale"),
        ({"cameras": ["/cam"]}, r"cameras: found .*'/cam'.*, expected {name: value}"),
        ({"cameras": {"wrist": 3}}, "cameras: wrist: found 3, expected a topic"),
        ({"sources": {"ee_pose": None}}, "sources: ee_pose"),
        ({"axes": [1, 2]}, "axes"),
        ({"image_width": 12.5}, "whole number"),
        ({"release_dwell": "short"}, "release_dwell"),
        ({"driver": {"joy": "/joy", "button": "A"}}, "button: found 'A'"),
        ({"driver": {"flag": "/manual", "timeout": -1}}, "timeout: found -1"),
        ({"driver": {"policy": "/policy", "threshold": "some"}}, "threshold: found 'some'"),
        ({"driver": {"always": "policy", "timeout": 1}}, "driver"),
        ({"driver": {"joy": 7, "button": 4}}, "driver: joy: found 7"),
        ({"control_rate": 0.0}, "control_rate"),
        ({"features": ["nothing"]}, "features"),
        ({"sources": {}}, "sources"),
        ({"axes": ["w"]}, "axes"),
        ({"driver": {"joy": "/joy"}}, "driver"),
        ({"driver": {"always": "me"}}, "operator or policy"),
        ({"command": ""}, "command"),
        (
            {"driver": {"flag": "/m", "operator_values": "teleop"}},
            "operator_values: found 'teleop', expected a list",
        ),
        ({"driver": {"flag": "/m", "operator_values": []}}, "expected a list"),
        (
            {"driver": {"flag": "/m", "operator_values": ["a", 1]}},
            "all text, all whole numbers or all flags",
        ),
        ({"driver": {"flag": "/m", "operator_values": [True, 1]}}, "all text"),
        ({"driver": {"flag": "/m", "operator_values": [1.5]}}, "all text"),
        ({"driver": {"flag": "/m", "policy_values": ["a"]}}, "operator_values with them"),
        (
            {"driver": {"flag": "/m", "operator_values": ["a"], "policy_values": ["a"]}},
            "more than once",
        ),
        ({"driver": {"flag": "/m", "field": 3}}, "field: found 3"),
        ({"driver": {"motion": "/m", "motion_on": 0.1, "motion_off": 0.2}}, "0 < off < on"),
        ({"driver": {"motion": "/m", "axes": [-1]}}, "axes: found .-1., expected indices"),
        ({"driver": {"motion": "/m", "button": 1}}, "expected .*motion"),
        ({"driver": {"motion": 3}}, "driver: motion: found 3, expected a topic"),
    ],
)
def test_topic_mapping_wrong_value_is_refused_by_field(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mapping(**changes)


def test_topic_mapping_unknown_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**MAPPING, "comand": "/x"}))
    with pytest.raises(ValueError, match="comand"):
        TopicMapping.read(tmp_path / "m.yaml")
