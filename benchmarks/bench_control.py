# SPDX-License-Identifier: Apache-2.0
"""How quickly the arm hears: observation and joystick to command, while the learner trains.

    python benchmarks/bench_control.py                # ten minutes each at 10 and at 50 Hz
    python benchmarks/bench_control.py --seconds 30   # shorter; --no-load: without the learner

The real arbiter and the real policy run as processes of their own, a learner trains as hard as it
can beside them (on all cores, with the prefix of launch/robot.launch.yaml). This process plays
observer and joystick: 10 observations per second with two images of 128x128, then 50 without. A
command is matched to what caused it by its value: each policy action and each joystick deflection
is another one. Times are taken where a message is published, by the sender's clock. What no command
answered counts as infinitely late; a third of a second around each change of who drives is left out.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rich.console import Console
from rich.table import Table
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE
from rlif_node.running import make_executor
from rlif_node.stamps import to_msg
from sensor_msgs.msg import Image, Joy
from std_srvs.srv import SetBool

from rlif_msgs.msg import ControlState, Episode, Observation, ObservationTick, PolicyAction

RESULTS = Path(__file__).with_name("results") / "control.json"
SCALE = 0.1  # m/s, the arbiter's linear_scale
JOY_RATE = 50.0  # Hz
COMMAND_RATE = 100.0  # Hz, the arbiter's default
PHASE = 5.0  # s; policy and operator drive in turn
GUARD = 0.33  # s around a change of who drives, in which nothing is asked
IMAGE_SIZE = 128
LIMITS = {
    "obs_to_command_ms_p50": 8.0,
    "obs_to_command_ms_p99": 25.0,
    "device_to_command_ms_p99": 25.0,
    "period_jitter_ms_p99": 5.0,
    "missed_periods_max_run": 3.0,
}
LEARNER_PREFIX = ("nice", "-n", "10")
STATE_DIM = 17
DRIVEN = (ControlState.POLICY, ControlState.OPERATOR)


@dataclass
class Trace:
    """What was sent, by its value, and what came out. Times in ns of the system's clock."""

    observed: dict[int, int] = field(default_factory=dict)  # stamp -> time
    asked: dict[int, int] = field(default_factory=dict)  # speed of a policy action -> stamp
    pushed: dict[int, int] = field(default_factory=dict)  # speed of a deflection -> time
    to_command: list[float] = field(default_factory=list)  # ms, from the observation
    from_device: list[float] = field(default_factory=list)  # ms, from the joystick
    commands: list[int] = field(default_factory=list)

    def command(self, speed: int, when: int) -> None:
        """The first command of a speed is the answer to what asked for that speed."""
        self.commands.append(when)
        if speed in self.asked:
            self.to_command.append((when - self.asked.pop(speed)) / 1e6)
        elif speed in self.pushed:
            self.from_device.append((when - self.pushed.pop(speed)) / 1e6)

    def summary(self) -> dict[str, float]:
        """Of what was asked half a second ago or earlier: the rest may still be answered."""
        late = self.commands[-1] - 5 * 10**8 if self.commands else 0
        for pending, found in ((self.asked, self.to_command), (self.pushed, self.from_device)):
            found += [float("inf") for when in pending.values() if when < late]
        unanswered = sum(map(np.isinf, self.to_command + self.from_device))
        periods = np.diff(np.array(self.commands)) / 1e6
        expected = 1e3 / COMMAND_RATE
        missed = np.maximum(np.round(periods / expected) - 1, 0)
        return {
            "obs_to_command_ms_p50": _percentile(self.to_command, 50),
            "obs_to_command_ms_p99": _percentile(self.to_command, 99),
            "device_to_command_ms_p99": _percentile(self.from_device, 99),
            "period_jitter_ms_p99": _percentile(np.abs(periods - expected), 99),
            "missed_periods_max_run": float(missed.max(initial=0)),
            "unanswered": float(unanswered),
            "observations": len(self.to_command),
            "device_messages": len(self.from_device),
            "commands": len(self.commands),
        }


def _percentile(values: Any, percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2) if len(values) else float("nan")


def _nanometres(action: float) -> int:
    """A speed as a whole number, to compare by: nm/s, coarse enough for float32."""
    return round(action * SCALE * 1e9 / 10)


class World(Node):
    """Plays observer, joystick and episode; keeps the trace."""

    def __init__(self, control_rate: float, cameras: int) -> None:
        super().__init__("bench_control")
        self._images = [picture() for _ in range(cameras)]
        self.trace = Trace()
        self._tick = 0
        self._pushes = 0
        self.counting = False
        self.state = ControlState.DISARMED
        self._observation = self.create_publisher(Observation, "observation", RELIABLE)
        self._ticks = self.create_publisher(ObservationTick, "observation_tick", RELIABLE)
        self._joy = self.create_publisher(Joy, "joy", RELIABLE)
        self._episode = self.create_publisher(Episode, "episode", LATCHED_10)
        self.arm = self.create_client(SetBool, "arm")
        self.create_subscription(ControlState, "control_state", self._on_state, LATCHED)
        self.create_subscription(PolicyAction, "policy_action", self._on_action, RELIABLE)
        self.create_subscription(TwistStamped, "command", self._on_command, 100)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / control_rate, self._observe, clock=steady)
        self.create_timer(1.0 / JOY_RATE, self._push, clock=steady)
        self._state = np.random.default_rng(0)

    def _on_state(self, m: ControlState) -> None:
        self.state = m.state
        if self.counting and m.state not in DRIVEN:
            self.get_logger().warning(f"the arbiter drives nobody: {m.reason}")

    def begin(self) -> None:
        message = Episode(id=1, phase=Episode.RUNNING)
        message.header.stamp = self.get_clock().now().to_msg()
        self._episode.publish(message)

    def _observe(self) -> None:
        self._tick += 1
        message = Observation(tick=self._tick, images=self._images)
        message.state = self._state.normal(size=STATE_DIM).astype(np.float32).tolist()
        now = time.time_ns()
        message.header.stamp = to_msg(now)
        self._ticks.publish(ObservationTick(header=message.header, tick=message.tick))
        self._observation.publish(message)

    def _on_action(self, m: PolicyAction) -> None:
        if self.counting and self._driver() == "policy":
            stamp = m.header.stamp
            self.trace.asked[_nanometres(m.action[0])] = stamp.sec * 10**9 + stamp.nanosec

    def _driver(self) -> str:
        """Who shall drive now; nobody shortly after and before each change."""
        phase, within = divmod(time.monotonic(), PHASE)
        if not self.counting or not GUARD < within < PHASE - GUARD:
            return ""
        return "operator" if int(phase) % 2 else "policy"

    def _push(self) -> None:
        self._pushes += 1
        deflection = float(np.float32((1 + self._pushes % 8000) * 1e-4))
        pressed = self.counting and int(time.monotonic() / PHASE) % 2 == 1
        message = Joy(axes=[deflection, 0.0, 0.0, 0.0, 0.0, 0.0], buttons=[int(pressed), 0, 0, 0])
        now = time.time_ns()
        message.header.stamp = to_msg(now)
        if self._driver() == "operator":
            self.trace.pushed[_nanometres(deflection)] = now
        self._joy.publish(message)

    def _on_command(self, m: TwistStamped) -> None:
        stamp = m.header.stamp
        if self.counting:
            speed = round(m.twist.linear.x * 1e9 / 10)
            self.trace.command(speed, stamp.sec * 10**9 + stamp.nanosec)


def picture() -> Image:
    """A camera's image of noise."""
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    data = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image(
        height=IMAGE_SIZE, width=IMAGE_SIZE, encoding="rgb8", step=3 * IMAGE_SIZE,
        data=array.array("B", data.tobytes()),
    )  # fmt: skip


def start_nodes(control_rate: float) -> list[subprocess.Popen[bytes]]:
    """The arbiter and the policy as they run on a robot."""
    arbiter = {
        "control_rate": control_rate,
        "command_rate": COMMAND_RATE,
        "linear_scale": SCALE,
        "release_dwell": 0.0,
    }
    policy = {
        "state_dim": STATE_DIM,
        "hidden": "[256, 256]",
        "initial": "random",
        "initial_scale": 1.0,
    }
    return [
        _start("rlif_intervention.arbiter_node", arbiter),
        _start("rlif_policy.policy_node", policy),
    ]


def _start(module: str, parameters: dict[str, Any]) -> subprocess.Popen[bytes]:
    arguments = [a for k, v in parameters.items() for a in ("-p", f"{k}:={v}")]
    code = f"import sys; from {module} import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, "--ros-args", *arguments])


def start_learner(prefix: Sequence[str] = LEARNER_PREFIX) -> subprocess.Popen[bytes]:
    """A learner at full load, in a process of its own, as gentle as the launch file makes it."""
    command = [*prefix, sys.executable, __file__, "--train-until-stdin-closes"]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def train_until_stdin_closes() -> None:
    import threading

    from bench_learner import CONFIG, SPEC, filled_buffer

    from rlif_learner.algorithms.rlpd import RLPD
    from rlif_learner.data.sampling import Buffers
    from rlif_learner.engines.select import accelerate

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    learner, buffers = accelerate(RLPD(CONFIG, SPEC)), Buffers(filled_buffer())
    while not ended.is_set():
        learner.update(buffers)


def measure(control_rate: float, cameras: int, seconds: float, load: bool) -> dict[str, float]:
    """One run. Everything that it starts is ended by it."""
    processes = start_nodes(control_rate)
    learner = start_learner() if load else None
    executor, world = make_executor(), World(control_rate, cameras)
    executor.add_node(world)

    def spin(until: Any, limit: float, what: str) -> None:
        deadline = time.monotonic() + limit
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} took more than {limit} s")
            executor.spin_once(timeout_sec=0.05)

    try:
        spin(world.arm.service_is_ready, 60.0, "the arbiter")
        settled = time.monotonic() + 10.0  # what starts beside it must not make it stand still
        spin(lambda: time.monotonic() > settled, 60.0, "settling")
        armed = world.arm.call_async(SetBool.Request(data=True))
        spin(armed.done, 30.0, "arming")
        world.begin()
        spin(lambda: world.state in DRIVEN, 30.0, "the first command of the policy")
        world.counting = True
        end = time.monotonic() + seconds
        spin(lambda: time.monotonic() > end, seconds + 60.0, "measuring")
    finally:
        if learner is not None and learner.stdin is not None:
            learner.stdin.close()
        for process in processes:
            process.terminate()
        for process in [*processes, *([learner] if learner else [])]:
            process.wait(60)
        executor.shutdown()
        world.destroy_node()
    return world.trace.summary()


def show(results: dict[str, dict[str, float]]) -> bool:
    """The table. Returns True if every limit is kept."""
    table = Table("quantity", *results, "limit", title="Control")
    for name in next(iter(results.values())):
        limit = LIMITS.get(name)
        cells = [str(r[name]) for r in results.values()]
        table.add_row(name, *cells, "" if limit is None else f"≤ {limit:g}")
    Console().print(table)
    return all(r[name] <= limit for r in results.values() for name, limit in LIMITS.items())


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the control path under load.")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each of the two runs")
    parser.add_argument("--no-load", action="store_true", help="without a learner")
    parser.add_argument("--train-until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train_until_stdin_closes:
        train_until_stdin_closes()
        return 0
    os.environ.setdefault("ROS_DOMAIN_ID", "77")
    rclpy.init()
    load = not arguments.no_load
    results = {
        "10 Hz, 2 cameras": measure(10.0, 2, arguments.seconds, load),
        "50 Hz": measure(50.0, 0, arguments.seconds, load),
    }
    rclpy.try_shutdown()
    kept = show(results)
    first = next(iter(results.values()))
    document = {
        **{name: first[name] for name in LIMITS},
        "at_control_rate_50": results["50 Hz"],
        "command_rate": COMMAND_RATE,
        "seconds": arguments.seconds,
        "learner_at_full_load": load,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    if arguments.seconds >= 60.0 and load:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
