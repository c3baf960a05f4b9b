# SPDX-License-Identifier: Apache-2.0
"""How quickly the arm follows the page, and what the operator console costs.

    python benchmarks/bench_console.py                # 100 presses, 20 s of each load
    python benchmarks/bench_console.py --presses 20   # shorter

The simulated arm of config/sim_person in real time, with two raw cameras of 320x240 at 10 Hz and a
learner that trains as hard as it can. A headless Chromium is the operator's page: keys are pressed,
and each time is taken from the page's own key event to the first command that moves the arm (both
by the system's clock of this machine). The CPU share is that of the console's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import yaml
from ament_index_python.packages import get_package_share_directory
from geometry_msgs.msg import TwistStamped
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from rlif_bringup.demo import PERSON, free_port
from rlif_bringup.graph_client import GraphClient
from rlif_bringup.processes import Interrupt
from rlif_bringup.progress import Progress
from rlif_bringup.simulation import reserve_domain, simulation

RESULTS = Path(__file__).with_name("results") / "console.json"
LIMITS = {
    "input_to_command_ms_p99": 60.0,
    "cpu_percent_two_cameras": 25.0,
}
WATCHERS = 10
CAMERAS = ["camera/wrist", "camera/fixed"]
NOTE_PRESSES = """
window.presses = [];
addEventListener("keydown", (e) => e.repeat || window.presses.push(performance.timeOrigin + e.timeStamp), true);
"""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def console_pid(domain: int) -> int:
    """Of the console in a DDS domain."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            here = f"ROS_DOMAIN_ID={domain}".encode() in path.with_name(
                "environ"
            ).read_bytes().split(b"\0")
        except OSError:
            continue
        if here and any(word.endswith(b"rlif_console/console") for word in words):
            return int(path.parent.name)
    raise RuntimeError(f"no console is in DDS domain {domain}")


class Arm:
    """The commands that reach the arm."""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph
        self.moved: float | None = None  # time of the first command that is not zero
        graph.node.create_subscription(
            TwistStamped, "servo_node/delta_twist_cmds", self._on_command, 10
        )

    def _on_command(self, m: TwistStamped) -> None:
        v = m.twist.linear
        if any((v.x, v.y, v.z)):
            self.moved = self.moved or time.time()

    def wait(self, moving: bool, seconds: float = 3.0) -> bool:
        """Until the arm moves, or until it has stood for a fifth of a second."""
        end = time.monotonic() + seconds
        if moving:
            while self.moved is None and time.monotonic() < end:
                self._graph.turn()
            return self.moved is not None
        quiet = time.monotonic()
        while time.monotonic() - quiet < 0.2 and time.monotonic() < end:
            self.moved = None
            self._graph.turn()
            if self.moved is not None:
                quiet = time.monotonic()
        self.moved = None
        return True


def press(page: Page, arm: Arm, count: int) -> list[float]:
    """ms from each key event of the page to the arm's first motion; infinite: none within 3 s."""
    found = []
    for number in range(count):
        key = ("KeyE", "KeyQ", "KeyA", "KeyD")[number % 4]
        arm.wait(moving=False)
        page.keyboard.down(key)
        moved = arm.wait(moving=True)
        at = page.evaluate("presses.at(-1)")
        found.append(1e3 * arm.moved - at if moved and arm.moved else float("inf"))
        page.keyboard.up(key)
    return found


async def watch(port: int, seconds: float, watchers: int) -> list[float]:
    """Ages in ms of the pictures that reach so many pages, of when they were received, plus half of the way."""
    base, ages = f"http://127.0.0.1:{port}", []

    async def one(client: aiohttp.ClientSession) -> None:
        async def hello(path: str) -> Any:
            socket = await client.ws_connect(base + path, headers={"Origin": base})
            await socket.send_json({"type": "hello", "token": ""})
            return socket

        states, pictures = await hello("/ws"), await hello("/pictures")
        reading = asyncio.create_task(_drain(states))
        await pictures.send_json({"type": "look", "names": CAMERAS})
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await pictures.send_json({"type": "ack"})
            message = await pictures.receive(timeout=10.0)
            if message.type is aiohttp.WSMsgType.BINARY:
                ages.append(1e3 * struct.unpack_from("<HfI", message.data)[1])
        reading.cancel()

    async with aiohttp.ClientSession() as client:
        await asyncio.gather(*(one(client) for _ in range(watchers)))
    return ages


async def _drain(socket: Any) -> None:
    async for _ in socket:
        pass


def loaded(pid: int, port: int, seconds: float, watchers: int) -> tuple[float, list[float]]:
    """CPU share of the console in percent of a core, and ages of pictures, with so many watchers."""
    began, used = time.monotonic(), cpu_seconds(pid)
    ages = asyncio.run(watch(port, seconds, watchers)) if watchers else []
    if not watchers:
        time.sleep(seconds)
    return 100.0 * (cpu_seconds(pid) - used) / (time.monotonic() - began), ages


def hard_learning(directory: Path) -> Path:
    """The installed configurations, with a learner that does updates as fast as it can."""
    shutil.copytree(Path(get_package_share_directory("rlif_bringup")) / "config", directory)
    path = directory / "sim_person" / "robot.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["/**"]["ros__parameters"]["updates_per_step"] = 0.0
    path.write_text(json.dumps(content), encoding="utf-8")  # a bare y would be a truth value
    return directory


def measure(presses: int, seconds: float) -> dict[str, Any]:
    """All figures, on a graph of its own."""
    port, chromium = free_port(), shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed: make test-browser")
    with (
        tempfile.TemporaryDirectory() as directory,
        reserve_domain() as domain,
        Interrupt() as interrupt,
    ):
        values = {**PERSON, "config_directory": hard_learning(Path(directory) / "config"),
                  "learner_prefix": "chrt --idle 0", "console_port": port, "auto_start": True, "pace": False,
                  "run_directory": f"{directory}/run", "robot": "sim_person"}  # fmt: skip
        progress = Progress("bench-console")
        with simulation(values, Path(directory), progress, domain.id, interrupt) as graph:
            graph.parameters("console", 180.0)
            graph.set_parameters("episode", max_steps=100_000, control_lost_timeout=3600.0)
            graph.wait(lambda: graph.learner, "the learner", 180.0)
            arm = Arm(graph)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                page = browser.new_page()
                page.add_init_script(NOTE_PRESSES)
                page.goto(f"http://127.0.0.1:{port}/")
                page.click("#lease")
                page.wait_for_selector("#drive:has-text('Hold a key')", timeout=60_000)
                page.click("#arm")
                graph.wait(lambda: graph.episode.phase == graph.episode.RUNNING, "an episode", 60.0)
                delays = press(page, arm, presses)
                with_page, _ = loaded(console_pid(domain.id), port, seconds, 0)
                browser.close()
            with_watchers, ages = loaded(console_pid(domain.id), port, seconds, WATCHERS)
            steps = graph.learner.critic_steps_per_s if graph.learner else 0.0
    return {
        "input_to_command_ms_p50": round(float(np.percentile(delays, 50)), 1),
        "input_to_command_ms_p95": round(float(np.percentile(delays, 95)), 1),
        "input_to_command_ms_p99": round(float(np.percentile(delays, 99)), 1),
        "presses": presses,
        "cpu_percent_two_cameras": round(with_page, 1),
        "cpu_percent_ten_watchers": round(with_watchers, 1),
        "picture_age_ms_p50": round(float(np.percentile(ages, 50)), 1),
        "picture_age_ms_p99": round(float(np.percentile(ages, 99)), 1),
        "pictures_per_s_and_watcher": round(len(ages) / seconds / WATCHERS, 1),
        "learner_critic_steps_per_s": round(float(steps), 1),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the operator console.")
    parser.add_argument("--presses", type=int, default=100, help="of keys (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load (%(default)s)")
    arguments = parser.parse_args()
    found = measure(arguments.presses, arguments.seconds)
    table = Table("figure", "found", "to reach")
    for name, value in found.items():
        table.add_row(name, str(value), f"at most {LIMITS[name]}" if name in LIMITS else "")
    Console().print(table)
    if arguments.presses >= 100:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
