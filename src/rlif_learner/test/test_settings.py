# SPDX-License-Identifier: Apache-2.0
"""The algorithms' settings as parameters of a node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlif_learner.config import ImitationConfig, RLPDConfig, named_preset
from rlif_learner.settings import declare_settings


class FakeNode:
    """Declares parameters as rclpy.node.Node does."""

    def __init__(self, **given):
        self._parameter_overrides = given
        self.descriptors = {}

    def declare_parameter(self, name, default, descriptor):
        self.descriptors[name] = descriptor
        return SimpleNamespace(value=self._parameter_overrides.get(name, default))


@pytest.mark.parametrize("preset", ["rlpd", "rlif"])
def test_settings_of_rlpd_default_to_the_preset(preset):
    node = FakeNode()
    settings = declare_settings(node, "rlpd", preset)
    assert RLPDConfig.from_mapping(settings) == named_preset(preset)
    assert settings["target_entropy"] is None, "ROS parameters know no null"
    assert set(node.descriptors) == {f"rlpd.{name}" for name in settings}


@pytest.mark.parametrize("algorithm", ["bc", "hg_dagger"])
def test_settings_of_imitation_are_those_given(algorithm):
    settings = declare_settings(FakeNode(**{"imitation.utd": 3}), algorithm, "rlpd")
    assert ImitationConfig.from_mapping(settings) == ImitationConfig(utd=3)


def test_setting_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"found \['rlpd.utdd'\], expected some of .*'rlpd.utd'"):
        declare_settings(FakeNode(**{"rlpd.utdd": 3}), "rlpd", "rlpd")
