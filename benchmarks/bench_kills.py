# SPDX-License-Identifier: Apache-2.0
"""What a killed process does to those that publish to it, with shared memory and without.

make bench-kills                         60 kills with each, 12 minutes
make bench-kills ARGS="--kills 200 --only shm"

Four processes publish at 100 Hz and hear each other, as arbiter, watchdog, adapter and recorder do. A
fifth one, which publishes on six topics and hears them, is started and killed (SIGKILL) again and again.
Counted are kills after which one of the four was in `publish`, or did not tick, for 0.5 s and more, and
processes that never came back. Results: benchmarks/results/kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_demo import machine
from rclpy.node import Node
from rlif_node.qos import RELIABLE
from rlif_node.running import run
from std_msgs.msg import Float64MultiArray

RESULTS = Path(__file__).with_name("results") / "kills.json"
KEEPERS, TOPICS = 4, 6
PERIOD, LONG = 0.01, 0.5  # s
DISCOVERY, REST = 3.0, 2.5  # s before and after each kill
TRANSPORTS = {"shm": True, "udp": False}


class Keeper(Node):
    """Ticks and publishes at 100 Hz; writes down when and for how long it did not."""

    def __init__(self, number: int, log: Path) -> None:
        super().__init__(f"keeper_{number}")
        self._log = log
        self._last = time.monotonic()
        self._own = self.create_publisher(Float64MultiArray, f"keeper_{number}", RELIABLE)
        others = [f"keeper_{n}" for n in range(KEEPERS) if n != number]
        for topic in [*others, *(f"victim_{n}" for n in range(TOPICS))]:
            self.create_subscription(Float64MultiArray, topic, lambda _: None, RELIABLE)
        self.create_timer(PERIOD, self._tick)

    def _tick(self) -> None:
        start = time.monotonic()
        self._own.publish(Float64MultiArray(data=[start] * 20))
        silent = max(start - self._last, time.monotonic() - start)
        self._last = start
        if silent >= LONG:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{start} {silent}\n")


class Victim(Node):
    """What is killed."""

    def __init__(self) -> None:
        super().__init__("victim")
        own = [
            self.create_publisher(Float64MultiArray, f"victim_{n}", RELIABLE) for n in range(TOPICS)
        ]
        for number in range(KEEPERS):
            self.create_subscription(
                Float64MultiArray, f"keeper_{number}", lambda _: None, RELIABLE
            )
        message = Float64MultiArray(data=[0.0] * 20)
        self.create_timer(PERIOD, lambda: [p.publish(message) for p in own])


def measure(transport: str, kills: int) -> dict[str, Any]:
    """All kills with one transport."""
    folder = Path(tempfile.mkdtemp(prefix="rlif_bench_kills_"))

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, "--as", *words, "--only", transport])

    keepers = [start(str(n), str(folder / f"{n}.txt")) for n in range(KEEPERS)]
    times = []
    try:
        for number in range(kills):
            victim = start("victim")
            time.sleep(DISCOVERY + random.random() * PERIOD)
            times.append(time.monotonic())
            victim.kill()
            victim.wait()
            time.sleep(REST)
            print(f"{transport}: {number + 1} of {kills} kills", end="\r", flush=True)
    finally:
        for keeper in keepers:
            keeper.send_signal(signal.SIGTERM)
        hung = sum(not _ended(keeper) for keeper in keepers)
    lines = [
        line.split() for path in folder.glob("*.txt") for line in path.read_text().splitlines()
    ]
    worst = [
        max((float(gap) for at, gap in lines if -LONG < float(at) - t < DISCOVERY), default=0.0)
        for t in times
    ]
    row = {
        "kills": kills, "kills_with_silence": sum(gap >= LONG for gap in worst),
        "longest_silence_s": round(max(worst), 2), "hung_processes": hung,
    }  # fmt: skip
    print(f"{transport}: {row}")
    return row


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return True


def main() -> int:
    """Measure, and put the rows into the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=60, help="with each (%(default)s)")
    parser.add_argument("--only", choices=TRANSPORTS)
    parser.add_argument("--as", dest="role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        del sys.argv[1:]  # `run` reads them as ROS arguments
        role, *log = arguments.role
        shared = TRANSPORTS[arguments.only]
        if role == "victim":
            return run("victim", Victim, shared_memory=shared)
        return run("keeper", lambda: Keeper(int(role), Path(log[0])), shared_memory=shared)
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(100, 200)))
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    content["machine"] = machine()
    for transport in [arguments.only] if arguments.only else TRANSPORTS:
        content[transport] = measure(transport, arguments.kills)
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"results in {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
