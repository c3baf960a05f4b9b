# SPDX-License-Identifier: Apache-2.0
"""Runs a node until it is asked to stop, and shuts it down gracefully."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from rlif_node.parameter_files import check_arguments
from rlif_node.transports import disable_shared_memory


def make_executor(events: bool = True) -> Any:
    """The executor on events where rclpy has it: less than half the CPU time per message.

    It takes no coroutines as service callbacks; a node that has such asks for `events=False`.
    """
    if events:
        try:
            from rclpy.experimental.events_executor import EventsExecutor
        except ImportError:
            return SingleThreadedExecutor()
        return EventsExecutor()
    return SingleThreadedExecutor()


SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What creating a node raises for a wrong configuration, with a message for the user.
MISCONFIGURED = (ValueError, OSError, MemoryError, ParameterException, NameValidationException)


def _ignore_signals() -> None:
    """A second signal, as `ros2 launch` sends, must not turn a graceful shutdown into a crash."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _initialise(name: str, shared_memory: bool) -> str:
    """Read the command line and initialise rclpy; what is wrong with it, in one line, or nothing."""
    if not shared_memory and (problem := disable_shared_memory()):
        get_logger(name).warning(f"{problem}, and a process that is killed can block it")
    if faults := check_arguments(sys.argv[1:], name):
        return "; ".join(map(str, faults))
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:
        return str(error).partition(", at /")[0]
    return ""


def run(
    name: str,
    create: Callable[[], Any],
    failed: Callable[[Any], bool] | None = None,
    at_end: Callable[[Any], None] | None = None,
    events: bool = True,
    shared_memory: bool = True,
) -> int:
    """Create the node and spin it until SIGINT, SIGTERM, a shutdown, or until it has `failed`.

    The signals are handled here and not by rclpy, which would destroy the publishers before `at_end`
    could publish. Without `shared_memory` another process that is killed cannot block this one
    (transports.py), unless the user's settings of DDS prevent it. Returns the exit status: 0, or 1
    failed, or 2 misconfigured.
    """
    if problem := _initialise(name, shared_memory):
        get_logger(name).fatal(problem)
        return 2
    executor = make_executor(events)
    asked_to_end: list[int] = []

    def end(number: int, _frame: object) -> None:
        asked_to_end.append(number)

    for number in SIGNALS:
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
    except MISCONFIGURED as error:
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
        _ignore_signals()
    return 1 if failure or (failed is not None and failed(node)) else 0
