"""What the nodes of this package and the learner share: parameter tables, stamps, an orderly end."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_LISTS = {
    float: Parameter.Type.DOUBLE_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


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
    choices: tuple[str, ...] = ()


def declare(node: Node, table: Iterable[Param]) -> dict[str, Any]:
    """Declare all parameters of `table`; their values by name.

    Raises ValueError or a ParameterException, naming the parameter, for what is out of range.
    """
    values = {p.name: _declare_one(node, p) for p in table}
    for p in table:
        if p.choices and values[p.name] not in p.choices:
            raise ValueError(
                f"{p.name}: found {values[p.name]!r}, expected one of {', '.join(p.choices)}"
            )
    return values


def _declare_one(node: Node, p: Param) -> Any:
    descriptor = ParameterDescriptor(description=p.about, read_only=not p.live)
    if isinstance(p.default, float) and p.low is not None and p.high is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=p.low, to_value=p.high)]
    elif isinstance(p.default, int) and p.low is not None and p.high is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(p.low), to_value=int(p.high), step=1)
        ]
    if p.default == []:
        descriptor.type = _LISTS[p.items].value
        return list(node.declare_parameter(p.name, _LISTS[p.items], descriptor).value or [])
    value = node.declare_parameter(p.name, p.default, descriptor).value
    return list(value) if isinstance(p.default, list) else value


def to_ns(stamp: TimeMsg) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_msg(ns: int) -> TimeMsg:
    sec, nanosec = divmod(ns, 1_000_000_000)
    return TimeMsg(sec=sec, nanosec=nanosec)


def make_executor() -> Any:
    """The executor in C++ where rclpy has it: less than half the CPU time per message."""
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def run(
    name: str,
    create: Callable[[], Any],
    failed: Callable[[Any], bool] | None = None,
    at_end: Callable[[Any], None] | None = None,
) -> int:
    """Create the node and spin it until SIGINT, SIGTERM, a shutdown, or until it has `failed`.

    The signals are handled here and not by rclpy, which would take the publishers away before
    `at_end` could say a last word. Returns the exit status: 0, or 1 failed, or 2 misconfigured.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = make_executor()
    asked_to_end: list[int] = []

    def end(number: int, _frame: object) -> None:
        asked_to_end.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    node = None
    failure = False
    try:
        node = create()
        executor.add_node(node)
        gc.collect()
        gc.freeze()  # what start-up left is never searched again: shorter pauses in the loop
        while not asked_to_end and rclpy.ok() and not failure:
            executor.spin_once(timeout_sec=0.1)  # Python sees a signal when this returns
            failure = failed is not None and failed(node)
    except ExternalShutdownException:
        return 0  # another part of this process ended the context
    except (ValueError, OSError, ParameterException) as error:
        if node is not None:
            raise
        get_logger(name).fatal(str(error))
        return 2
    finally:
        if node is not None:
            if at_end is not None and rclpy.ok():
                at_end(node)
            executor.shutdown()
            node.destroy_node()
        rclpy.try_shutdown()
    return 1 if failure or (failed is not None and failed(node)) else 0
