# SPDX-License-Identifier: Apache-2.0
"""Planner through moveit_py, in a process of its own; requests and answers are lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from .planning import PlanConfig
from .reset_goals import Goal
from .reset_procedure import Outcome
from .waiting import within
from .wire import goal_to_wire

ENDING = 5.0  # s that the worker has to end in order


def worker_command(c: PlanConfig, files: Sequence[str]) -> list[str]:
    """files: parameters of MoveIt, as its moveit_cpp wants them"""
    command = [sys.executable, "-m", "rlif_moveit.moveit_py_worker", "--group", c.group]
    command += ["--velocity", str(c.velocity_scale), "--acceleration", str(c.acceleration_scale)]
    command += ["--planning-time", str(c.planning_time)]
    command += [f"--pipeline={c.pipeline}", f"--planner={c.planner}"]
    for file in files:
        command += ["--params-file", file]
    return command


class MoveItPyPlanner:
    """Starts the worker at once, since MoveIt takes seconds to load; reads it in a thread."""

    def __init__(self, node: Node, config: PlanConfig, command: Sequence[str]) -> None:
        self._node, self._config = node, config
        self._state = "the worker of moveit_py is still starting"
        self._answer: Future | None = None
        self._lock = threading.Lock()  # guards _state and _answer, shared with the reader
        # A session of its own: Ctrl-C would end its ROS before it could stop the arm, which it does
        # when its input ends.
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def problem(self) -> str:
        with self._lock:
            return self._state

    async def go(self, goal: Goal) -> Outcome:
        answer: Future = Future(executor=self._node.executor)
        with self._lock:
            if self._state:
                return Outcome(self._state)
            self._answer = answer
        self._tell({"go": goal_to_wire(goal)})
        timeout = self._config.motion_timeout
        if not await within(self._node, answer, timeout):
            self.cancel()
            return Outcome(f"no answer from the worker within {timeout} s", still=False)
        outcome: Outcome = answer.result()
        return outcome

    def cancel(self) -> None:
        self._tell({"cancel": True})

    def _tell(self, message: dict[str, Any]) -> None:
        pipe = self._process.stdin
        try:
            print(json.dumps(message), file=pipe, flush=True)
        except (BrokenPipeError, ValueError) as error:
            # The reader sees the same end, and answers the waiting call.
            self._node.get_logger().error(f"the worker of moveit_py does not listen: {error}")

    def _read(self) -> None:
        """The worker's answers, in a thread, until its end."""
        for line in self._process.stdout or ():
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                self._node.get_logger().error(
                    f"the worker printed a line that is no answer: {line.strip()}"
                )
                continue
            if "ready" in message:
                with self._lock:
                    self._state = message["ready"]
            else:
                self._finish(Outcome(message.get("problem", "an answer without a result")))
        status = self._process.wait()
        reason = f"the worker of moveit_py has ended with status {status}: start this node again"
        with self._lock:
            # Its last message, e.g. that moveit_py is not installed, is more specific than its status.
            self._state = self._state or reason
        self._finish(Outcome(reason, still=False))

    def _finish(self, outcome: Outcome) -> None:
        with self._lock:
            answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(outcome)

    def close(self) -> None:
        """The worker stops the arm when its input ends."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(ENDING)
