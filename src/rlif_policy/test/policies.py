# SPDX-License-Identifier: Apache-2.0
"""Policies for tests: actors with and without images, their weights as messages, and a policy node
that is asked."""

from __future__ import annotations

import array

import numpy as np
import torch
import trunks
from rclpy.qos import DurabilityPolicy, QoSProfile
from rlif_node.stamps import to_msg
from sensor_msgs.msg import Image

from rlif_msgs.msg import Observation, PolicyAction, PolicyWeights
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.policy_node import PolicyNode
from rlif_policy.weights import pack_weights, unpack_weights

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
IMAGES = ((40, 33, 3), (40, 33, 3))
STATE = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
PERIOD = 100_000_000  # ns


def trained(spec, seed=0, trunk=None):
    """An actor of which all that is trained is no more what it was at the start."""
    actor, generator = Actor(spec, seed, trunk), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in actor.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                scale = 1.0 if trunk is None else parameter.std(correction=0).clamp(0.1)
                parameter.add_(0.1 * scale * noise)
    return actor


def seeing(seed=0, file=None, name="resnet18", cameras=(), **fields):
    """A trained actor with an encoder of two cameras, and its trunk: `small`, which has none, or
    pretrained, out of `file`."""
    fields = {"features": 6, **fields}
    if file is None:
        encoder, trunk = EncoderSpec("small", **fields), None
    else:
        encoder, trunk = trunks.random_trunk(file, name, **fields)
    spec = PolicySpec(4, 3, (16,), images=IMAGES, encoder=encoder, cameras=cameras)
    return trained(spec, seed, trunk), trunk


def pictures(seed=0, images=IMAGES):
    """An image of noise for each camera, uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in images]


def transferred(actor):
    """The actor's weights as they arrive: packed and unpacked."""
    return unpack_weights(*pack_weights(actor, actor.spec), actor.spec)


def weights_message(version, actor, **changes):
    data, sha256 = pack_weights(actor, actor.spec)
    message = PolicyWeights(version=version, sha256=sha256)
    message.spec, message.spec_hash = actor.spec.to_json(), actor.spec.hash()
    message.data = array.array("B", data)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def image_message(pixels, encoding="rgb8"):
    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    message.data = array.array("B", pixels.tobytes())
    return message


class PolicyRig:
    """Sends observations and weights to a policy node, and collects its answers."""

    def __init__(self, graph, **parameters):
        self.graph, self.tick = graph, 0
        self.node = graph.add(PolicyNode, **parameters)
        self.answers = graph.collect(PolicyAction, "policy_action", of=self.node)
        self.observation = graph.publisher(Observation, "observation")
        self.weights = graph.publisher(PolicyWeights, "weights", LATCHED)

    def send(self, state=STATE, images=(), names=()):
        self.tick += 1
        message = Observation(tick=self.tick, state=array.array("f", state))
        message.header.stamp = to_msg(self.tick * PERIOD)
        message.images, message.camera_names = list(images), list(names)
        self.observation.publish(message)

    def ask(self, state=STATE, images=()):
        """The answer to an observation with images of these pixels."""
        self.send(state, [image_message(image) for image in images])
        tick = self.tick
        self.graph.until(lambda: self.answers and self.answers[-1].tick == tick, f"answer {tick}")
        return self.answers[-1]

    def load(self, version, actor):
        """Publish weights, and wait until the node answers with them."""
        self.weights.publish(weights_message(version, actor))
        return self.ask_until(version, pictures() if actor.spec.images else ())

    def ask_until(self, version, images=()):
        ask = lambda: self.ask(images=images).policy_version == version  # noqa: E731
        self.graph.until(ask, f"weights of version {version}", 30.0)
        return self.answers[-1]
