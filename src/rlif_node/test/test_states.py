# SPDX-License-Identifier: Apache-2.0
"""The enums have the numbers of the messages' constants."""

import pytest
from rlif_node.states import ControlState, HoldReason, Outcome, Phase, Source

from rlif_msgs.msg import ControlState as ControlStateMessage
from rlif_msgs.msg import Decision, Episode, PolicyHold


def constants(message):
    """Name to number of all that are defined in the message."""
    metaclass = type(message)
    return {
        name: getattr(message, name)
        for name in vars(metaclass)
        if name.isupper() and name[0] != "_"
    }


@pytest.mark.parametrize(
    ("kind", "prefix", "expected"),
    [
        (ControlState, "", constants(ControlStateMessage)),
        (Source, "", constants(Decision)),
        (HoldReason, "", constants(PolicyHold)),
        (Phase, "", {n: v for n, v in constants(Episode).items() if not n.startswith("OUTCOME_")}),
        (
            Outcome,
            "OUTCOME_",
            {n: v for n, v in constants(Episode).items() if n.startswith("OUTCOME_")},
        ),
    ],
)
def test_enum_has_exactly_the_constants_of_the_message(kind, prefix, expected):
    assert {prefix + member.name: member.value for member in kind} == expected
    assert len(expected) >= 3
