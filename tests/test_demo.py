# SPDX-License-Identifier: Apache-2.0
"""`rlif demo` and `rlif evaluate` as a user runs them: what a run leaves, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from rosbags.rosbag2 import Reader
from waiting import scaled, wait_until

pytestmark = pytest.mark.slow

DOMAIN = os.environ["ROS_DOMAIN_ID"]
SHORT = ["--steps", "110", "--demonstrations", "1", "--eval-episodes", "1"]


class Demo:
    """A running `rlif demo` and what it has printed."""

    def __init__(self, directory: Path, options: list[str]) -> None:
        self.directory = directory
        command = ["rlif", "demo", "--run-directory", str(directory), "--domain-id", DOMAIN]
        self.popen = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        self.lines.extend(iter(self.popen.stdout.readline, ""))

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, condition: Callable[[], object], what: str, deadline: float) -> None:
        def holds() -> object:
            assert condition() or self.popen.poll() is None, f"ended before {what}:\n{self.text}"
            return condition()

        wait_until(holds, lambda: f"{what}:\n{self.text}", deadline)

    def end(self, deadline: float) -> int:
        wait_until(
            lambda: self.popen.poll() is not None, lambda: f"the end:\n{self.text}", deadline
        )
        self.reader.join(scaled(10.0))
        return self.popen.returncode

    def nodes(self) -> list[int]:
        """Processes whose environment says that they belong to this run."""
        mark = f"ROS_LOG_DIR={self.directory}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def summary(self) -> dict:
        return json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path / "run", list(options)))
        return started[-1]

    yield start
    for one in started:
        if one.popen.poll() is None:
            one.popen.send_signal(signal.SIGINT)
            one.end(60.0)
        for pid in one.nodes():
            os.kill(pid, signal.SIGKILL)


def check_bag(directory: Path) -> None:
    with Reader(directory / "bag") as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/rlif/replay"] > 0


def check_checkpoint(directory: Path) -> None:
    assert list(directory.glob("checkpoints/*/manifest.json")), "no checkpoint"


@pytest.mark.timeout(420)
def test_demo_to_its_end_leaves_everything_that_it_promises(demo: Callable[..., Demo]) -> None:
    run = demo(*SHORT, "--seed", "4")
    assert run.end(280.0) == 0, run.text
    summary = run.summary()
    assert summary["env_steps"] >= 110
    assert summary["policy_episodes"] == summary["expert_episodes"] == 1
    assert summary["gradient_steps"] > 0
    assert summary["seed"] == 4
    assert summary["lost_steps"] == 0
    assert summary["error"] is None
    for key in ("policy_success_interval", "expert_success_interval"):
        low, high = summary[key]
        assert 0.0 <= low <= high <= 1.0
    check_bag(run.directory)
    check_checkpoint(run.directory)
    assert (run.directory / "plot.png").is_file()
    assert list(run.directory.glob("tensorboard/**/events*"))
    robot = yaml.safe_load((run.directory / "config" / "sim_robot.yaml").read_text())
    assert robot["/**"]["ros__parameters"]["seed"] == 4, "the configuration in force"
    assert "policy alone" in run.text
    assert run.nodes() == []
    check_evaluation(run.directory)


def check_evaluation(run: Path) -> None:
    """The checkpoint is judged again, on the same boards, with its own weights."""
    directory = run.with_name("again")
    command = ["rlif", "evaluate", str(run), "--eval-episodes", "1", "--seed", "4"]
    command += ["--domain-id", DOMAIN, "--run-directory", str(directory)]
    subprocess.run(command, check=True, timeout=scaled(120.0))
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    assert summary["policy_episodes"] == 1
    assert summary["policy_version"] > 0


@pytest.mark.timeout(420)
def test_demo_of_two_robots_trains_one_policy_and_keeps_each_ones_records(
    demo: Callable[..., Demo],
) -> None:
    run = demo(*SHORT, "--robots", "2", "--eval-every", "60", "--trials", "2")
    assert run.end(280.0) == 0, run.text
    summary = run.summary()
    assert summary["lost_steps"] == 0 and summary["error"] is None
    assert summary["policy_episodes"] == 2, "at least one each"
    robots = summary["robots"]
    assert sum(robot["env_steps"] for robot in robots.values()) == summary["env_steps"] >= 110
    assert [trial["env_steps"] for trial in summary["trials"]] == [0, 60]
    for name in ("arm_1", "arm_2"):
        assert robots[name]["env_steps"] > 0
        with Reader(run.directory / name / "bag") as reader:
            topics = {connection.topic for connection in reader.connections}
        assert f"/{name}/replay" in topics
        assert not any(topic.startswith("/arm_") and f"/{name}/" not in topic for topic in topics)
    check_checkpoint(run.directory)
    assert run.nodes() == []
    check_evaluation(run.directory)


@pytest.mark.timeout(180)
def test_demo_after_ctrl_c_leaves_a_bag_a_checkpoint_a_summary_and_no_process(
    demo: Callable[..., Demo],
) -> None:
    run = demo("--steps", "5000", "--demonstrations", "1")
    run.wait_for(lambda: "demonstrations: 1 episodes" in run.text, "the training", 120.0)
    run.popen.send_signal(signal.SIGINT)
    assert run.end(60.0) == 130, run.text
    assert run.nodes() == []
    assert run.summary()["interrupted"] is True
    assert run.summary()["env_steps"] > 0
    check_bag(run.directory)
    check_checkpoint(run.directory)
