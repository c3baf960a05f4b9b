"""What the nodes of this package share: parameters as a table, time, and an orderly end."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from .diagnostics import Status

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
RELIABLE_1 = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
RELIABLE_100 = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
LATCHED_10 = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

_ARRAYS = {float: Parameter.Type.DOUBLE_ARRAY, str: Parameter.Type.STRING_ARRAY}


@dataclass(frozen=True)
class Param:
    """One row of a node's table of parameters.

    default: an empty list needs `items`, the type of its entries
    low, high: inclusive range of a number; live: may be changed while the node runs
    """

    name: str
    default: Any
    about: str
    low: float | None = None
    high: float | None = None
    live: bool = False
    items: type = float


def declare(node: Node, table: Iterable[Param]) -> dict[str, Any]:
    """Declare all parameters of `table`; their values by name."""
    return {p.name: _declare_one(node, p) for p in table}


def _declare_one(node: Node, p: Param) -> Any:
    descriptor = ParameterDescriptor(description=p.about, read_only=not p.live)
    if isinstance(p.default, float) and p.low is not None and p.high is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=p.low, to_value=p.high)]
    elif isinstance(p.default, int) and p.low is not None and p.high is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(p.low), to_value=int(p.high), step=1)
        ]
    if p.default == []:
        descriptor.type = _ARRAYS[p.items].value
        return list(node.declare_parameter(p.name, _ARRAYS[p.items], descriptor).value or [])
    return node.declare_parameter(p.name, p.default, descriptor).value


def to_ns(stamp: TimeMsg) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_msg(ns: int) -> TimeMsg:
    sec, nanosec = divmod(ns, 1_000_000_000)
    return TimeMsg(sec=sec, nanosec=nanosec)


def clock_of(node: Node) -> Callable[[], float]:
    """Seconds for ages and time-outs: ROS time in simulation, else a steady clock."""
    if node.get_parameter("use_sim_time").value:
        clock = node.get_clock()
        return lambda: clock.now().nanoseconds * 1e-9
    return time.monotonic


def diagnostic_array(node: str, statuses: Iterable[Status]) -> DiagnosticArray:
    """The report of `node` on /diagnostics, without a stamp."""
    return DiagnosticArray(
        status=[
            DiagnosticStatus(
                level=bytes([s.level]),
                name=f"{node}: {s.name}",
                message=s.message,
                hardware_id="",
                values=[KeyValue(key=k, value=v) for k, v in s.values.items()],
            )
            for s in statuses
        ]
    )


def make_executor() -> Executor:
    """The executor on events where rclpy has it: half the CPU time per message, less jitter."""
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def run(create: Callable[[], Node], at_end: Callable[[Any], None] | None = None) -> int:
    """Create the node and spin it until SIGINT, SIGTERM or a shutdown of the context.

    The signals are handled here and not by rclpy, which would take the publishers away before
    `at_end` could say a last word. Returns the exit status.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = make_executor()
    asked_to_end: list[int] = []

    def end(number: int, _frame: object) -> None:
        asked_to_end.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    node = None
    try:
        node = create()
        executor.add_node(node)
        gc.collect()
        gc.freeze()  # what start-up left is never searched again: shorter pauses in the loop
        while not asked_to_end and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)  # Python sees a signal when this returns
    except ExternalShutdownException:
        return 0  # another part of this process ended the context
    except (ValueError, ParameterException) as error:
        if node is not None:
            raise
        get_logger("rlif_intervention").fatal(str(error))
        return 2
    finally:
        if node is not None:
            if at_end is not None and rclpy.ok():
                at_end(node)
            executor.shutdown()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
