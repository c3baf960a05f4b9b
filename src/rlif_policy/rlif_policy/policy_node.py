# SPDX-License-Identifier: Apache-2.0
"""Node `policy`: answers each Observation with the action of the newest weights.

Subscribes
    observation    rlif_msgs/Observation
    weights        rlif_msgs/PolicyWeights   taken whole between two ticks, or refused (latched)
Publishes
    policy_action  rlif_msgs/PolicyAction    of the same tick and stamp; none where it cannot answer
    policy_hold    rlif_msgs/PolicyHold      why it cannot, repeated while it cannot (latched)

Before any weights it acts as `initial` asks. It does not depend on the learner being alive. The
weights of a frozen encoder are not sent: it loads them itself, from `encoder_weights`.
"""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_1
from rlif_node.running import run
from rlif_node.states import HoldReason
from sensor_msgs.msg import Image
from torch import Tensor

from rlif_msgs.msg import Observation, PolicyAction, PolicyHold, PolicyWeights
from rlif_policy.images import image_names
from rlif_policy.inference import NumpyActor, StateError, check_state, initial_policy
from rlif_policy.networks import PolicySpec, camera_places
from rlif_policy.pretrained import load_frozen
from rlif_policy.stored_actor import read_actor
from rlif_policy.weights import WeightsError, unpack_weights

PARAMETERS = (
    Param("axes", ["x", "y", "z"], "entries of an action, as the arbiter's"),
    Param("state_dim", 0, "entries of the state; 0: as in the first weights", 0, 10_000),
    Param("hidden", [], "widths of the hidden layers; empty: as in the first weights", items=int),
    Param("checkpoint", "", "folder to act from: a checkpoint, or a run; empty: none", live=True),
    Param(
        "encoder_weights",
        "torchvision",
        "pretrained weights of a frozen encoder, as the learner's; see rlif_policy/pretrained.py",
    ),
    Param("deterministic", False, "the mean instead of a sample: for evaluation", live=True),
    Param("initial", "hold", "action before any weights", choices=("hold", "random")),
    Param("initial_scale", 0.3, "size of the random actions, in [-1, 1]", 0.0, 1.0),
    Param(
        "learn", True, "take new weights from the topic; false: keep the checkpoint's", live=True
    ),
    Param("seed", 0, "of the sampled actions", 0, 2**31 - 1),
)
REMIND = 5.0  # s of wall time between two logs of the same reason


class PolicyNode(Node):
    """Shell around `NumpyActor`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("policy", parameter_overrides=list(overrides))
        value = declare(self, PARAMETERS)
        torch.set_num_threads(1)  # only unpacks weights; the cores are the learner's
        self._action_dim = len(value["axes"])
        self._state_dim: int = value["state_dim"]
        self._hidden: tuple[int, ...] = tuple(value["hidden"])
        self._deterministic: bool = value["deterministic"]
        self._rng = np.random.default_rng(value["seed"])
        self._encoder_weights: str = value["encoder_weights"]
        self._initial = initial_policy(
            value["initial"], self._action_dim, value["initial_scale"], self._rng
        )
        self._actor: NumpyActor | None = None
        self._spec: PolicySpec | None = None
        self._version = 0
        self._learn: bool = value["learn"]
        self._newest: PolicyWeights | None = None  # of the topic, while they are not taken
        self._logged, self._logged_at = "", 0.0
        if value["checkpoint"]:
            self._start_from(Path(value["checkpoint"]))
        self._publisher = self.create_publisher(PolicyAction, "policy_action", RELIABLE)
        self._hold = self.create_publisher(PolicyHold, "policy_hold", LATCHED)
        self._problem: str | None = None  # why it cannot answer; None: not published yet
        self._publish_hold("")  # withdraws what this node published before it was restarted
        self.create_subscription(PolicyWeights, "weights", self._on_weights, LATCHED)
        # The newest alone: a policy slower than the control rate skips ticks and does not fall behind.
        self.create_subscription(Observation, "observation", self._on_observation, RELIABLE_1)
        self.add_on_set_parameters_callback(self._on_parameters)

    def _start_from(self, path: Path) -> None:
        stored = read_actor(path)
        self._check_spec(stored.spec)
        self._actor, self._spec = self._make_actor(stored.spec, stored.tensors), stored.spec
        self._version = stored.version
        self.get_logger().info(f"acts from {stored.path}, version {stored.version}")

    def _make_actor(self, spec: PolicySpec, tensors: Mapping[str, Tensor]) -> NumpyActor:
        """ValueError for a frozen encoder whose weights cannot be had, or are others."""
        if self._actor is not None:
            return NumpyActor(spec, tensors, before=self._actor)
        return NumpyActor(spec, tensors, load_frozen(spec.encoder, self._encoder_weights))

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        new = {parameter.name: parameter.value for parameter in parameters}
        if new.get("checkpoint"):
            try:
                self._start_from(Path(new["checkpoint"]))
            except ValueError as problem:
                return SetParametersResult(successful=False, reason=str(problem))
        self._deterministic = new.get("deterministic", self._deterministic)
        self._learn = new.get("learn", self._learn)
        if self._learn and self._newest:
            self._on_weights(self._newest)
        return SetParametersResult(successful=True)

    def _on_observation(self, message: Observation) -> None:
        state = np.frombuffer(message.state, dtype=np.float32)
        try:
            action = self._decide(state, message)
        except StateError as problem:
            self._log(str(problem))
            self._publish_hold(str(problem))
            return
        self._publish_hold("")
        answer = PolicyAction(header=message.header, tick=message.tick)
        answer.action = array.array("f", action.tobytes())
        answer.policy_version = self._version
        self._publisher.publish(answer)

    def _publish_hold(self, problem: str) -> None:
        if not problem and self._problem == "":
            return
        self._problem = problem
        code = HoldReason.OTHER if problem else HoldReason.NONE
        message = PolicyHold(reason_code=int(code), source=self.get_fully_qualified_name())
        message.reason = f"no action from the policy: {problem}" if problem else ""
        message.header.stamp = self.get_clock().now().to_msg()
        self._hold.publish(message)

    def _decide(self, state: np.ndarray, message: Observation) -> np.ndarray:
        """float32 [action_dim] in [-1, 1]. StateError for a state of another network."""
        if self._actor is not None:
            rng = None if self._deterministic else self._rng
            return self._actor.act(state, rng, self._select_images(self._actor.spec, message))
        if self._state_dim:
            check_state(state, self._state_dim)
        return self._initial()

    def _select_images(self, spec: PolicySpec, message: Observation) -> list[np.ndarray]:
        """Pixels of the policy's cameras, in its order. StateError where one is missing."""
        if not spec.images:
            return []
        try:
            places = camera_places(spec.cameras, image_names(message))
        except ValueError as problem:
            raise StateError(str(problem)) from problem
        return [pixels(message.images[place]) for place in places]

    def _on_weights(self, message: PolicyWeights) -> None:
        """Take the set as a whole, or keep the old one. Runs between two observations."""
        self._newest = None if self._learn else message
        if not self._learn:
            return
        try:
            spec = PolicySpec.from_json(message.spec)
            if spec.hash() != message.spec_hash:
                raise WeightsError(f"spec_hash is {message.spec_hash}, expected {spec.hash()}")
            self._check_spec(spec)
            tensors = unpack_weights(bytes(message.data), message.sha256, spec)
            actor = self._make_actor(spec, tensors)
        except ValueError as problem:  # WeightsError is one
            self.get_logger().error(
                f"weights of version {message.version} refused, version {self._version} stays: "
                f"{problem}"
            )
            return
        if message.version < self._version:
            self.get_logger().warning(
                f"weights of version {message.version} after {self._version}: the learner was "
                "restarted"
            )
        self._actor, self._spec, self._version = actor, spec, message.version

    def _check_spec(self, spec: PolicySpec) -> None:
        """WeightsError, naming the difference, for weights of another network than this one's."""
        expected = [
            ("action_dim", spec.action_dim, self._action_dim),
            ("state_dim", spec.state_dim, self._state_dim or spec.state_dim),
            ("hidden", spec.hidden, self._hidden or spec.hidden),
        ]
        if self._spec is not None:
            expected.append(("spec", spec.to_json(), self._spec.to_json()))
        for name, found, want in expected:
            if found != want:
                raise WeightsError(f"another network: {name} is {found}, expected {want}")

    def _log(self, reason: str) -> None:
        now = time.monotonic()
        if reason != self._logged or now - self._logged_at > REMIND:
            self._logged, self._logged_at = reason, now
            self.get_logger().error(f"no action: {reason}")


def pixels(image: Image) -> np.ndarray:
    """uint8 [height, width, 3] of an observation's image, which is rgb8 without padding."""
    data = np.frombuffer(image.data, dtype=np.uint8)
    if image.encoding != "rgb8" or data.size != image.height * image.width * 3:
        raise StateError(
            f"the observation has an image of {data.size} bytes of {image.encoding}, expected "
            f"{image.width}x{image.height} of rgb8"
        )
    return data.reshape(image.height, image.width, 3)


def main() -> None:
    """Console script `policy`."""
    sys.exit(run("policy", PolicyNode))
