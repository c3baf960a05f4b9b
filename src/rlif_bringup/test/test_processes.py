# SPDX-License-Identifier: Apache-2.0
"""Starting and ending processes: signals are passed on, failures named, nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import scaled, wait_until

from rlif_bringup.launch_file import Process
from rlif_bringup.processes import Processes

pytestmark = pytest.mark.slow

DEADLINE = scaled(20.0)


def python(name: str, code: str, **more: object) -> Process:
    command = (sys.executable, "-u", "-c", textwrap.dedent(code))
    return Process(name=name, command=command, environment=os.environ, **more)  # type: ignore[arg-type]


OBEDIENT = """
    import signal, sys
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("bye")))
    print("ready")
    signal.pause()
"""
STUBBORN = """
    import signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready")
    while True: signal.pause()
"""


def wait_for(condition: Callable[[], bool]) -> None:
    wait_until(condition, "a process")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_output_carries_the_name_and_stop_interrupts() -> None:
    lines: list[tuple[str, str]] = []
    processes = Processes(
        [python("a", OBEDIENT), python("b", OBEDIENT)], lambda *line: lines.append(line)
    )
    with processes:
        wait_for(lambda: len(lines) == 2)
        assert processes.stop() == []
    assert sorted(lines) == [("a", "bye"), ("a", "ready"), ("b", "bye"), ("b", "ready")]


def test_processes_that_ignore_the_interrupt_are_killed() -> None:
    lines: list[tuple[str, str]] = []
    stubborn = python("stubborn", STUBBORN, sigterm_timeout=0.2, sigkill_timeout=0.2)
    with Processes([stubborn], lambda *line: lines.append(line)) as processes:
        wait_for(lambda: len(lines) == 1)
        pid = processes.pids["stubborn"]
        forced = processes.stop()
    assert forced[-1] == "stubborn ended only by SIGKILL"
    assert not alive(pid)


def test_processes_that_died_leave_no_children() -> None:
    lines: list[tuple[str, str]] = []
    parent = python(
        "parent",
        """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print(child.pid)
        sys.exit(3)
        """,
    )
    with Processes([parent], lambda *line: lines.append(line)) as processes:
        wait_for(lambda: bool(lines))
        child = int(lines[0][1])
        exits = []
        wait_for(lambda: bool(exits.extend(processes.ended()) or exits))
        assert str(exits[0]) == "parent ended with exit code 3"
        wait_for(lambda: not alive(child))


def test_processes_that_were_killed_are_reported_with_the_signal() -> None:
    with Processes([python("a", OBEDIENT)], lambda *_: None) as processes:
        os.kill(processes.pids["a"], signal.SIGKILL)
        exits = []
        wait_for(lambda: bool(exits.extend(processes.ended()) or exits))
        assert str(exits[0]) == "a was killed by SIGKILL"
        assert processes.ended() == [], "reported once"


def test_processes_with_parameters_write_a_file_for_the_node(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    show = python("n", "import sys; print(open(sys.argv[2]).read())")
    process = Process("n", show.command, os.environ, node="/ns/n", parameters={"rate": 10.0})
    with Processes([process], lambda *line: lines.append(line)) as processes:
        wait_for(lambda: not processes.pids)
    assert [line.strip() for _, line in lines if line] == [
        "/ns/n:",
        "ros__parameters:",
        "rate: 10.0",
    ]


def launch(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    path = tmp_path / "t.launch.yaml"
    path.write_text(textwrap.dedent(text))
    main = "import sys; from rlif_bringup.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "launch", str(path), "--interpreter", "rlif"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_processes_whose_caller_is_killed_end(tmp_path: Path) -> None:
    """Regression: `rlif demo` that was killed left its nodes running, and commanding."""
    pid_file = tmp_path / "pid"
    script = textwrap.dedent(f"""
        import os, pathlib, signal, sys
        from rlif_bringup.launch_file import Process
        from rlif_bringup.processes import Processes
        code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
        node = Process(name="a", command=(sys.executable, "-c", code), environment=os.environ)
        with Processes([node], lambda name, line: pathlib.Path({str(pid_file)!r}).write_text(line)):
            signal.pause()
    """)
    caller = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().isdecimal())
        child = int(pid_file.read_text())
        assert alive(child)
    finally:
        caller.kill()
        caller.wait()
    try:
        wait_for(lambda: not alive(child))
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_run_after_ctrl_c_ends_all_with_code_0(tmp_path: Path) -> None:
    popen = launch(
        tmp_path,
        """
        launch:
        - executable: {cmd: 'sh -c "echo $$; exec sleep 1000"', name: sleeper}
        """,
    )
    assert popen.stdout is not None
    line = popen.stdout.readline()
    assert line.startswith("[sleeper] ")
    popen.send_signal(signal.SIGINT)
    output, _ = popen.communicate(timeout=DEADLINE)
    assert popen.returncode == 0, output
    assert not alive(int(line.split()[1]))


def test_run_whose_required_process_ends_stops_all_with_code_1(tmp_path: Path) -> None:
    popen = launch(
        tmp_path,
        """
        launch:
        - executable: {cmd: 'sh -c "exec sleep 1000"', name: sleeper}
        - executable: {cmd: 'sh -c "exit 7"', name: short, on_exit: shutdown}
        """,
    )
    output, _ = popen.communicate(timeout=DEADLINE)
    assert popen.returncode == 1
    assert "short ended with exit code 7" in output
    assert "short is required: stopping the rest" in output


def test_run_whose_output_is_closed_ends_all(tmp_path: Path) -> None:
    popen = launch(
        tmp_path,
        """
        launch:
        - executable: {cmd: 'sh -c "echo $$; while true; do echo line; done"', name: talker}
        """,
    )
    assert popen.stdout is not None
    pid = int(popen.stdout.readline().split()[1])
    popen.stdout.close()
    assert popen.wait(DEADLINE) == 1
    assert not alive(pid)
