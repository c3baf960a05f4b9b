# SPDX-License-Identifier: Apache-2.0
"""Planner through the running move_group: its action `move_action`, no second planning scene."""

from __future__ import annotations

from typing import Any

from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter_client import AsyncParameterClient

from .planning import PlanConfig, PlanningInterfaces, error_words, move_group_goal
from .reset_goals import Goal, NamedGoal
from .reset_procedure import Outcome
from .srdf import NamedStateError, named_state
from .waiting import within

ANSWER = 5.0  # s; until move_group has accepted a goal, or returned its SRDF


class MoveGroupPlanner:
    """client: in place of the action client, for tests

    Named states need the parameter robot_description_semantic of the node `move_group_name`.
    """

    def __init__(
        self,
        node: Node,
        config: PlanConfig,
        types: PlanningInterfaces,
        move_group_name: str = "move_group",
        action_name: str = "move_action",
        client: Any = None,
    ) -> None:
        self._node, self._config, self._types = node, config, types
        self._name, self._action = move_group_name, action_name
        self._client = client or ActionClient(node, types.action, action_name)
        self._parameters = AsyncParameterClient(node, move_group_name)
        self._srdf = ""
        self._handle: Any = None
        self._cancelled = False

    def problem(self) -> str:
        if not self._client.server_is_ready():
            return f"no action {self._action}: start move_group, or check action_name"
        return ""

    async def go(self, goal: Goal) -> Outcome:
        self._cancelled = False
        if isinstance(goal, NamedGoal):
            try:
                goal = named_state(await self._semantic(), self._config.group, goal.name)
            except NamedStateError as error:
                return Outcome(str(error))
        if self._cancelled:
            return Outcome("cancelled before it moved")
        sent = self._client.send_goal_async(move_group_goal(goal, self._config, self._types))
        if not await within(self._node, sent, ANSWER):
            # It may be accepted later, and then move the arm.
            sent.add_done_callback(lambda late: self._cancel_late(late.result()))
            return Outcome(f"move_group did not take the goal within {ANSWER} s", still=False)
        self._handle = sent.result()
        try:
            return await self._result()
        finally:
            self._handle = None

    async def _result(self) -> Outcome:
        handle = self._handle
        if not handle.accepted:
            return Outcome("move_group refused the goal")
        if self._cancelled:
            handle.cancel_goal_async()
        result = handle.get_result_async()
        timeout = self._config.motion_timeout
        if not await within(self._node, result, timeout):
            handle.cancel_goal_async()
            return Outcome(f"no result from move_group within {timeout} s", still=False)
        return Outcome(error_words(result.result().result.error_code.val))

    def cancel(self) -> None:
        self._cancelled = True
        if self._handle is not None and self._handle.accepted:
            self._handle.cancel_goal_async()

    def _cancel_late(self, handle: Any) -> None:
        if handle is not None and handle.accepted:
            handle.cancel_goal_async()

    async def _semantic(self) -> str:
        """The SRDF; asked for once."""
        if self._srdf:
            return self._srdf
        if not self._parameters.services_are_ready():
            raise NamedStateError(
                f"the parameters of {self._name} cannot be read: check move_group_name, or use "
                "goal joints"
            )
        call = self._parameters.get_parameters(["robot_description_semantic"])
        if not await within(self._node, call, ANSWER):
            raise NamedStateError(f"{self._name} did not return its robot_description_semantic")
        values = call.result().values
        self._srdf = values[0].string_value if values else ""
        return self._srdf
