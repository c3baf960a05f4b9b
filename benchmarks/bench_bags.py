# SPDX-License-Identifier: Apache-2.0
"""Whether the recorder keeps up, and how fast bags are read back to be relabelled.

    python benchmarks/bench_bags.py                # five minutes
    python benchmarks/bench_bags.py --seconds 30   # shorter

The real recorder runs as a process of its own. This one publishes two cameras of 128 x 128 pixels
at 30 Hz, five small topics at 100 Hz each, and an observation with both images and a decision at
10 Hz, of which the recorder makes Steps. Lost is what was published and is not in the bag. Then
that very bag is read: every raw message by the rosbags library alone, and by relabelling.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rich.console import Console
from rich.table import Table
from rlif_node.qos import LATCHED_10, RELIABLE, RELIABLE_100
from rlif_node.stamps import to_msg
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, JointState, Joy

from rlif_bags.relabelling.relabel import Relabelling, relabel_bag
from rlif_msgs.msg import Decision, Episode, Observation

RESULTS = Path(__file__).with_name("results") / "bags.json"
SMALL: dict[str, Any] = {
    "joint_states": JointState,
    "ee_pose": PoseStamped,
    "wrench": WrenchStamped,
    "joy": Joy,
    "command": TwistStamped,
}
CAMERAS = ("camera/wrist/image", "camera/fixed/image")
SMALL_RATE, CAMERA_RATE, CONTROL_RATE = 100.0, 30.0, 10.0  # Hz
EPISODE = 50  # steps
LEAD_IN = 2.0  # s before anything counts
LIMITS = {"messages_lost": (0.0, True), "recorder_core_share": (0.25, True),
          "relabel_to_raw_read_ratio": (0.7, False)}  # fmt: skip


def picture(rng: np.random.Generator) -> Image:
    """Noise: what no compression makes smaller."""
    pixels = rng.integers(0, 256, 128 * 128 * 3, dtype=np.uint8)
    return Image(
        height=128, width=128, encoding="rgb8", step=384, data=array.array("B", pixels.tobytes())
    )


class Robot(Node):
    """All that is recorded, at its rate; counts what it has published."""

    def __init__(self) -> None:
        super().__init__("bench_bags")
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._small = {n: self.create_publisher(t, n, RELIABLE_100) for n, t in SMALL.items()}
        self._cameras = {n: self.create_publisher(Image, n, best_effort) for n in CAMERAS}
        self._observation = self.create_publisher(Observation, "observation", RELIABLE)
        self._decision = self.create_publisher(Decision, "decision", RELIABLE_100)
        self._episode = self.create_publisher(Episode, "episode", LATCHED_10)
        self.sent: Counter[str] = Counter()
        self._messages = {n: t() for n, t in SMALL.items()}
        self._images = [picture(np.random.default_rng(i)) for i in range(2)]
        self._tick = 0

    def ready(self) -> bool:
        """Whether the recorder listens to all of it."""
        publishers = [*self._small.values(), *self._cameras.values(), self._observation]
        return all(p.get_subscription_count() for p in [*publishers, self._decision])

    def small(self) -> None:
        for name, publisher in self._small.items():
            publisher.publish(self._messages[name])
            self.sent["/" + name] += 1

    def cameras(self) -> None:
        for (name, publisher), image in zip(self._cameras.items(), self._images, strict=True):
            publisher.publish(image)
            self.sent["/" + name] += 1

    def control(self) -> None:
        """One tick of an endless row of episodes; the operator drives its steps 20 to 29."""
        self._tick += 1
        number, index = divmod(self._tick - 1, EPISODE + 1)
        stamp = to_msg(self._tick * 100_000_000)
        if index in (0, EPISODE):
            message = Episode(id=number + 1, phase=Episode.ENDED if index else Episode.RUNNING)
            message.outcome = Episode.OUTCOME_TRUNCATED if index else 0
            message.header.stamp = stamp
            self._episode.publish(message)
        observation = Observation(tick=self._tick, state=[0.5] * 20, images=self._images)
        observation.header.stamp = stamp
        self._observation.publish(observation)
        # The Step of this tick is published with the next one; that of the one before, with this.
        self.sent["/replay"] += 1
        if index < EPISODE:
            operator = 20 <= index < 30
            decision = Decision(
                tick=self._tick, episode_id=number + 1, step_index=index, onset=index == 20,
                source=Decision.OPERATOR if operator else Decision.POLICY,
                executed_action=[0.1, 0.2, 0.3],
            )  # fmt: skip
            decision.header.stamp = stamp
            self._decision.publish(decision)
            self.sent["/decision"] += 1


def start_recorder(bag: Path) -> subprocess.Popen[bytes]:
    topics = {**{n: f"{t.__module__.split('.')[0]}/msg/{t.__name__}" for n, t in SMALL.items()},
              **dict.fromkeys(CAMERAS, "sensor_msgs/msg/Image"),
              "decision": "rlif_msgs/msg/Decision"}  # fmt: skip
    program = get_package_prefix("rlif_intervention") + "/lib/rlif_intervention/recorder"
    parameters = (
        f"bag_directory:={bag}", f"topics:=[{', '.join(topics)}]",
        f"types:=[{', '.join(topics.values())}]",
    )  # fmt: skip
    return subprocess.Popen([program, "--ros-args", *(a for p in parameters for a in ("-p", p))])


def processor_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def publish(robot: Robot, seconds: float) -> None:
    """Everything at its rate; a turn that comes late is made up for."""
    turns = {robot.small: SMALL_RATE, robot.cameras: CAMERA_RATE, robot.control: CONTROL_RATE}
    done = dict.fromkeys(turns, 0)
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        for turn, rate in turns.items():
            if done[turn] < passed * rate:
                turn()
                done[turn] += 1
        due = min((count / turns[turn] for turn, count in done.items()))
        rclpy.spin_once(robot, timeout_sec=max(0.0, min(0.01, start + due - time.monotonic())))


def record(bag: Path, seconds: float) -> tuple[Counter[str], int, float]:
    """What was sent by topic, the time (ns) since when, and the recorder's share of a core.

    That a publisher sees the recorder does not mean that the recorder sees it: what a best-effort
    one sends until then goes nowhere. So everything runs for LEAD_IN s first, which do not count.
    """
    rclpy.init()
    robot = Robot()
    process = start_recorder(bag)
    try:
        end = time.monotonic() + 30.0
        while not robot.ready():
            rclpy.spin_once(robot, timeout_sec=0.05)
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("the recorder did not subscribe within 30 s")
        publish(robot, LEAD_IN)
        rclpy.spin_once(robot, timeout_sec=1.0)  # all of it arrives
        since = time.time_ns()
        robot.sent.clear()
        before, began = processor_seconds(process.pid), time.monotonic()
        publish(robot, seconds)
        share = (processor_seconds(process.pid) - before) / (time.monotonic() - began)
        rclpy.spin_once(robot, timeout_sec=1.0)
        return robot.sent, since, share
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        robot.destroy_node()
        rclpy.try_shutdown()


def counted(bag: Path, since: int = 0) -> Counter[str]:
    """Messages in the bag, by topic, logged since a time in ns."""
    with AnyReader([bag]) as reader:
        return Counter(c.topic for c, stamp, _ in reader.messages() if stamp >= since)


def seconds_of(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(seconds: float) -> dict[str, Any]:
    """All keys of benchmarks/results/bags.json."""
    with TemporaryDirectory(prefix="rlif-bench-") as temporary:
        bag = Path(temporary, "bag")
        sent, since, share = record(bag, seconds)
        found = counted(bag, since)
        lost = sent - found
        raw, labelled = [], []
        for turn in range(3):
            raw.append(seconds_of(lambda: counted(bag)))
            output = Path(temporary, f"labels{turn}")
            labelled.append(seconds_of(lambda at=output: relabel_bag(bag, at, Relabelling())))
        size = sum(f.stat().st_size for f in bag.iterdir())
    return {
        "seconds": seconds,
        "messages": sum(sent.values()),
        "messages_lost": sum(lost.values()),
        "lost_by_topic": dict(lost),
        "recorder_core_share": round(share, 4),
        "relabel_to_raw_read_ratio": round(min(raw) / min(labelled), 3),
        "mib_per_s": round(size / seconds / 2**20, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300.0, help="of recording (%(default)s)")
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    results = measure(arguments.seconds)
    table = Table("quantity", "value", "to reach", title="Bags")
    good = True
    for name, value in results.items():
        limit, at_most = LIMITS.get(name, (None, True))
        word = "" if limit is None else f"{'at most' if at_most else 'at least'} {limit:g}"
        good &= limit is None or (value <= limit if at_most else value >= limit)
        table.add_row(name, str(value), word)
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
