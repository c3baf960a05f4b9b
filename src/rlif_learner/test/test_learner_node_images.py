# SPDX-License-Identifier: Apache-2.0
"""Learner and policy nodes with images: what is sent is what the policy acts on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trunks
import vision_doubles as doubles
from learner_graph import LearnerGraph, image_messages, step_message

from rlif_policy.inference import NumpyActor
from rlif_policy.pretrained import fingerprint
from rlif_policy.stored_actor import read_actor

pytestmark = pytest.mark.ros

PLAIN = {"rlpd.utd": 1, "publish_every": 0}
IMAGES = ((36, 40, 3), (36, 40, 3))
SEEING = {
    **PLAIN, "cameras": ["wrist", "fixed"], "image_width": 40, "image_height": 36,
    "encoder_features": 6,
}  # fmt: skip


@pytest.fixture
def graph():
    made = LearnerGraph()
    yield made
    made.close()


def check_answer(graph, actor, step, version):
    expected = actor.act(step.state, images=step.images if actor.spec.images else ())
    np.testing.assert_allclose(graph.ask(step, version).action, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("frozen", [False, True])
def test_images_become_weights_and_the_policy_answers_to_them(graph, tmp_path, capfd, frozen):
    encoder, trunk, weights = {"encoder": "small"}, None, "torchvision"
    if frozen:
        weights = str(trunks.random_file(tmp_path))
        trunk = trunks.random_tensors("resnet18")
        encoder = {"encoder": "resnet18", "encoder_frozen": True, "encoder_weights": weights}
    learner = graph.start_learner(
        **SEEING, **encoder, run_directory=str(tmp_path / "run"), prior_episodes=1
    )
    graph.send(doubles.noise_episode(1, 9, IMAGES))
    graph.wait_for(10)
    spec, before = graph.newest()
    assert spec.images == IMAGES and spec.state_dim == 3
    graph.send(doubles.noise_episode(2, 9, IMAGES, first=1010))
    status = graph.wait_for(20)
    assert (status.updates, status.lost_steps, status.prior_transitions) == (10, 0, 9)
    spec, after = graph.newest()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.startswith("encoder.heads.") for name in changed)
    assert any(name.startswith("encoder.trunks.") for name in after) == (not frozen)
    if frozen:
        zeros = {n: v * 0 if n.endswith("tracked") else v for n, v in trunk.items()}
        assert spec.encoder.trunk == fingerprint(zeros)

    policy = graph.start_policy(encoder_weights=weights)
    expected = NumpyActor(spec, after, trunk)
    shown = [doubles.noise_episode(n, 1, IMAGES)[0] for n in (7, 8)]
    for step in shown:
        check_answer(graph, expected, step, status.policy_version)
    capfd.readouterr()
    refused = graph.show(doubles.noise_episode(9, 1, (IMAGES[0], (20, 40, 3)))[0])
    graph.until(lambda: "no action: " in capfd.readouterr().err, "the refusal")
    check_answer(graph, expected, shown[0], status.policy_version)
    assert refused not in {answer.tick for answer in graph.answers}
    for node in (policy, learner):
        graph.remove(node)

    stored = read_actor(tmp_path / "run")
    assert stored.spec == spec
    graph.start_policy(encoder_weights=weights, checkpoint=str(tmp_path / "run"), learn=False)
    check_answer(graph, NumpyActor(spec, stored.tensors, trunk), shown[1], stored.version)


def test_steps_with_other_images_are_dropped_and_the_rest_is_learned(graph, capfd):
    graph.start_learner(**SEEING, encoder="small", state_dim=3)
    messages = [step_message(step) for step in doubles.noise_episode(1, 19, IMAGES)]
    messages[3].images[0].encoding = "16UC1"
    messages[6].images = messages[3].images[:1]
    messages[9].images = image_messages([np.zeros((8, 8, 3), np.uint8)] * 2)
    for message in messages:
        graph.replay.publish(message)
    status = graph.wait_for(17)
    assert (status.lost_steps, status.updates) == (3, 7)
    message = graph.wait_for_message("Steps dropped: 3, ")
    assert message.endswith(
        "images of step 9 of episode 1: found ((8, 8, 3), (8, 8, 3)) of ['uint8'], expected "
        "((36, 40, 3), (36, 40, 3)) of uint8"
    )
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("more", [{}, {"keep_images": True}])
def test_images_without_an_encoder_are_ignored(graph, more):
    """And so where they shall be kept, but no camera is named. Regression: all Steps were dropped."""
    graph.start_learner(**PLAIN, **more)
    graph.send(doubles.noise_episode(1, 19, IMAGES))
    status = graph.wait_for(20)
    assert (status.lost_steps, status.updates) == (0, 10)
    spec, tensors = graph.newest()
    assert spec.encoder is None and not any("encoder" in name for name in tensors)
    graph.start_policy()
    step = doubles.noise_episode(5, 1, IMAGES)[0]
    check_answer(graph, NumpyActor(spec, tensors), step, status.policy_version)
