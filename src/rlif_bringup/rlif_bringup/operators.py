# SPDX-License-Identifier: Apache-2.0
"""Who takes over in a session: the scripted operator, or a person at the console."""

from __future__ import annotations

from rlif_node.qos import LATCHED
from std_msgs.msg import String

from rlif_bringup.graph_client import GraphClient
from rlif_bringup.summary import EpisodeRecord
from rlif_msgs.msg import ControlState, PolicyHold

EPISODE = 180.0  # s of wall time within which an episode of the scripted operator has to end
HOLD_PERIOD = 1.0  # s between two repetitions of a hold


class Operator:
    """Who takes over: here the scripted one, the node sim_operator.

    nodes: that must be up; patience: s of wall time within which an episode has to end
    learning: s, besides those of the session, for the learner to work through the last steps
    task: what a person should do now; empty: the operator is none
    """

    nodes: tuple[str, ...] = ("sim_operator",)
    patience = EPISODE
    learning = 0.0
    task = ""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def prepare(self, phase: str, mode: str, episodes: int) -> None:
        """A phase begins. mode: always, intervene or never."""
        self._graph.set_parameters("sim_operator", mode=mode)

    def finished(self, record: EpisodeRecord) -> None:
        """An episode has ended."""


TITLES = {"demonstrations": "Demonstrations", "training": "Corrections", "policy": "The policy alone", "expert": "Your turn, on the same boards"}  # fmt: skip
# What a person should do in each mode.
GUIDES = {
    "always": "Put the orange peg into the hole. Hold W, A, S, D, Q, E or the sticks to drive, with Shift slowly.",
    "intervene": "The policy drives. Take over when it goes wrong: Shift alone stops it. Let go when it is on its way again.",
    "never": "Hands off: the policy alone is judged.",
}


class PersonOperator(Operator):
    """A person at the console, who reads on the page what to do.

    Where the person drives at every step, the policy is kept from acting.
    """

    nodes = ("console",)
    patience = 3600.0  # a person may pause
    learning = 1500.0  # they would lose their session

    def __init__(self, graph: GraphClient) -> None:
        super().__init__(graph)
        self._guide = graph.node.create_publisher(String, "guide", LATCHED)
        self._hold = graph.node.create_publisher(PolicyHold, "policy_hold", LATCHED)
        self._phase, self._mode, self._episodes = "", "", 0
        graph.node.create_timer(HOLD_PERIOD, self._repeat)
        self._records: list[EpisodeRecord] = []

    def prepare(self, phase: str, mode: str, episodes: int) -> None:
        self._phase, self._mode, self._episodes = phase, mode, episodes
        self._records = []
        self._repeat()

    def _repeat(self) -> None:
        """A human who arms overrides a hold that is not repeated, and needs another text."""
        hold = PolicyHold(source="rlif_session")
        if self._mode == "always":
            hold.reason_code, hold.reason = PolicyHold.OTHER, "this part is yours: drive"
        self._hold.publish(hold)
        if self._phase:
            self._show()

    def finished(self, record: EpisodeRecord) -> None:
        self._records.append(record)
        self._show()

    def _show(self) -> None:
        title, done, of = TITLES.get(self._phase, self._phase), len(self._records), self._episodes
        count = f"{sum(record.success for record in self._records)} of {done} succeeded"
        control = self._graph.control
        if control is None or control.state in (ControlState.DISARMED, ControlState.FAULT):
            text = f"Next: {title}. Take the controls on the page, then arm."
        elif done and done == of:
            text = f"{title}: {count}. The learner works through the last steps."
        else:
            number = f"Episode {done + 1} of {of}" if of else f"Episode {done + 1}"
            text = f"{title}. {GUIDES[self._mode]} {number}, {count}."
        self._publish(text)

    def tell(self, text: str) -> None:
        """Show a text on the page for the rest of the run."""
        self._phase = ""
        self._publish(text)

    def _publish(self, text: str) -> None:
        if text != self.task:
            self.task = text
            self._guide.publish(String(data=text))
