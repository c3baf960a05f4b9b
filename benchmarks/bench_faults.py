# SPDX-License-Identifier: Apache-2.0
"""Fault campaign: kinds of faults at random moments of a running session, seen from the robot's side.

    python benchmarks/bench_faults.py                         # every kind five times: about 25 minutes
    python benchmarks/bench_faults.py --times 1 --only policy # the kinds whose name contains "policy"

The graph of robot_sim.launch.yaml runs in real time, without cameras. Each fault happens in an
episode, at a random moment while the policy or the operator is in control, lasts for some seconds and
is taken away again; a process that was killed is started again. Measured on the robot's command topic,
on control_state and on diagnostics:

    unsafe       commands that are not finite, faster than the limit, or not zero although they must be
    stop_s       from the fault to the last command that was not zero, where the arm must stop
    lost_steps   Decisions of an episode that never arrived as Steps on `replay`
    recovery_s   from the end of the fault until an episode is driven again
    named        whether control_state or diagnostics name the cause
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from one_by_one import OneByOne
from rclpy.publisher import Publisher
from rich.console import Console
from rich.table import Table
from rlif_node.names import NAMESPACE
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.stamps import to_ns
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.launch_command import find_launch_file
from rlif_bringup.launch_file import read
from rlif_bringup.processes import Processes
from rlif_bringup.simulation import graph_environment, reserve_domain
from rlif_msgs.msg import ControlState, Decision, Episode, Heartbeat, PolicyAction, Step

RESULTS = Path(__file__).with_name("results") / "faults.json"
COMMAND = "/sim/servo_node/delta_twist_cmds"
SPEED_LIMIT = 0.12  # m/s: max_linear_speed of config/sim_real_time
GRACE = 0.03  # s by which a state may be stamped later than the first command under it
SILENT = 0.3  # s after which an arbiter is no longer there
LONG = 7.0  # s; the episode node misses recorder and watchdog after 5 s
LONGEST = 24.0  # s; and the learner, which reports between two updates, after 20 s
STOP = 0.35  # s after which a command must be zero once the arm has to stop
START, RECOVER = 120.0, 40.0  # s of wall time
FOREIGN = 0.0123  # rad/s about z: marks the commands of the publisher that is not the suite's
DRIVEN = (ControlState.POLICY, ControlState.OPERATOR)


@dataclass(frozen=True)
class Kind:
    """A fault: what does it, how long it lasts (s), what must follow.

    names: regular expression that a reason or a diagnostic must match
    stops: the arm must come to rest
    operator_may: but for the operator, who keeps control
    within: s after which it must be at rest
    settle: s after the recovery until a Step that has not come counts as lost
    """

    name: str
    cause: Callable[[Campaign], Any]
    names: str
    stops: bool = True
    operator_may: bool = False
    duration: float = 2.0
    within: float = STOP
    settle: float = 1.0


@dataclass
class Outcome:
    """What one fault led to."""

    kind: str
    unsafe: int = 0
    stop_s: float | None = None
    lost_steps: int = 0
    recovery_s: float | None = None
    named: bool = False
    reason: str = ""
    why: dict[str, int] = field(default_factory=dict)  # of the unsafe commands


@dataclass
class Seen:
    """Messages since the last fault, with their stamps (s): they may be received in another order."""

    # Time, m/s, whether it is the foreign publisher's, whether the operator was in control.
    commands: list[tuple[float, float, bool, bool]] = field(default_factory=list)
    states: list[tuple[float, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    decided: set[tuple[int, int]] = field(default_factory=set)  # (episode, step)
    stepped: set[tuple[int, int]] = field(default_factory=set)


def seconds(message: Any) -> float:
    """The stamp of a message, s."""
    return to_ns(message.header.stamp) / 1e9


class Campaign:
    """The running graph, and what is done to it."""

    def __init__(self, graph: GraphClient, nodes: OneByOne) -> None:
        self.graph, self.nodes = graph, nodes
        self.seen = Seen()
        self.state, self._operator_until = ControlState.DISARMED, -math.inf
        self._arbiter, self._beat = b"", -math.inf  # the oldest one's instance, its last heartbeat
        node = graph.node
        node.create_subscription(TwistStamped, COMMAND, self._on_command, RELIABLE)
        node.create_subscription(ControlState, "control_state", self._on_state, RELIABLE)
        node.create_subscription(Heartbeat, "arbiter_heartbeat", self._on_heartbeat, RELIABLE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        node.create_subscription(Decision, "decision", self._on_decision, RELIABLE)
        node.create_subscription(Step, "replay", self._on_step, RELIABLE)

    def _on_command(self, message: TwistStamped) -> None:
        v, w = message.twist.linear, message.twist.angular
        speed = math.sqrt(v.x**2 + v.y**2 + v.z**2)
        foreign = abs(w.z - FOREIGN) < 1e-9
        now = seconds(message)
        if self.state == ControlState.OPERATOR:
            self._operator_until = now + STOP  # the arm brakes after the operator has let go
        braking = self.state == ControlState.HOLD and now < self._operator_until
        operator = self.state == ControlState.OPERATOR or braking
        self.seen.commands.append((now, speed, foreign, operator))

    def _on_state(self, message: ControlState) -> None:
        self.seen.reasons.append(message.reason)

    def _on_heartbeat(self, message: Heartbeat) -> None:
        """The state of the oldest arbiter; that of a second one must not drive."""
        instance, now = bytes(message.instance_id), seconds(message)
        if instance > self._arbiter and now - self._beat < SILENT:
            return
        self._arbiter, self._beat, self.state = instance, now, message.state
        self.seen.states.append((now, message.state))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level != DiagnosticStatus.OK:
                self.seen.reasons.append(f"{status.name}: {status.message}")

    def _on_decision(self, message: Decision) -> None:
        if message.episode_id:
            self.seen.decided.add((message.episode_id, message.step_index))

    def _on_step(self, message: Step) -> None:
        self.seen.stepped.add((message.episode_id, message.step_index))

    def start(self, name: str) -> None:
        """Start a process of the launch file, or start it again."""
        again: dict[str, Any] = {}
        if self.nodes.was_started(name):
            # Neither writes into what another process has made.
            run = self.nodes.directory / "run"
            bag = run / f"bag_{len(list(run.glob('bag*'))) + 1}"
            again = {
                "recorder": {"bag_directory": str(bag)},
                "learner": {"resume": str(run) if any(run.glob("checkpoints/*")) else ""},
            }.get(name, {})
        self.nodes.start(name, **again)

    def until_driven(self, deadline: float) -> None:
        """Until an episode runs and is driven for half a second without a break."""
        since: float | None = None

        def driven() -> bool:
            nonlocal since
            running = self.graph.episode.phase == Episode.RUNNING and self.state in DRIVEN
            since = (since or time.monotonic()) if running else None
            return since is not None and time.monotonic() - since > 0.5

        self.graph.wait(driven, "an episode that is driven", deadline)

    # ---- causes; each is a generator: the fault before `yield`, its end after it

    def kill(self, name: str) -> Iterator[None]:
        self.nodes.signal(name, signal.SIGKILL)
        yield
        self.start(name)

    def freeze(self, name: str) -> Iterator[None]:
        self.nodes.signal(name, signal.SIGSTOP)
        yield
        self.nodes.signal(name, signal.SIGCONT)

    def publish(self, kind: Any, topic: str, message: Callable[[], Any]) -> Iterator[None]:
        """Another publisher of a topic, at 50 Hz."""
        publisher: Publisher = self.graph.node.create_publisher(kind, topic, RELIABLE)
        timer = self.graph.node.create_timer(0.02, lambda: publisher.publish(message()))
        yield
        self.graph.node.destroy_timer(timer)
        self.graph.node.destroy_publisher(publisher)

    def stop_topic(self) -> Iterator[None]:
        """As `rlif stop`: what is published before the arbiter has found it arrives all the same."""
        publisher = self.graph.node.create_publisher(Bool, "stop", LATCHED)
        publisher.publish(Bool(data=True))
        yield
        publisher.publish(Bool(data=False))
        self.graph.spin(0.3)
        self.graph.node.destroy_publisher(publisher)

    def disarm(self) -> Iterator[None]:
        """By the service; the simulated operator presses the arm button after a moment."""
        self.graph.call(SetBool, "arm", SetBool.Request(data=False))
        yield

    def second_arbiter(self) -> Iterator[None]:
        with Processes([self.nodes.processes["arbiter"]], self.nodes.log):
            yield

    def now(self) -> Any:
        return self.graph.node.get_clock().now().to_msg()

    def pose(self, x: float, frame: str) -> PoseStamped:
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = self.now(), frame
        message.pose.position.x, message.pose.position.z = x, 0.15
        message.pose.orientation.w = 1.0
        return message

    def foreign_command(self) -> TwistStamped:
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = self.now(), "base"
        message.twist.linear.x, message.twist.angular.z = 0.02, FOREIGN
        return message

    def wrench(self) -> WrenchStamped:
        message = WrenchStamped()
        message.header.stamp, message.header.frame_id = self.now(), "base"
        message.wrench.force.x = math.nan
        return message

    def action(self, values: list[float], version: int) -> PolicyAction:
        return PolicyAction(action=values, policy_version=version)


def _kill(name: str, pattern: str, **options: Any) -> Kind:
    return Kind(f"{name} killed", lambda c: c.kill(name), pattern, **options)


def _freeze(name: str, pattern: str, **options: Any) -> Kind:
    return Kind(f"{name} frozen", lambda c: c.freeze(name), pattern, **options)


def _publish(name: str, kind: Any, topic: str, make: Callable[[Campaign], Any], pattern: str,
             **options: Any) -> Kind:  # fmt: skip
    return Kind(name, lambda c: c.publish(kind, topic, lambda: make(c)), pattern, **options)


KINDS = (
    _kill("observer", "observ", operator_may=True),
    _freeze("observer", "observ", operator_may=True),
    _kill("policy", "policy", operator_may=True),
    _freeze("policy", "policy", operator_may=True),
    _kill("arbiter", "arbiter"),
    _freeze("arbiter", "arbiter|stood still|stalled|timer"),
    _kill("episode", "episode", within=0.7),  # episode_timeout is 0.5 s
    _freeze("episode", "episode", duration=3.0, within=0.7),
    _kill("recorder", "record", stops=False, duration=LONG),
    # What DDS has kept for it comes with the next heartbeats, every 3 s.
    _freeze("recorder", "record", stops=False, duration=LONG, settle=7.0),
    _kill("learner", "learner", stops=False, duration=LONGEST),
    _freeze("learner", "learner", stops=False, duration=LONGEST),
    _kill("watchdog", "watchdog", stops=False, duration=LONG),
    _freeze("watchdog", "watchdog", stops=False, duration=LONG),
    _kill("sim_operator", "joy|operator|device"),
    _freeze("sim_operator", "joy|operator|device"),
    _freeze("sim_robot", "ee_pose|observ|pose", within=0.45),  # pose_timeout is 0.3 s
    _publish("pose not finite", PoseStamped, "/sim/ee_pose", lambda c: c.pose(math.nan, "base"), "pose"),
    _publish("pose in another frame", PoseStamped, "/sim/ee_pose", lambda c: c.pose(0.5, "camera"), "frame"),
    _publish("wrench not finite", WrenchStamped, "/sim/wrench", lambda c: c.wrench(), "wrench",
             stops=False),  # good ones come in between
    _publish("joy not finite", Joy, "/sim/joy", lambda c: Joy(axes=[math.nan] * 6, buttons=[1, 0, 0, 0]), "joy"),
    _publish("joy too short", Joy, "/sim/joy", lambda c: Joy(axes=[0.0], buttons=[]), "joy"),
    _publish("joint_states without its joints", JointState, "/sim/joint_states", lambda c: JointState(), "",
             stops=False),
    _publish("policy action not finite", PolicyAction, "policy_action",
             lambda c: c.action([math.nan] * 3, 0), "policy|action"),
    _publish("policy action of another length", PolicyAction, "policy_action",
             lambda c: c.action([0.0], 0), "policy|action"),
    _publish("another publisher of commands", TwistStamped, COMMAND, lambda c: c.foreign_command(),
             "publish|command", stops=False),
    Kind("stop topic", Campaign.stop_topic, "stop"),
    Kind("disarmed", Campaign.disarm, "disarm"),
    Kind("a second arbiter", Campaign.second_arbiter, "arbiter", stops=False, duration=4.0),
)  # fmt: skip


def run_fault(campaign: Campaign, kind: Kind, rng: random.Random) -> Outcome:
    """One fault at a random moment, and what was seen of it."""
    campaign.until_driven(RECOVER)
    campaign.graph.spin(rng.uniform(0.0, 2.0))
    campaign.until_driven(RECOVER)
    campaign.seen = seen = Seen()
    fault = kind.cause(campaign)
    began = time.time()
    next(fault)
    campaign.graph.spin(kind.duration)
    # The operator may go on where only the policy must not.
    before_end = [
        t for t, speed, foreign, operator in seen.commands
        if not foreign and speed > 1e-6 and not (kind.operator_may and operator)
    ]  # fmt: skip
    outcome = Outcome(kind.name, reason=next((r for r in reversed(seen.reasons) if r), ""))
    outcome.named = any(re.search(kind.names, r, re.IGNORECASE) for r in seen.reasons if r)
    if kind.stops and kind.name != "disarmed":  # the operator arms again within the duration
        outcome.stop_s = round(max(before_end, default=began) - began, 3)
        late = sum(t - began > kind.within for t in before_end)
        outcome.why = {f"later than {kind.within} s": late} if late else {}
    next(fault, None)
    healed = time.monotonic()
    campaign.until_driven(RECOVER)
    outcome.recovery_s = round(time.monotonic() - healed - 0.5, 2)
    campaign.graph.spin(kind.settle)
    outcome.why |= unsafe_commands(seen)
    outcome.unsafe = sum(outcome.why.values())
    outcome.lost_steps = lost_steps(seen)
    return outcome


def unsafe_commands(seen: Seen) -> dict[str, int]:
    """How many commands of the suite are not finite, too fast, or move in a state that forbids it."""
    own = [(t, speed) for t, speed, foreign, _ in seen.commands if not foreign]
    why: Counter[str] = Counter()
    still: float | None = None  # since when the arm must not be driven
    early: list[tuple[float, int]] = []  # a state that was short ends no sooner than it began
    for t, state in seen.states:
        earliest = early[-1][0] if early else -math.inf
        early.append((max(t - GRACE, earliest) if state in DRIVEN else t, state))
    changes = iter([*early, (math.inf, 0)])
    at, state = next(changes)
    now = state
    for t, speed in own:
        while t >= at:
            still, now = None if state in DRIVEN else (still or at), state
            at, state = next(changes)
        if not math.isfinite(speed):
            why["not finite"] += 1
        elif speed > SPEED_LIMIT + 1e-6:
            why[f"{speed:.3f} m/s"] += 1
        elif still is not None and t - still > STOP and speed > 1e-6:
            why[f"in state {now}"] += 1
    return dict(why)


def lost_steps(seen: Seen) -> int:
    """Decisions that never became Steps; those of the last half second are still on their way."""
    newest = max(seen.decided, default=(0, 0))
    return sum(
        key not in seen.stepped and (key[0] < newest[0] or key[1] < newest[1] - 5)
        for key in seen.decided
    )


def summarise(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row per kind."""
    rows = []
    for name in dict.fromkeys(o.kind for o in outcomes):
        of = [o for o in outcomes if o.kind == name]
        stops = [o.stop_s for o in of if o.stop_s is not None]
        rows.append({
            "kind": name, "times": len(of), "unsafe": sum(o.unsafe for o in of),
            "stop_s_max": max(stops, default=None),
            "lost_steps_max": max(o.lost_steps for o in of),
            "recovery_s_median": statistics.median(o.recovery_s or 0.0 for o in of),
            "named": sum(o.named for o in of), "reason": of[-1].reason,
        })  # fmt: skip
    return rows


def write(rows: list[dict[str, Any]], outcomes: list[dict[str, Any]]) -> None:
    """The results, in place of earlier ones of the same kinds."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    new = {row["kind"] for row in rows}
    content = {
        "faults": [row for row in found.get("faults", []) if row["kind"] not in new] + rows,
        "outcomes": [o for o in found.get("outcomes", []) if o["kind"] not in new] + outcomes,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table in the terminal."""
    table = Table(
        "fault", "times", "unsafe", "stop s", "lost", "recovery s", "named", "last reason"
    )
    for row in rows:
        cells = [row[k] for k in ("kind", "times", "unsafe", "stop_s_max", "lost_steps_max",
                                  "recovery_s_median", "named", "reason")]  # fmt: skip
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    Console(width=160).print(table)


def without_cameras(directory: Path) -> Path:
    """A copy of the configurations in which the policy of sim_real_time uses no images."""
    shutil.copytree(find_launch_file("robot_sim.launch.yaml").parents[1] / "config", directory)
    robot = directory / "sim_real_time" / "robot.yaml"
    text, count = re.subn(r"encoder: small", "encoder: none", robot.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{robot}: found {count} lines `encoder: small`, expected 1")
    robot.write_text(text, encoding="utf-8")
    return directory


@contextmanager
def campaign_graph(directory: Path) -> Iterator[Campaign]:
    """The graph of robot_sim.launch.yaml, each process by itself, so that one can be started again."""
    with ExitStack() as stack:
        domain = stack.enter_context(reserve_domain())
        values = {
            "config_directory": str(without_cameras(directory / "config")),
            "images": "false", "auto_start": "true", "prior_episodes": "0",
            "run_directory": str(directory / "run"),
        }  # fmt: skip
        environment = graph_environment(directory, domain.id)
        launch = read(find_launch_file("robot_sim.launch.yaml"), values, environment)
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        graph = stack.enter_context(GraphClient(NAMESPACE, domain.id))
        nodes = OneByOne({p.name: p for p in launch.processes}, directory)
        stack.callback(nodes.stop)
        campaign = Campaign(graph, nodes)
        for name in nodes.processes:
            campaign.start(name)
        campaign.until_driven(START)
        yield campaign


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="of each kind (%(default)s)")
    parser.add_argument(
        "--only", default="", help="kinds with this in their name, a regular expression"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if re.search(arguments.only, kind.name)]
    if not kinds:
        names = ", ".join(kind.name for kind in KINDS)
        parser.error(f"--only: found {arguments.only!r}, expected a part of one of: {names}")
    rng, outcomes, problem = random.Random(arguments.seed), [], ""
    order = [kind for kind in kinds for _ in range(arguments.times)]
    rng.shuffle(order)
    directory = Path(tempfile.mkdtemp(prefix="rlif_faults_"))
    began = time.monotonic()
    with campaign_graph(directory) as campaign:
        for number, kind in enumerate(order, 1):
            try:
                outcomes.append(run_fault(campaign, kind, rng))
            except GraphError as error:
                problem = f"{kind.name}: {error}"
                break
            spent = time.monotonic() - began
            left = spent / number * (len(order) - number) / 60
            print(f"[{number}/{len(order)}, {left:.0f} min left] {outcomes[-1]}", flush=True)
    rows = summarise(outcomes)
    show(rows)
    if problem:
        print(f"ended early: {problem}\nlogs: {directory}", file=sys.stderr)
        return 1
    write(rows, [asdict(o) for o in outcomes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
