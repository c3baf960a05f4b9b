# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: limits of the run, marks, and what the closing lines say of skips and reruns."""

from __future__ import annotations

import importlib
import re
import signal
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from waiting import scaled

# A wait of a `ros` test for another process that ran out is tried once more, and named at the end
# of the run; every other failure counts at once. The other tests have no such mark: with it each one
# waits 40 ms for answers between the workers.
ONCE_MORE = {"reruns": 1, "only_rerun": ["in vain", "waited", "waiting for"]}
FAST = "not ros and not slow"
WHOLE = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.(ros|slow)\b", re.MULTILINE)
KERNEL = "rlif_learner/engines/critic_kernel.py"
MARKERS = {
    "ros": "nodes, topics or services over DDS; left out by `make test-fast`",
    "slow": "starts processes, compiles, or takes more than about two seconds; left out likewise",
}


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and children inherit
    # that: the processes under test could not be interrupted.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # An example that a loaded machine takes long for is no failure.
    hypothesis.settings.register_profile("rlif", deadline=None)
    hypothesis.settings.load_profile("rlif")
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    if config.getoption("timeout", None) is None:
        config.option.timeout = scaled(float(config.getini("timeout") or 0.0)) or None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that is marked as a whole is not imported by `make test-fast`, which leaves it out."""
    if config.getoption("markexpr", "") != FAST or collection_path.suffix != ".py":
        return None
    marked = WHOLE.search(collection_path.read_text(encoding="utf-8"))
    return True if marked else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest files first, so that no worker is left alone with one at the end."""
    again = config.pluginmanager.hasplugin("rerunfailures")
    weight: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("timeout")
        if marker is not None and marker.args:
            item.add_marker(pytest.mark.timeout(scaled(marker.args[0])), append=False)
        if again and item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(**ONCE_MORE))
        slow = any(item.get_closest_marker(name) for name in MARKERS)
        weight[item.nodeid.partition("::")[0]] += 50 if slow else 1
    items.sort(key=lambda item: -weight[item.nodeid.partition("::")[0]])  # stable within a file


@pytest.fixture(autouse=True)
def _only_what_the_marks_say(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A test without `ros` opens no DDS participant, one without either mark starts no process."""
    marked = {name for name in MARKERS if request.node.get_closest_marker(name)}
    if "ros" not in marked:
        _refuse(monkeypatch, "rclpy", "init", "ros")
    if not marked:
        _refuse(monkeypatch, "subprocess", "Popen.__init__", "slow")
    yield


def _refuse(monkeypatch: pytest.MonkeyPatch, module: str, name: str, mark: str) -> None:
    target = f"{module}.{name}"
    *owners, attribute = name.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, attribute)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        # A library may ask the system something while it is imported, as torch does; and whatever
        # test comes first in a new clone compiles the critics, once, into the cache.
        callers = [frame.filename for frame in traceback.extract_stack()]
        if any(name.startswith("<frozen importlib") or name.endswith(KERNEL) for name in callers):
            return original(*args, **kwargs)
        pytest.fail(f"this test calls {target}: mark it with pytest.mark.{mark}")

    monkeypatch.setattr(owner, attribute, refuse)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not run on this machine and why, and which tests had to be tried again."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if reasons:
        terminalreporter.section("not run on this machine")
        for reason, tests in sorted(reasons.items()):
            names = sorted({re.sub(r"\[.*", "", test.rpartition("::")[2]) for test in tests})
            terminalreporter.line(f"{len(tests)} x {reason} ({', '.join(names)})")
    if again := terminalreporter.stats.get("rerun", []):
        terminalreporter.section("WARNING: tried again after a wait that ran out", red=True)
        for report in again:
            terminalreporter.line(report.nodeid)
