# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it goes: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

_LINE_PERIOD = 10.0  # s of wall time between plain lines


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Where a run stands. Shares and rates are over the last episodes; None: not known yet."""

    phase: str
    phase_number: int
    phases: int
    episode: int
    control_source: str
    operator_share: float | None
    interventions: float | None
    success: float | None
    env_steps: int
    env_steps_goal: int
    critic_steps_per_s: float
    updates: int
    elapsed: float
    left: float | None
    note: str = ""
    episodes: int = 0  # of this phase, ended
    episodes_goal: int = 0  # 0: steps decide
    task: str = ""  # what a person should do now

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line."""
        return [
            ("phase", f"{self.phase}  ({self.phase_number} of {self.phases})"),
            ("episode", str(self.episode)),
            ("control source", self.control_source),
            ("operator's share of steps", _percent(self.operator_share)),
            ("take-overs per episode", _number(self.interventions)),
            ("success, last 20 episodes", _percent(self.success)),
            ("done", self._done()),
            ("gradient steps per second", f"{self.critic_steps_per_s:,.0f}"),
            ("updates", f"{self.updates:,}"),
            ("time", f"{clock(self.elapsed)}, {self._left()}"),
        ]

    def line(self) -> str:
        """All of it in one line."""
        if self.task:
            return f"[{clock(self.elapsed)}] {self.task} ({self._left()})"
        return (
            f"[{clock(self.elapsed)}] {self.phase}: episode {self.episode}, "
            f"{self._done()}, success {_percent(self.success)}, "
            f"operator {_percent(self.operator_share)}, {self.critic_steps_per_s:.0f} gradient "
            f"steps/s, {self._left()}"
        )

    def _done(self) -> str:
        if self.episodes_goal:
            return f"{self.episodes} of {self.episodes_goal} episodes"
        return f"{self.env_steps:,} of {self.env_steps_goal:,} steps"

    def _left(self) -> str:
        return "time left not known yet" if self.left is None else f"about {clock(self.left)} left"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def clock(seconds: float | None) -> str:
    """Minutes and seconds."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Progress:
    """Shows snapshots; a context manager. Lines printed in between stay above the table."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console(soft_wrap=True)
        self._live = (
            Live(console=self._console, refresh_per_second=4, transient=True)
            if self._console.is_terminal
            else None
        )
        self._last_line = -_LINE_PERIOD

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def print_line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        """The newest state; plain lines come every 10 s only."""
        if self._live:
            self._live.update(self._table(snapshot))
        elif time.monotonic() - self._last_line >= _LINE_PERIOD:
            self._last_line = time.monotonic()
            self.print_line(snapshot.line())

    def _table(self, snapshot: Snapshot) -> Table:
        table = Table(title=self._title, show_header=False, min_width=60)
        table.add_column(style="bold")
        table.add_column()
        for label, value in snapshot.rows():
            style = {"OPERATOR": "yellow", "POLICY": "green"}.get(value)
            table.add_row(label, value, style=style)
        if snapshot.task:
            table.add_row("to do", snapshot.task, style="bold")
        if snapshot.note:
            table.add_row("note", snapshot.note, style="red")
        return table
