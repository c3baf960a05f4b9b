"""Learner and policy over DDS, with images: what is sent is seen, and what is wrong is said."""

from __future__ import annotations

import array

import numpy as np
import pytest
import replay_rig
import torch
import trunks
import vision_doubles as doubles
from replay_rig import START, ReplayRig, image_messages, step_message

from rlif_msgs.msg import Observation, PolicyAction
from rlif_policy.inference import NumpyActor
from rlif_policy.pretrained import fingerprint
from rlif_policy.stored_actor import read_actor

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SMALL = {**replay_rig.SMALL, "rlpd.utd": 1, "publish_every": 0}
IMAGES = ((36, 40, 3), (36, 40, 3))
SEEING = {
    **SMALL, "cameras": "[wrist, fixed]", "image_width": 40, "image_height": 36,
    "encoder_features": 6,
}  # fmt: skip


class Rig(ReplayRig):
    """With an observer for a policy, from `start_policy` on."""

    def __init__(self, node, start_node, spin_until, **parameters):
        self.start_node, self.answers, self.tick = start_node, [], 0
        node.create_subscription(PolicyAction, "policy_action", self.answers.append, 10)
        self.observation = node.create_publisher(Observation, "observation", 10)
        super().__init__(node, start_node, spin_until, **parameters)

    def start_policy(self, **parameters):
        policy = self.start_node(
            "rlif_policy", "policy", axes="[a, b]", deterministic=True, **parameters
        )
        self.spin_until(self.observation.get_subscription_count, "the policy", START)
        self.spin_until(lambda: self.node.count_publishers("policy_action"), "its answers")
        return policy

    def show(self, step):
        self.tick += 1
        message = Observation(tick=self.tick, state=array.array("f", step.state))
        message.images = image_messages(step.images)
        self.observation.publish(message)
        return self.tick

    def ask(self, step, version=None):
        """The answer to what is shown, again and again until it is of `version`."""
        ticks = [self.show(step)]

        def answered():
            if not self.answers or self.answers[-1].tick != ticks[-1]:
                return False
            if version in (None, self.answers[-1].policy_version):
                return True
            ticks.append(self.show(step))
            return False

        self.spin_until(answered, f"an answer of version {version}", 40.0)
        return self.answers[-1]


@pytest.fixture
def make_rig(ros_node, start_node, spin_until):
    return lambda **parameters: Rig(ros_node, start_node, spin_until, **parameters)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("frozen", [False, True])
def test_images_become_weights_and_the_policy_answers_what_it_sees(make_rig, tmp_path, frozen):
    more, trunk, weights = {"encoder": "small"}, None, "torchvision"
    if frozen:
        weights = str(trunks.random_file(tmp_path))
        trunk = trunks.random_tensors("resnet18")
        more = {"encoder": "resnet18", "encoder_frozen": True, "encoder_weights": weights}
    rig = make_rig(**SEEING, **more, run_directory=tmp_path / "run", prior_episodes=1)
    rig.send(doubles.noise_episode(1, 9, IMAGES))
    rig.wait_for(10)
    spec, before = rig.newest()
    assert spec.images == IMAGES and spec.state_dim == 3
    rig.send(doubles.noise_episode(2, 9, IMAGES, first=1010))
    status = rig.wait_for(20)
    assert (status.updates, status.lost_steps, status.prior_transitions) == (10, 0, 9)
    spec, after = rig.newest()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.startswith("encoder.heads.") for name in changed)
    assert any(name.startswith("encoder.trunks.") for name in after) == (not frozen)
    if frozen:
        zeros = {n: v * 0 if n.endswith("tracked") else v for n, v in trunk.items()}
        assert spec.encoder.trunk == fingerprint(zeros)

    policy = rig.start_policy(encoder_weights=weights)
    expected = NumpyActor(spec, after, trunk)
    shown = [doubles.noise_episode(n, 1, IMAGES)[0] for n in (7, 8)]
    for step in shown:
        answer = rig.ask(step, status.policy_version)
        np.testing.assert_allclose(
            answer.action, expected.act(step.state, images=step.images), atol=1e-5
        )
    other = doubles.noise_episode(9, 1, (IMAGES[0], (20, 40, 3)))[0]
    refused = rig.show(other)
    rig.ask(shown[0])
    assert refused not in {answer.tick for answer in rig.answers}
    code, output = rig.end(policy)
    assert code == 0, output

    code, output = rig.end()
    assert code == 0, output
    stored = read_actor(tmp_path / "run")
    assert stored.spec == spec
    rig.start_policy(encoder_weights=weights, checkpoint=tmp_path / "run", learn=False)
    acting = NumpyActor(stored.spec, stored.tensors, trunk)
    answer = rig.ask(shown[1], stored.version)
    np.testing.assert_allclose(
        answer.action, acting.act(shown[1].state, images=shown[1].images), atol=1e-5
    )


@pytest.mark.timeout(180)
def test_steps_with_other_images_are_dropped_and_said_and_the_rest_is_learned(make_rig):
    rig = make_rig(**SEEING, encoder="small", state_dim=3)
    steps = doubles.noise_episode(1, 19, IMAGES)
    messages = [step_message(step) for step in steps]
    messages[3].images[0].encoding = "16UC1"
    messages[6].images = messages[3].images[:1]
    messages[9].images = image_messages([np.zeros((8, 8, 3), np.uint8)] * 2)
    for message in messages:
        rig.replay.publish(message)
    status = rig.wait_for(17)
    assert (status.lost_steps, status.updates) == (3, 7)
    rig.spin_until(lambda: "Steps dropped: 3, " in rig.statuses[-1].message, "the words")
    words = "images of step 9 of episode 1: found ((8, 8, 3), (8, 8, 3)) of ['uint8'], expected"
    assert words in rig.statuses[-1].message
    code, output = rig.end()
    assert code == 0, output
    assert f"{words} ((36, 40, 3), (36, 40, 3)) of uint8" in output


@pytest.mark.timeout(180)
@pytest.mark.parametrize("more", [{}, {"keep_images": True}])
def test_without_an_encoder_images_are_ignored(make_rig, more):
    """And so where they shall be kept, but no camera is named. Regression: all Steps were dropped."""
    rig = make_rig(**SMALL, **more)
    rig.send(doubles.noise_episode(1, 19, IMAGES))
    status = rig.wait_for(20)
    assert (status.lost_steps, status.updates) == (0, 10)
    spec, tensors = rig.newest()
    assert spec.encoder is None and not any("encoder" in name for name in tensors)
    if more:
        return  # the same weights: the policy has no part in what the learner keeps
    rig.start_policy()
    step = doubles.noise_episode(5, 1, IMAGES)[0]
    answer = rig.ask(step, status.policy_version)
    np.testing.assert_allclose(answer.action, NumpyActor(spec, tensors).act(step.state), atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"encoder": "resnet18", "encoder_weights": "/nowhere.pth"}, "found no file /nowhere.pth"),
        ({"encoder": "small", "rlpd.random_shift": 1000}, "random_shift: found 1000"),
    ],
)
def test_a_wrong_configuration_ends_the_node_at_once(start_node, parameters, words):
    """Of the encoder and of the algorithm; which ones are wrong: test_vision.py, test_config.py."""
    process = start_node("rlif_learner", "learner", **{**SEEING, **parameters})
    output, _ = process.communicate(timeout=START)
    assert process.returncode == 2, output
    assert words in output
