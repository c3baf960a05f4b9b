# SPDX-License-Identifier: Apache-2.0
"""A node that watches a running graph and sets its parameters, with a deadline for every answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterValue
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rlif_node.qos import LATCHED
from std_srvs.srv import Trigger

from rlif_msgs.msg import ControlState, Episode, LearnerStatus, PolicyAction
from rlif_node import states

ANSWER = 20.0  # s of wall time until a node has answered
_ASK_AGAIN = 3.0  # s of wall time without an answer; all that is asked may be asked twice
_TURN = 0.05  # s of wall time per turn of the executor


class GraphError(RuntimeError):
    """The graph did not do what was asked of it: which node, what, what to do."""


class InterruptedByUserError(Exception):
    """A person has asked to stop."""


class GraphClient:
    """Watches `episode`, `control_state` and `learner_status`; a context manager.

    Args:
        namespace: of the graph; empty: the root.
        domain_id: of DDS.
        check: called on every turn; raises where going on makes no sense (a dead node, Ctrl-C).
        answer: s of wall time until a node must have answered; None: ANSWER.
        remaps: of topics, our name to the robot's.
        name: of the node.

    Attributes:
        node: for subscriptions of the caller's own.
        finished: episodes that have ended and were not taken yet.
        reset_done: the robot was reset since the last episode ended.
    """

    def __init__(
        self,
        namespace: str,
        domain_id: int | None,
        check: Callable[[], None] = lambda: None,
        answer: float | None = None,
        remaps: Mapping[str, str] | None = None,
        name: str = "rlif_session",
    ) -> None:
        self._check, self._seconds = check, answer
        self._namespace = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
        self._context = Context()
        rclpy.init(
            args=[],  # the command line is not ROS's
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        arguments = ["--ros-args"]
        for ours, theirs in (remaps or {}).items():
            arguments += ["-r", f"{ours}:={theirs}"]
        self.node = rclpy.create_node(
            name, namespace=self._namespace or "/", context=self._context, cli_args=arguments,
        )  # fmt: skip
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, AsyncParameterClient] = {}
        self.finished: list[Episode] = []
        self.episode = Episode()
        self.control: ControlState | None = None
        self.learner: LearnerStatus | None = None
        self.faults = 0
        # CPU time of each node by name, where this process has started them.
        self.cpu_seconds: Callable[[], dict[str, float]] = dict
        self._last_id = 0
        self.reset_done = False
        subscribe, latched = self.node.create_subscription, DurabilityPolicy.TRANSIENT_LOCAL
        subscribe(Episode, "episode", self._on_episode, QoSProfile(depth=100, durability=latched))
        subscribe(ControlState, "control_state", self._on_control, LATCHED)
        subscribe(LearnerStatus, "learner_status", self._on_learner, LATCHED)

    def __enter__(self) -> GraphClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _on_episode(self, message: Episode) -> None:
        self.episode = message
        self.reset_done = message.phase == Episode.RESETTING or (
            self.reset_done and message.phase == Episode.READY
        )
        if message.phase == Episode.ENDED and message.id > self._last_id:
            self._last_id = message.id
            self.finished.append(message)

    def _on_control(self, message: ControlState) -> None:
        before = self.control.state if self.control else None
        if message.state == ControlState.FAULT and before != ControlState.FAULT:  # repeated at 1 Hz
            self.faults += 1
        self.control = message

    def _on_learner(self, message: LearnerStatus) -> None:
        self.learner = message

    def watch_policy(self) -> set[int]:
        """Versions of the weights that act from here on; the set grows."""
        versions: set[int] = set()

        def note(message: PolicyAction) -> None:
            versions.add(message.policy_version)

        self.node.create_subscription(PolicyAction, "policy_action", note, 10)
        return versions

    def take_finished(self) -> list[Episode]:
        """Episodes that have ended since the last call."""
        taken, self.finished = self.finished, []
        return taken

    def turn(self) -> None:
        """Take what has come, for a moment, and check that going on makes sense."""
        self._executor.spin_once(timeout_sec=_TURN)
        self._check()

    def spin(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Turn for `seconds` of wall time, or until a condition holds; whether it does."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                return False
            self.turn()
        return True

    def wait(self, condition: Callable[[], object], what: str, deadline: float) -> None:
        """Turn until a condition holds.

        Raises:
            GraphError: `deadline` seconds of wall time have passed in vain.
        """
        if not self.spin(deadline, condition):
            raise GraphError(
                f"timed out after {deadline:.0f} s waiting for {what}. {self.situation()}"
            )

    def situation(self) -> str:
        """The state of the graph, for a message."""
        if self.control is None:
            return "The arbiter has published nothing: is it running, in this namespace and domain?"
        episode = f"Episode {self.episode.id} is {states.Phase(self.episode.phase).name.lower()}"
        reason = f" ({self.control.reason})" if self.control.reason else ""
        return (
            f"{episode}; the arbiter is in {states.ControlState(self.control.state).name}{reason}."
        )

    def _full_name(self, node: str) -> str:
        return node if node.startswith("/") else f"{self._namespace}/{node}"

    @property
    def _deadline(self) -> float:
        return ANSWER if self._seconds is None else self._seconds

    def _parameter_client(self, node: str) -> AsyncParameterClient:
        if node not in self._clients:
            self._clients[node] = AsyncParameterClient(self.node, self._full_name(node))
        return self._clients[node]

    def _client(self, node: str, deadline: float) -> AsyncParameterClient:
        client = self._parameter_client(node)
        what = f"the parameter services of {self._full_name(node)}"
        self.wait(client.services_are_ready, what, deadline)
        return client

    def _answer(self, ask: Callable[[], Future], what: str, again: bool = True) -> Any:
        """Ask, and ask again: a service can be seen before its answers find the way back."""
        futures = [ask()]
        asked = time.monotonic()

        def answered() -> bool:
            nonlocal asked
            if any(future.done() for future in futures):
                return True
            if again and time.monotonic() - asked > _ASK_AGAIN:
                asked = time.monotonic()
                futures.append(ask())
            return False

        self.wait(answered, what, self._deadline)
        return next(future for future in futures if future.done()).result()

    def is_there(self, node: str) -> bool:
        """Whether a node offers its parameters, now."""
        return self._parameter_client(node).services_are_ready()

    def set_parameters(self, node: str, **values: Any) -> None:
        """Set parameters of a node.

        Raises:
            GraphError: the node does not answer, or refuses.
        """
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        client = self._client(node, self._deadline)
        what = f"{self._full_name(node)} to set {sorted(values)}"
        response = self._answer(lambda: client.set_parameters(parameters), what)
        for (name, value), result in zip(values.items(), response.results, strict=True):
            if not result.successful:
                raise GraphError(
                    f"{self._full_name(node)} refuses {name}={value!r}: {result.reason}"
                )

    def parameters(self, node: str, deadline: float | None = None) -> dict[str, Any]:
        """All parameters of a node, by name.

        Raises:
            GraphError: the node does not answer.
        """
        client = self._client(node, self._deadline if deadline is None else deadline)
        what = f"{self._full_name(node)} to list its parameters"
        names = sorted(self._answer(lambda: client.list_parameters([], 0), what).result.names)
        values = self._answer(lambda: client.get_parameters(names), what).values
        if len(values) != len(names):
            # rclpy stops at a parameter that is declared without a value: ask one by one.
            one_by_one = [self._value(client, name, what) for name in names]
            found = [(n, v[0]) for n, v in zip(names, one_by_one, strict=True) if v]
        else:
            found = list(zip(names, values, strict=True))
        return {name: _plain(value) for name, value in found}

    def _value(self, client: AsyncParameterClient, name: str, what: str) -> Any:
        return self._answer(lambda: client.get_parameters([name]), what).values

    def trigger(self, service: str) -> None:
        """Call a std_srvs/Trigger service, again if no answer comes.

        Raises:
            GraphError: no answer, or a refusal.
        """
        self.call(Trigger, service, Trigger.Request(), again=True)

    def call(self, kind: Any, service: str, request: Any, again: bool = False) -> str:
        """Call a service whose answer has `success` and `message`.

        Args:
            again: ask once more if no answer comes; not what must happen once.

        Returns:
            The message.

        Raises:
            GraphError: no answer, or a refusal.
        """
        client = self.node.create_client(kind, service)
        name = f"{self._namespace}/{service}"
        try:
            self.wait(client.service_is_ready, f"the service {name}", self._deadline)
            ask = functools.partial(client.call_async, request)
            answer = self._answer(ask, f"an answer of {name}", again)
        finally:
            self.node.destroy_client(client)
        if not answer.success:
            raise GraphError(f"{name} refused: {answer.message or 'without a reason'}")
        return str(answer.message)


def _plain(message: ParameterValue) -> Any:
    value = parameter_value_to_python(message)
    return value if value is None or isinstance(value, (bool, int, float, str)) else list(value)
