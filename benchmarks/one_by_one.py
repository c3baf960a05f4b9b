# SPDX-License-Identifier: Apache-2.0
"""Processes of launch files that are started, signalled and ended each by itself, to see one of them fail."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlif_bringup.launch_file import Process
from rlif_bringup.processes import Processes


class OneByOne:
    """`processes` by name; what one prints is appended to NAME.log in `directory`."""

    def __init__(self, processes: dict[str, Process], directory: Path) -> None:
        self.processes, self.directory = processes, directory
        self._running: dict[str, Processes] = {}

    def start(self, name: str, **parameters: Any) -> None:
        """Start one, or end it and start it again; `parameters` win over those of the launch file."""
        if name in self._running:
            self._running.pop(name).stop()
        process = self.processes[name]
        process = replace(process, parameters={**process.parameters, **parameters})
        self._running[name] = Processes([process], self.log).__enter__()

    def was_started(self, name: str) -> bool:
        """Whether it has run already, be it that it has ended."""
        return name in self._running

    def log(self, name: str, line: str) -> None:
        """The output of a process, for Processes."""
        with (self.directory / f"{name}.log").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def pid(self, name: str) -> int:
        """Process id, which is that of its group. KeyError for one that does not run."""
        return self._running[name].pids[name]

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the group of one."""
        os.killpg(self.pid(name), number)

    def stop(self) -> None:
        """End all."""
        for running in self._running.values():
            running.stop()
