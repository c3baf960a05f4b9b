# SPDX-License-Identifier: Apache-2.0
"""What a killed process does to those that publish to it, with shared memory and without.

make bench-kills                         60 kills of each kind, 17 minutes
make bench-kills ARGS="--kills 200 --only shm"

Four nodes publish at 100 Hz and subscribe to each other, as arbiter, watchdog, adapter and recorder do.
A fifth one, which publishes on six topics and subscribes to the four, is started and killed (SIGKILL)
again and again. Counted are kills after which one of the four was in `publish`, or missed its ticks, for
0.5 s and more, and nodes that are still blocked at the end. shm: all use shared memory; udp: none does;
mixed: only the one that is killed. Results: benchmarks/results/kills.json.
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
PEERS, TOPICS = 4, 6
PERIOD, LONG = 0.01, 0.5  # s
DISCOVERY, REST = 3.0, 2.5  # s before and after each kill
# Whether those that stay, and the one that is killed, use shared memory.
TRANSPORTS = {"shm": (True, True), "udp": (False, False), "mixed": (False, True)}


class Peer(Node):
    """Publishes at 100 Hz; writes down when and for how long it did not."""

    def __init__(self, number: int, log: Path) -> None:
        super().__init__(f"peer_{number}")
        self._log = log
        self._last = time.monotonic()
        self._own = self.create_publisher(Float64MultiArray, f"peer_{number}", RELIABLE)
        others = [f"peer_{n}" for n in range(PEERS) if n != number]
        for topic in [*others, *(f"target_{n}" for n in range(TOPICS))]:
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


class Target(Node):
    """The node that is killed."""

    def __init__(self) -> None:
        super().__init__("target")
        own = [
            self.create_publisher(Float64MultiArray, f"target_{n}", RELIABLE) for n in range(TOPICS)
        ]
        for number in range(PEERS):
            self.create_subscription(Float64MultiArray, f"peer_{number}", lambda _: None, RELIABLE)
        message = Float64MultiArray(data=[0.0] * 20)
        self.create_timer(PERIOD, lambda: [p.publish(message) for p in own])


def measure(transport: str, kills: int) -> dict[str, Any]:
    """All kills with one transport."""
    folder = Path(tempfile.mkdtemp(prefix="rlif_bench_kills_"))

    def start(*role: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, "--as", *role, "--only", transport])

    peers = [start(str(n), str(folder / f"{n}.txt")) for n in range(PEERS)]
    times = []
    try:
        for number in range(kills):
            target = start("target")
            time.sleep(DISCOVERY + random.random() * PERIOD)
            times.append(time.monotonic())
            target.kill()
            target.wait()
            time.sleep(REST)
            print(f"{transport}: {number + 1} of {kills} kills", end="\r", flush=True)
    finally:
        for peer in peers:
            peer.send_signal(signal.SIGTERM)
        hung = sum(not _ended(peer) for peer in peers)
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
    parser.add_argument("--kills", type=int, default=60, help="of each kind (%(default)s)")
    parser.add_argument("--only", choices=TRANSPORTS)
    parser.add_argument("--as", dest="role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        del sys.argv[1:]  # `run` reads them as ROS arguments
        role, *log = arguments.role
        peer, target = TRANSPORTS[arguments.only]
        if role == "target":
            return run("target", Target, shared_memory=target)
        return run("peer", lambda: Peer(int(role), Path(log[0])), shared_memory=peer)
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
