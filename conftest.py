# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every test: a DDS domain of its own, processes that end, waiting on conditions."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from waiting import scaled, wait_until

from rlif_bringup.simulation import reserve_domain
from rlif_policy.processor import torch_environment

pytest_plugins = ["run_report"]

# Before anything imports rclpy: tests talk on this host only, each worker of pytest-xdist in a
# domain of its own, which no other run takes while this process lives.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
_DOMAIN = reserve_domain()
os.environ["ROS_DOMAIN_ID"] = str(_DOMAIN.id)
for _name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ.pop(_name, None)  # 16 MiB for each node of each test would cost time
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(torch_environment())  # of RLIF_CPU_LEVEL, before anything imports torch


def pytest_unconfigure() -> None:
    _DOMAIN.close()


@pytest.fixture
def ros_node() -> Iterator[object]:
    """A node of the test's own, in a context of its own."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("test", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


@pytest.fixture
def spin_until(ros_node: object) -> Callable[..., None]:
    """`spin_until(condition, what, deadline=20.0)`: spin the test's node until it holds."""

    def wait(condition: Callable[[], object], what: str, deadline: float = 20.0) -> None:
        spin_once = ros_node.executor.spin_once  # type: ignore[attr-defined]
        wait_until(condition, what, deadline, lambda: spin_once(timeout_sec=0.02))

    return wait


@pytest.fixture
def start_node() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_node("rlif_sim", "robot", seed=3)`: a node as a process, stopped with the test.

    `files=[…]` are parameter files, `remap={old: new}` moves topics.
    """
    from ament_index_python.packages import get_package_prefix

    started: list[subprocess.Popen[str]] = []

    def start(
        package: str,
        executable: str,
        files: Sequence[object] = (),
        remap: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> subprocess.Popen[str]:
        command = [f"{get_package_prefix(package)}/lib/{package}/{executable}", "--ros-args"]
        for file in files:
            command += ["--params-file", str(file)]
        for old, new in (remap or {}).items():
            command += ["-r", f"{old}:={new}"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in started:
            try:
                process.communicate(timeout=scaled(10))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
