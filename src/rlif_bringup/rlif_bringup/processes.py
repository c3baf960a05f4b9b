# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a launch file, looks after them, and ends them without a remainder.

Each process leads a group of its own, so that a Ctrl-C in the terminal reaches only the caller, who
passes it on in order, and so that what a process has started ends with it. A caller that is killed
can pass nothing on: then Linux sends SIGTERM.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import yaml

from rlif_bringup.launch_file import Process

Output = Callable[[str, str], None]
_POLL = 0.05  # s between looks at processes that are to end
_LAST_OUTPUT = 2.0  # s for the last lines of a process that has ended


@dataclasses.dataclass(frozen=True)
class Exit:
    """A process has ended by itself."""

    process: Process
    code: int

    @property
    def expected(self) -> bool:
        """Ended as one that was not required and has nothing to complain about."""
        return self.code == 0 and not self.process.required

    def __str__(self) -> str:
        if self.code < 0:
            try:
                how = f"was killed by {signal.Signals(-self.code).name}"
            except ValueError:
                how = f"was killed by signal {-self.code}"
        else:
            how = f"ended with exit code {self.code}"
        return f"{self.process.name} {how}"


@functools.cache
def _end_with_caller() -> tuple[str, ...]:
    """Words before a command so that Linux ends it when the caller is killed with SIGKILL.

    By a program and not in the child itself: Python between fork and exec may block for good where
    there are threads. It becomes the command, so that process id and signals stay the same.
    """
    program = shutil.which("setpriv")  # of util-linux
    if program is None:
        return ()
    words = (program, "--pdeathsig", "SIGTERM")
    known = subprocess.run([*words, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return words if known else ()


class _Running:
    """One started process and the thread that reads its output."""

    def __init__(self, process: Process, extra: Sequence[str], output: Output) -> None:
        self.process = process
        self._code: int | None = None
        self.error: OSError | None = None
        self.popen = subprocess.Popen(
            [*_end_with_caller(), *process.command, *extra],
            env=dict(process.environment),
            cwd=process.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = threading.Thread(
            target=self._read, args=(output,), name=f"output of {process.name}", daemon=True
        )
        self.reader.start()

    def _read(self, output: Output) -> None:
        """Pass lines on. Where no reader is left, go on reading: a full pipe blocks."""
        assert self.popen.stdout is not None
        with self.popen.stdout as stream:
            for line in stream:
                if self.error is None:
                    try:
                        output(self.process.name, line.decode(errors="replace").rstrip("\r\n"))
                    except OSError as error:
                        self.error = error  # raised by Processes.ended, in the caller's thread

    def signal(self, number: int) -> None:
        """Send to the whole group; a group that is gone already is what was wanted."""
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def code(self) -> int | None:
        """Exit code, None while it runs. What it has started and left behind is killed."""
        if self._code is None:
            self._code = self.popen.poll()
            if self._code is not None:
                self.signal(signal.SIGKILL)
        return self._code


class Processes:
    """The processes of a launch, as a context manager: none of them is left when it is closed.

    Args:
        processes: what to start, in order.
        output: called with (name, line) for every line, from several threads, one at a time.
    """

    def __init__(self, processes: Sequence[Process], output: Output) -> None:
        self._processes = tuple(processes)
        self._output = output
        self._lock = threading.Lock()
        self._running: list[_Running] = []
        self._reported: set[int] = set()
        self._directory = tempfile.TemporaryDirectory(prefix="rlif_launch_")

    def __enter__(self) -> Processes:
        try:
            for process in self._processes:
                self._running.append(_Running(process, self._parameters(process), self._line))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _line(self, name: str, line: str) -> None:
        with self._lock:
            self._output(name, line)

    def _parameters(self, process: Process) -> list[str]:
        """A parameter file for the node alone, as ROS 2's launch writes it."""
        if not process.parameters:
            return []
        path = Path(self._directory.name) / f"{len(self._running)}_{process.name}.yaml"
        values = {process.node: {"ros__parameters": dict(process.parameters)}}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return ["--params-file", str(path)]

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        return {r.process.name: r.popen.pid for r in self._running if r.code() is None}

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far by each process that runs, by name."""
        ticks = os.sysconf("SC_CLK_TCK")
        used = {}
        for name, pid in self.pids.items():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue  # ended meanwhile
            user, system = stat.rpartition(")")[2].split()[11:13]  # fields 14 and 15, see proc(5)
            used[name] = (int(user) + int(system)) / ticks
        return used

    def ended(self) -> list[Exit]:
        """Processes that have ended by themselves since the last call.

        Raises:
            OSError: their output could not be written, as to a pipe that was closed.
        """
        exits = []
        for running in self._running:
            if running.error is not None:
                raise running.error
            code = running.code()
            if code is not None and running.popen.pid not in self._reported:
                self._reported.add(running.popen.pid)
                exits.append(Exit(running.process, code))
        return exits

    def stop(self) -> list[str]:
        """Interrupt all, then SIGTERM, then SIGKILL, each after its time-out.

        Returns:
            What had to be forced, a line each.
        """
        forced: list[str] = []
        alive = [running for running in self._running if running.code() is None]
        for running in alive:
            running.signal(signal.SIGINT)
        start = time.monotonic()
        terminated: set[int] = set()
        while alive:
            waited = time.monotonic() - start
            for running in alive:
                process, pid = running.process, running.popen.pid
                if waited > process.sigterm_timeout + process.sigkill_timeout:
                    forced.append(f"{process.name} ended only by SIGKILL")
                    running.signal(signal.SIGKILL)
                    running.popen.wait()
                elif waited > process.sigterm_timeout and pid not in terminated:
                    terminated.add(pid)
                    forced.append(f"{process.name} did not end within {process.sigterm_timeout} s")
                    running.signal(signal.SIGTERM)
            # An interval between looks; the loop ends when the last process has.
            threading.Event().wait(_POLL)
            alive = [running for running in alive if running.code() is None]
        for running in self._running:
            running.reader.join(_LAST_OUTPUT)
        self._running.clear()
        self._directory.cleanup()
        return forced


class Interrupt:
    """Turns SIGINT, SIGTERM and SIGHUP into something that can be waited for.

    Used as a context manager in the main thread; the old handlers come back at the end. A second
    signal is passed on like the first one; the time-outs of the processes decide when it is forced.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.number: int | None = None

    def __enter__(self) -> Interrupt:
        self._old = {n: signal.signal(n, lambda n, _: self._received.put(n)) for n in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Wait for a signal; True when one has come, now or before."""
        if self.number is None:
            try:
                self.number = self._received.get(timeout=seconds)
            except queue.Empty:
                return False
        return True


def run(processes: Sequence[Process], output: Output, say: Callable[[str], None]) -> int:
    """Run until a required process ends, all have ended, or a signal comes. For the main thread.

    Returns:
        Exit code: 0 after an interrupt or when all ended well, 1 otherwise.
    """
    failed = False
    with Interrupt() as interrupt, Processes(processes, output) as running:
        while True:
            if interrupt.wait(_POLL):
                say("stopping")
                break
            exits = running.ended()
            for exit_ in exits:
                failed |= exit_.code != 0 or exit_.process.required
                say(str(exit_))
            required = [exit_ for exit_ in exits if exit_.process.required]
            if required:
                say(f"{required[0].process.name} is required: stopping the rest")
                break
            if not running.pids:
                break
        for line in running.stop():
            say(line)
    return int(failed)
