"""How the nodes of this package run.

On the single-threaded executor: their services wait for Servo and for planners, as coroutines, and
the executor on events does not take coroutines as service callbacks.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


def run(create: Callable[[], Node], at_end: Callable[[Any], None] | None = None) -> int:
    """Create the node and spin it until SIGINT, SIGTERM or a shutdown of the context.

    Bad parameters and missing interfaces end it with their message and status 2.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    asked_to_end: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _frame: asked_to_end.append(n))
    executor, node = SingleThreadedExecutor(), None
    try:
        node = create()
        executor.add_node(node)
        while not asked_to_end and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)  # Python sees a signal when this returns
    except ExternalShutdownException:
        return 0
    except (ValueError, ParameterException) as error:
        if node is not None:
            raise
        get_logger("rlif_moveit").fatal(str(error))
        return 2
    finally:
        if node is not None:
            if at_end is not None and rclpy.ok():
                at_end(node)
            executor.shutdown()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
