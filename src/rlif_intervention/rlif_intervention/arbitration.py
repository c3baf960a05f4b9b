# SPDX-License-Identifier: Apache-2.0
"""Who has control: one table of (state, event) -> state, and the small class that owns the state.

    DISARMED --arm--> HOLD --inputs back--> POLICY --take over--> OPERATOR
                       ^ <--inputs lost------+                      |
                       +<------released, device or pose lost--------+
    anything --fault--> FAULT --arm--> HOLD          anything else --disarm--> DISARMED

Every pair is either in `TABLE` or in `IGNORED` with the reason why nothing happens; a test
enumerates all pairs. The picture in docs/arbiter.md is written from the same table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from rlif_node.states import ControlState


class Event(enum.Enum):
    """What can happen to control; the value is the wording in docs and logs."""

    ARM = "a human arms, and no cause of a fault is left"
    DISARM = "a human disarms"
    FAULT = "something only a human may clear: not finite, wrong shape, stop signal, lost heartbeat"
    TAKE_OVER = "an operator device asks for control, and nothing forbids motion"
    RELEASED = "the operator let go, and dwell and minimum length are over"
    DEVICE_LOST = "the device in control has gone silent, or was locked"
    EPISODE_OVER = "no episode is running, or its time limit is reached"
    POSE_LOST = "the measured position that a limit needs is missing, stale or not usable"
    INPUTS_LOST = "an input that the policy needs is missing or stale"
    INPUTS_BACK = "all that the policy needs is there and fresh, and it was not armed just now"


_S, _E = ControlState, Event

TABLE: Mapping[tuple[ControlState, Event], ControlState] = {
    (_S.DISARMED, _E.ARM): _S.HOLD,
    (_S.DISARMED, _E.FAULT): _S.FAULT,
    (_S.HOLD, _E.DISARM): _S.DISARMED,
    (_S.HOLD, _E.FAULT): _S.FAULT,
    (_S.HOLD, _E.TAKE_OVER): _S.OPERATOR,
    (_S.HOLD, _E.INPUTS_BACK): _S.POLICY,
    (_S.POLICY, _E.DISARM): _S.DISARMED,
    (_S.POLICY, _E.FAULT): _S.FAULT,
    (_S.POLICY, _E.TAKE_OVER): _S.OPERATOR,
    (_S.POLICY, _E.EPISODE_OVER): _S.HOLD,
    (_S.POLICY, _E.POSE_LOST): _S.HOLD,
    (_S.POLICY, _E.INPUTS_LOST): _S.HOLD,
    (_S.OPERATOR, _E.DISARM): _S.DISARMED,
    (_S.OPERATOR, _E.FAULT): _S.FAULT,
    (_S.OPERATOR, _E.RELEASED): _S.HOLD,
    (_S.OPERATOR, _E.DEVICE_LOST): _S.HOLD,
    (_S.OPERATOR, _E.EPISODE_OVER): _S.HOLD,
    (_S.OPERATOR, _E.POSE_LOST): _S.HOLD,
    (_S.FAULT, _E.ARM): _S.HOLD,
}


def _because(states: tuple[ControlState, ...], events: tuple[Event, ...], why: str) -> dict:
    return {(s, e): why for s in states for e in events}


_INPUTS = (_E.TAKE_OVER, _E.RELEASED, _E.DEVICE_LOST, _E.EPISODE_OVER, _E.POSE_LOST)
_POLICY_INPUTS = (_E.INPUTS_LOST, _E.INPUTS_BACK)

IGNORED: Mapping[tuple[ControlState, Event], str] = {
    **_because((_S.DISARMED,), (*_INPUTS, *_POLICY_INPUTS), "only a human arms"),
    **_because((_S.DISARMED,), (_E.DISARM,), "it is disarmed"),
    **_because(
        (_S.FAULT,), (*_INPUTS, *_POLICY_INPUTS), "a fault is latched until a human re-arms"
    ),
    **_because((_S.FAULT,), (_E.DISARM, _E.FAULT), "a fault is latched until a human re-arms"),
    **_because((_S.HOLD, _S.POLICY, _S.OPERATOR), (_E.ARM,), "it is armed"),
    **_because(
        (_S.HOLD,), (_E.EPISODE_OVER, _E.POSE_LOST, _E.INPUTS_LOST), "zeros are output as it is"
    ),
    **_because((_S.HOLD, _S.POLICY), (_E.RELEASED, _E.DEVICE_LOST), "no device is in control"),
    **_because((_S.POLICY,), (_E.INPUTS_BACK,), "the policy is in control already"),
    **_because((_S.OPERATOR,), (_E.TAKE_OVER,), "the operator is in control already"),
    **_because((_S.OPERATOR,), _POLICY_INPUTS, "the operator wins, with or without a policy"),
}

ARMED = frozenset({_S.HOLD, _S.POLICY, _S.OPERATOR})


def next_state(state: ControlState, event: Event) -> ControlState:
    """State after `event`; the same state where the pair is ignored."""
    return TABLE.get((state, event), state)


class ControlMachine:
    """Owns the control state and its reason. Starts DISARMED."""

    def __init__(self) -> None:
        self._state = ControlState.DISARMED
        self._reason = "not armed yet: press the arm button or call the arm service"
        self._by_human = False

    @property
    def state(self) -> ControlState:
        return self._state

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def by_human(self) -> bool:
        """A human brought this state about."""
        return self._by_human

    @property
    def armed(self) -> bool:
        return self._state in ARMED

    def handle(self, event: Event, reason: str, by_human: bool = False) -> bool:
        """Apply `event`. Returns True if the state changed; only then is its reason kept."""
        new = next_state(self._state, event)
        if new is self._state:
            return False
        self._state, self._reason, self._by_human = new, reason, by_human
        return True

    def explain(self, reason: str) -> None:
        """Another reason for an unchanged state, e.g. another input that is missing in HOLD."""
        self._reason = reason


def table_markdown() -> str:
    """The table as docs/arbiter.md shows it: a row per state, a column per event."""
    head = "| state | " + " | ".join(e.name for e in Event) + " |"
    rule = "|---" * (len(Event) + 1) + "|"
    rows = [
        f"| **{s.name}** | "
        + " | ".join(TABLE[s, e].name if (s, e) in TABLE else "–" for e in Event)
        + " |"
        for s in ControlState
    ]
    return "\n".join([head, rule, *rows])


def table_mermaid() -> str:
    """The same as a state diagram."""
    moves = [f"    {s.name} --> {to.name}: {e.name}" for (s, e), to in TABLE.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> DISARMED", *moves])
