# SPDX-License-Identifier: Apache-2.0
"""Servo's services, in both interfaces, as one call that never blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from .interfaces import ServoInterfaces
from .servo_status import Dialect
from .supervision import Request

Done = Callable[[str], None]  # gets the reason of a failure; empty: done


class ServoClient:
    """name: of Servo's node, e.g. servo_node; kind: a value of COMMAND_TYPES"""

    def __init__(
        self, node: Node, name: str, dialect: Dialect, interfaces: ServoInterfaces, kind: int
    ) -> None:
        self._node = node
        self._calls: dict[Request, tuple[Any, Any]] = {}  # client, request
        if dialect is Dialect.HUMBLE:
            trigger = Trigger.Request()
            self._add(Request.PAUSE, Trigger, f"{name}/stop_servo", trigger)
            self._add(Request.UNPAUSE, Trigger, f"{name}/start_servo", trigger)
            return
        if interfaces.select_service is None or interfaces.select_request is None:
            raise ValueError("servo_interface jazzy needs the type of ~/switch_command_type")
        pause = node.create_client(SetBool, f"{name}/pause_servo")
        self._calls[Request.PAUSE] = (pause, SetBool.Request(data=True))
        self._calls[Request.UNPAUSE] = (pause, SetBool.Request(data=False))
        request = interfaces.select_request(kind)
        self._add(Request.SELECT, interfaces.select_service, f"{name}/switch_command_type", request)

    def _add(self, what: Request, kind: type, service: str, request: Any) -> None:
        self._calls[what] = (self._node.create_client(kind, service), request)

    @property
    def ready(self) -> bool:
        """All services that it uses are there."""
        return all(client.service_is_ready() for client, _ in self._calls.values())

    def ask(self, what: Request, done: Done) -> None:
        """Send `what`; `done` is called with the answer, if one comes."""
        client, request = self._calls[what]

        def finish(call: Future) -> None:
            error = call.exception()
            if error is not None:
                done(str(error))
                return
            answer = call.result()
            reason = getattr(answer, "message", "") or "refused without a reason"
            done("" if answer.success else reason)

        client.call_async(request).add_done_callback(finish)
