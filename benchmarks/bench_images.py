# SPDX-License-Identifier: Apache-2.0
"""Images over Fast DDS: two 640x480 cameras at 30 Hz to the observer at 10 Hz, with and without the profile.

    python benchmarks/bench_images.py                # a minute each
    python benchmarks/bench_images.py --seconds 600  # without the profile still a minute

The cameras are one process with two publishers of rgb8 (best effort, as drivers have it), the observer is
the real one, a learner trains as hard as it can beside them (as the launch file starts it), this process
counts the observations. `with_profile` has config/fastdds.xml in the environment
of all processes, `without_profile` has Fast DDS's default. A gap is the time between two observations.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_prefix
from bench_control import start_learner
from rich.console import Console
from rich.table import Table
from rlif_node.transports import BUILTIN, PROFILES

from rlif_bringup.simulation import reserve_domain

RESULTS = Path(__file__).with_name("results") / "images.json"
PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
CAMERAS = ("wrist", "fixed")
WIDTH, HEIGHT, CAMERA_RATE, CONTROL_RATE = 640, 480, 30.0, 10.0
LONG_GAP = 0.15  # s
START = 30.0  # s until the first observation
LIMITS = {"least_rate_hz": 9.95, "most_long_gaps": 0}  # with the profile


def publish() -> None:
    """The cameras and the pose, until this process is ended."""
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # SIGTERM just ends it
    node = rclpy.create_node("cameras")
    cameras = [
        node.create_publisher(Image, f"camera/{n}/image", qos_profile_sensor_data) for n in CAMERAS
    ]
    poses = node.create_publisher(PoseStamped, "ee_pose", 10)
    rng = np.random.default_rng(0)
    noise = array.array("B", rng.bytes(3 * WIDTH * HEIGHT))
    image = Image(width=WIDTH, height=HEIGHT, encoding="rgb8", step=3 * WIDTH)
    sent = 0

    def send_images() -> None:
        nonlocal sent
        sent += 1
        image.header.stamp = node.get_clock().now().to_msg()
        noise[0], noise[1] = sent % 256, sent // 256 % 256  # equal images would be a frozen camera
        image.data = noise
        for camera in cameras:
            camera.publish(image)

    def send_pose() -> None:
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = node.get_clock().now().to_msg(), "base"
        pose.pose.orientation.w = 1.0
        poses.publish(pose)

    node.create_timer(1.0 / CAMERA_RATE, send_images)
    node.create_timer(0.02, send_pose)
    rclpy.spin(node)


class Counter:
    """Counts observations, and the cameras' rates in the observer's diagnostics."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray

        from rlif_msgs.msg import Observation

        rclpy.init()
        self._turn, self._node = rclpy.spin_once, rclpy.create_node("bench_images")
        self._node.create_subscription(Observation, "observation", self._on_observation, 10)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.forget()

    def forget(self) -> None:
        self.times: list[float] = []
        self.ticks: list[int] = []
        self.rates: dict[str, list[float]] = {name: [] for name in CAMERAS}

    def _on_observation(self, message: Any) -> None:
        self.times.append(time.monotonic())
        self.ticks.append(message.tick)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            for name in CAMERAS:
                if f"camera/{name}" in status.name:
                    values = (float(v.value) for v in status.values if v.key == "rate_hz")
                    self.rates[name].extend(values)

    def spin(self, seconds: float, observations: float = float("inf")) -> None:
        end = time.monotonic() + seconds
        while len(self.times) < observations and time.monotonic() < end:
            self._turn(self._node, timeout_sec=0.1)


def observer_command() -> list[str]:
    command = [f"{get_package_prefix('rlif_policy')}/lib/rlif_policy/observer", "--ros-args"]
    values = {"images": "true", "cameras": f"[{','.join(CAMERAS)}]", "control_rate": CONTROL_RATE}
    values |= {"image_width": 64, "image_height": 64}
    for name in CAMERAS:
        values |= {f"camera.{name}.width": WIDTH, f"camera.{name}.height": HEIGHT}
    return command + [word for k, v in values.items() for word in ("-p", f"{k}:={v}")]


def measure(seconds: float) -> dict[str, Any]:
    """Counts observations; in the environment that this process was started with."""
    cameras = subprocess.Popen([sys.executable, __file__, "--publish"])
    observer, learner = subprocess.Popen(observer_command()), start_learner()
    try:
        counter = Counter()
        counter.spin(START, CONTROL_RATE)
        if not counter.times:
            raise SystemExit(f"no observation within {START:.0f} s: see the observer's log above")
        counter.forget()
        before = _processor_time(observer.pid)
        counter.spin(seconds)
        used = _processor_time(observer.pid) - before
    finally:
        for process in (observer, cameras, learner):
            process.terminate()
            process.wait(timeout=20)
    gaps, ticks = np.diff(counter.times), counter.ticks
    return {
        "observations": len(ticks),
        "rate_hz": round(float(1.0 / gaps.mean()), 2),
        "missing": ticks[-1] - ticks[0] + 1 - len(ticks),
        "gaps_above_150_ms": int((gaps > LONG_GAP).sum()),
        "longest_gap_ms": round(float(gaps.max()) * 1e3),
        "camera_hz": {n: round(float(np.mean(found)), 1) for n, found in counter.rates.items()},
        "observer_cpu_percent": round(100.0 * used / seconds, 1),
    }


def _processor_time(pid: int) -> float:
    """s, of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(seconds: float, profile: Mapping[str, str], domain: int) -> dict[str, Any]:
    """`measure` in a process of its own: a profile is read once."""
    environment = {k: v for k, v in os.environ.items() if k not in PROFILES}
    environment |= {"ROS_DOMAIN_ID": str(domain), **profile}
    environment.pop(BUILTIN, None)
    command = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(found.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each (%(default)s)")
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish()
        return 0
    if arguments.measure:
        print(json.dumps(measure(arguments.seconds)))
        return 0
    with reserve_domain() as domain:
        results: dict[str, Any] = {
            "seconds": arguments.seconds,
            "with_profile": run(
                arguments.seconds, dict.fromkeys(PROFILES, str(PROFILE)), domain.id
            ),
            "without_profile": run(min(arguments.seconds, 60.0), {}, domain.id),
        }
    results |= {"learner_at_full_load": True, "load_average": round(os.getloadavg()[0], 1)}
    table = Table("quantity", "with the profile", "without", title="Images")
    for name, value in results["with_profile"].items():
        table.add_row(name, str(value), str(results["without_profile"][name]))
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    found = results["with_profile"]
    reached = found["rate_hz"] >= LIMITS["least_rate_hz"]
    return 0 if reached and found["gaps_above_150_ms"] <= LIMITS["most_long_gaps"] else 1


if __name__ == "__main__":
    sys.exit(main())
