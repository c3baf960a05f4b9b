# SPDX-License-Identifier: Apache-2.0
"""One learner of several robots: Steps at 10 Hz from how many, and the demo with several arms.

make bench-fleet                                             both parts, an hour
make bench-fleet ARGS="--part replay --seconds 20"           synthetic robots alone
make bench-fleet ARGS="--part demo --arms 1 4 --steps 4000 -- lock_step:=false"
                                                             the demo alone; after --: options of it

replay: one process publishes Steps of N robots, each at 10 Hz with two images of 128 x 128, to the real
learner node, which keeps the images and makes an update for each Step. Lost is what was published and is
not in the buffer. The latency is from the stamp of a Step to the buffer, of the newest Step of each robot
once a second.

demo: `rlif demo --robots N` for each N: environment steps and seconds of training (demonstrations and
training, the trials in between left out) to the first trial with 95 % success.
"""

from __future__ import annotations

import argparse
import array
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from bench_demo import machine
from rclpy.node import Node
from rlif_node.qos import LATCHED, REPLAY
from sensor_msgs.msg import Image

from rlif_msgs.msg import LearnerStatus, Step

RESULTS = Path(__file__).with_name("results") / "fleet.json"
RATE, EPISODE = 10.0, 50  # Hz; steps
START, DRAIN = 90.0, 20.0  # s: until the learner is there; for the last Steps
GOOD = 0.95  # success of a trial
# As the simulated arm's: networks that two cores have the time for.
LEARNER = {
    "preset": "rlif", "axes": ["x", "y", "z"], "state_dim": 12, "hidden": [128, 128], "keep_images": True,
    "cameras": ["wrist", "fixed"], "capacity": 50_000, "prior_capacity": 2, "rlpd.hidden": [128, 128],
    "rlpd.ensemble_size": 5, "rlpd.utd": 1, "publish_every": 50, "longest_backlog": 60.0,
}  # fmt: skip


def names(count: int) -> list[str]:
    """Namespaces of the synthetic robots."""
    return [f"arm_{number}" for number in range(1, count + 1)]


# ---- the process of the robots


class Robots(Node):
    """Publishes the Steps of `count` robots, evenly spread over a period."""

    def __init__(self, count: int) -> None:
        super().__init__("bench_fleet_robots")
        self.sent, self._next = 0, 0
        self._publishers = [
            self.create_publisher(Step, f"/{name}/replay", REPLAY) for name in names(count)
        ]
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, 256, 128 * 128 * 3, dtype=np.uint8).tobytes() for _ in range(2)]
        self._step = Step(camera_names=["wrist", "fixed"], source=Step().source)
        self._step.images = [
            Image(height=128, width=128, encoding="rgb8", step=384, data=array.array("B", data))
            for data in pixels
        ]
        self._step.state = array.array("f", rng.normal(size=12))
        self._action = array.array("f", [0.1, 0.2, 0.3])

    def wait(self) -> None:
        """Until every publisher has the learner."""
        end = time.monotonic() + START
        while not all(p.get_subscription_count() for p in self._publishers):
            if time.monotonic() > end:
                raise TimeoutError(f"found no learner of all robots within {START:g} s")
            time.sleep(0.05)

    def publish(self) -> None:
        """The next Step of the next robot."""
        count = len(self._publishers)
        number, robot = divmod(self._next, count)
        self._next += 1
        step, index = self._step, number % (EPISODE + 1)
        step.sequence, step.episode_id, step.step_index = number, 1 + number // (EPISODE + 1), index
        step.is_first, step.is_last = index == 0, index == EPISODE
        step.outcome = 3 if step.is_last else 0
        step.source, step.onset = (0 if step.is_last else 1 + (index % 10 > 7)), index % 10 == 8
        step.executed_action = array.array("f") if step.is_last else self._action
        step.header.stamp = self.get_clock().now().to_msg()
        self._publishers[robot].publish(step)
        self.sent += 1


def run_robots(count: int, seconds: float) -> None:
    """The process: prints how many Steps it sent and how late it was at most."""
    rclpy.init()
    robots = Robots(count)
    robots.wait()
    begin, period, latest = time.monotonic(), 1.0 / (RATE * count), 0.0
    for number in range(int(seconds / period)):
        wait = begin + number * period - time.monotonic()
        latest = max(latest, -wait)
        if wait > 0:
            time.sleep(wait)
        robots.publish()
    print(json.dumps({"sent": robots.sent, "behind_s": round(latest, 3)}), flush=True)
    sys.stdin.read()  # its history is there until the learner has all
    robots.destroy_node()
    rclpy.shutdown()


# ---- the learner, and what is measured


class Watch(Node):
    """The newest learner_status, and the latencies of all."""

    def __init__(self) -> None:
        super().__init__("bench_fleet")
        self.newest: LearnerStatus | None = None
        self.latencies: list[float] = []
        self.create_subscription(LearnerStatus, "/learner/learner_status", self._on_status, LATCHED)

    def _on_status(self, message: LearnerStatus) -> None:
        self.newest = message
        self.latencies += [row.latency for row in message.robots if row.age < 0.5]

    def until(self, condition: Any, seconds: float) -> bool:
        """Whether it holds within that time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            rclpy.spin_once(self, timeout_sec=0.1)
        return True


def usage(pid: int) -> tuple[float, float]:
    """CPU time in s, and memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(count: int, seconds: float, directory: Path) -> dict[str, Any]:
    """One learner with `count` robots."""
    command = [f"{get_package_prefix('rlif_learner')}/lib/rlif_learner/learner", "--ros-args"]
    command += ["-r", "__ns:=/learner"]
    for name, value in {**LEARNER, "robots": names(count)}.items():
        command += ["-p", f"{name}:={json.dumps(value)}"]
    own = [sys.executable, __file__, "--publish", str(count), "--seconds", str(seconds)]
    watch = Watch()
    log = (directory / f"learner_{count}.log").open("w")
    learner = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    robots = subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if not watch.until(lambda: watch.newest is not None and watch.newest.steps, START):
            raise TimeoutError(f"the learner has taken no Step within {START:g} s: see {log.name}")
        watch.latencies.clear()
        (cpu, _), begin, first = usage(learner.pid), time.monotonic(), watch.newest.steps
        (cpu_robots, _) = usage(robots.pid)
        watch.until(lambda: robots.poll() is not None, seconds - 2.0)
        elapsed, (cpu_end, memory) = time.monotonic() - begin, usage(learner.pid)
        robots_cpu = (usage(robots.pid)[0] - cpu_robots) / elapsed
        during = watch.newest
        latencies = sorted(watch.latencies)
        assert robots.stdout is not None
        told = json.loads(robots.stdout.readline())
        watch.until(lambda: watch.newest.steps >= told["sent"], DRAIN)
        status = watch.newest
        return {
            "robots": count, "seconds": seconds, **told, "received": int(status.steps),
            "lost": int(told["sent"] - status.steps), "gaps": int(status.lost_steps),
            "steps_per_s": round((during.steps - first) / elapsed, 1),
            "latency_ms": {
                "median": round(1e3 * statistics.median(latencies), 1),
                "p95": round(1e3 * latencies[int(0.95 * len(latencies))], 1),
                "largest": round(1e3 * latencies[-1], 1),
            },
            "updates": int(during.updates), "backlog": int(during.backlog),
            "learner_cores": round((cpu_end - cpu) / elapsed, 2), "robots_cores": round(robots_cpu, 2),
            "memory_mb": round(memory), "message": status.message,
        }  # fmt: skip
    finally:
        robots.communicate("")
        learner.send_signal(signal.SIGINT)
        learner.wait(60.0)
        log.close()
        watch.destroy_node()


def bench_replay(counts: list[int], seconds: float) -> list[dict[str, Any]]:
    """One row for each number of robots."""
    rclpy.init()
    directory, rows = Path(tempfile.mkdtemp(prefix="rlif_bench_fleet_")), []
    for count in counts:
        rows.append(measure(count, seconds, directory))
        print(json.dumps(rows[-1]), flush=True)
    rclpy.shutdown()
    return rows


# ---- the demo


def to_good(directory: Path) -> dict[str, Any]:
    """Environment steps and seconds of training before the first good trial of a run; None: none was."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    good = [t["env_steps"] for t in summary.get("trials", []) if t["success"] >= GOOD]
    if not good:
        return {"env_steps_to_95": None, "training_s_to_95": None}
    seconds, before = 0.0, 0.0
    with (directory / "episodes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["phase"] == f"trial at {good[0]}":
                break
            if row["phase"] in ("demonstrations", "training"):
                seconds += float(row["wall_seconds"]) - before
            before = float(row["wall_seconds"])
    return {"env_steps_to_95": good[0], "training_s_to_95": round(seconds, 1)}


def bench_demo(arms: list[int], steps: int, every: int, options: list[str]) -> list[dict[str, Any]]:
    """One run of `rlif demo` for each number of arms."""
    directory, rows = Path(tempfile.mkdtemp(prefix="rlif_bench_fleet_")), []
    keys = ("policy_success", "policy_success_interval", "expert_success", "env_steps", "interventions",
            "operator_share_last20", "gradient_steps", "lost_steps", "wall_seconds", "trials")  # fmt: skip
    for count in arms:
        run = directory / f"arms_{count}"
        command = ["rlif", "demo", "--robots", str(count), "--steps", str(steps)]
        command += ["--eval-every", str(every), "--run-directory", str(run), *options]
        subprocess.run(command, check=True)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        own = {key: summary.get(key) for key in (*keys, "robots", "cpu_seconds")}
        rows.append({"arms": count, "options": options, **to_good(run), **own})
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "robots"}), flush=True)
    return rows


def merge(
    old: list[dict[str, Any]], new: list[dict[str, Any]], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The new rows, with this machine, in place of the old ones of the same `keys`."""
    measured = [{**row, "machine": machine()} for row in new]
    rows = {json.dumps([row[key] for key in keys]): row for row in (*old, *measured)}
    return sorted(rows.values(), key=lambda row: [row[key] for key in keys])


def main() -> int:
    """Run what was asked for and put it into the results, beside what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=("replay", "demo", "both"), default="both")
    parser.add_argument("--robots", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each replay (%(default)s)")
    parser.add_argument("--arms", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=8000, help="of each demo (%(default)s)")
    parser.add_argument(
        "--every", type=int, default=1000, help="steps between trials (%(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="of `rlif demo`")
    arguments = parser.parse_args()
    if arguments.publish:
        run_robots(arguments.publish, arguments.seconds)
        return 0
    content = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    if arguments.part != "demo":
        rows = bench_replay(arguments.robots, arguments.seconds)
        content["replay"] = merge(content.get("replay", []), rows, ("robots",))
    if arguments.part != "replay":
        steps, every = arguments.steps, arguments.every
        rows = bench_demo(arguments.arms, steps, every, arguments.options)
        content["demo"] = merge(content.get("demo", []), rows, ("arms", "options"))
    arguments.results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"results in {arguments.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
