# SPDX-License-Identifier: Apache-2.0
"""Settings of RLPD: presets, and what is refused by name."""

from __future__ import annotations

import pytest

from rlif_learner.config import RLPDConfig, named_preset


def test_presets():
    assert named_preset("rlpd") == RLPDConfig()
    rlif = named_preset("rlif")
    assert (rlif.hidden, rlif.entropy_in_target, rlif.prior_ratio) == ((256,) * 3, False, 0.0)
    with pytest.raises(ValueError, match="rlpq.*rlif"):
        named_preset("rlpq")


def test_unknown_setting_is_named():
    with pytest.raises(ValueError, match="learning_rte"):
        RLPDConfig.from_mapping({"learning_rte": 1e-3})
    small = RLPDConfig(hidden=(16, 16), ensemble_size=4, utd=2, batch_size=32)
    assert RLPDConfig.from_mapping({"utd": 7}, "rlif").utd == 7
    assert RLPDConfig.from_mapping(small.to_mapping()) == small


def test_values_that_hold_the_entropy_are_not_clipped():
    RLPDConfig(entropy_in_target=False, clip_positive_values=True)
    with pytest.raises(ValueError, match="clip_positive_values.*entropy_in_target"):
        RLPDConfig(clip_positive_values=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subset_size", 11), ("ensemble_size", 0), ("tau", 0.0), ("dropout", 1.0), ("utd", 1.5),
        ("discount", 1.1), ("prior_ratio", -0.1), ("hidden", ()), ("precision", "float8"),
        ("target_entropy", float("nan")), ("critic_learning_rate", "fast"), ("layer_norm", 1),
    ],
)  # fmt: skip
def test_bad_setting_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        RLPDConfig(**{name: value})
