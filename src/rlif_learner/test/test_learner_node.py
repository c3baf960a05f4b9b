# SPDX-License-Identifier: Apache-2.0
"""The learner node: Steps in, weights, status and checkpoints out, what it reports and refuses; images."""

import array
import signal
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import learner_doubles as doubles
import numpy as np
import pytest
import torch
import trunks
import vision_doubles
from learner_graph import SMALL, LearnerGraph, image_messages, parameters, step_message
from rlif_node.qos import RELIABLE_100
from std_srvs.srv import Trigger
from waiting import scaled

from rlif_learner import learner_node
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.data.sampling import Buffers
from rlif_learner.learner_loop import TrainingEndedError
from rlif_learner.learner_node import LearnerNode, robot_names, status_of, step_record
from rlif_learner.making import make_algorithm
from rlif_msgs.msg import CriticValue, LearnerStatus, RobotStatus
from rlif_policy.encoders import EncoderSpec
from rlif_policy.inference import NumpyActor
from rlif_policy.networks import PolicySpec
from rlif_policy.pretrained import fingerprint
from rlif_policy.stored_actor import read_actor

ros = pytest.mark.ros


@pytest.fixture
def graph():
    made = LearnerGraph()
    yield made
    made.close()


def check_same_weights(stored, published):
    assert set(stored) == set(published)
    for name, tensor in published.items():
        np.testing.assert_array_equal(stored[name].numpy(), tensor.numpy())


@ros
def test_steps_become_weights_a_checkpoint_and_a_resumed_learner(graph, tmp_path):
    run, values = {"run_directory": str(tmp_path / "run"), "prior_episodes": 1}, []
    learner = graph.start_learner(**run)
    graph.node.create_subscription(CriticValue, "critic_value", values.append, RELIABLE_100)
    assert graph.statuses[0].caught_up and graph.statuses[0].steps == 0
    graph.send(doubles.episode(1, 9, 1))
    graph.wait_for(10)
    graph.send(doubles.episode(2, 9, 11, takeover=4))
    graph.send(doubles.episode(3, 9, 21, evaluation=True))
    graph.send(doubles.episode(4, 9, 31)[2:])  # two are lost
    status = graph.wait_for(28)
    assert (status.updates, status.critic_steps) == (18, 36)
    assert (status.prior_transitions, status.lost_steps) == (9, 2)
    assert status.intervention_rate == pytest.approx(1 / (9 + 9 + 7))
    assert "critic_loss" in status.metric_names and np.isfinite(status.metric_values).all()
    graph.send(doubles.episode(5, 9, 41, evaluation=True))
    graph.until(lambda: sum(v.episode_id == 5 for v in values) == 9, "a value of each action")
    assert [v.step_index for v in values[-9:]] == list(range(9))
    version = status.policy_version
    spec, published = graph.newest()

    client = graph.node.create_client(Trigger, "save_checkpoint")
    graph.until(client.service_is_ready, "the service")
    call = client.call_async(Trigger.Request())
    graph.until(call.done, "the checkpoint")
    assert call.result().success, call.result().message
    stored = read_actor(call.result().message)
    assert stored.spec == spec and stored.version == version
    check_same_weights(stored.tensors, published)
    graph.remove(learner)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2
    assert list((tmp_path / "run/tensorboard").glob("events*"))

    graph.start_learner(**run, resume=run["run_directory"])
    graph.until(lambda: graph.statuses[-1].steps == 28, "the resumed count")
    graph.until(lambda: graph.weights and graph.weights[-1].version > version, "weights")
    check_same_weights(graph.newest()[1], published)  # a resumed learner once sent a random actor
    assert graph.statuses[-1].updates == 18


@ros
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_process_learns_and_saves_when_it_is_interrupted(graph, start_node, tmp_path):
    process = start_node("rlif_learner", "learner", **SMALL, run_directory=tmp_path)
    graph.listen()
    graph.send(doubles.episode(1, 9, 1))
    graph.wait_for(10)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=scaled(60))
    assert process.returncode == 0, output
    stored = read_actor(tmp_path)
    assert stored.version == graph.weights[-1].version
    check_same_weights(stored.tensors, graph.newest()[1])


@ros
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_process_whose_training_fails_logs_why_and_exits_with_1(graph, start_node):
    process = start_node("rlif_learner", "learner", **SMALL, state_scale=[1.0, 2.0])
    graph.listen()
    graph.send(doubles.episode(1, 3, 1))
    output, _ = process.communicate(timeout=scaled(60))
    assert process.returncode == 1, output
    assert "training ended: ValueError: state_scale: found 2 entries, expected 4" in output


@ros
def test_training_that_fails_is_in_the_last_status(graph):
    learner = graph.start_learner(state_scale=[1.0, 2.0])
    graph.send(doubles.episode(1, 3, 1))
    graph.until(learner.failed, "the failure")
    graph.wait_for_message("training ended: ValueError: state_scale: found 2 entries, expected 4")
    assert not graph.statuses[-1].caught_up


@ros
def test_run_directory_of_another_run_is_refused(graph, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for used in (first, second):
        (used / "checkpoints" / "000001").mkdir(parents=True)
        (used / "checkpoints" / "000001" / "manifest.json").write_text("{}")
    for more in ({}, {"resume": str(second)}):
        with pytest.raises(ValueError, match="holds the checkpoints of another run") as refused:
            LearnerNode(parameters(**SMALL, **more, run_directory=str(first)))
        assert f"{first} already holds" in str(refused.value)
        assert f"resume:={first}" in str(refused.value)
        assert "another run_directory" in str(refused.value)
    assert not (first / "tensorboard").exists()


@ros
def test_prior_bags_fill_the_prior_buffer_and_their_notes_are_logged(graph, monkeypatch, capfd):
    class Recording(list):
        path, notes = Path("demonstrations/1"), ["ends in the middle of an episode"]

    def open_prior(paths, images):
        assert (paths, images) == (["demonstrations"], False)
        return [Recording(doubles.episode(n, 9, 10 * n, takeover=0)) for n in (1, 2)]

    monkeypatch.setattr(learner_node, "open_prior", open_prior)
    graph.start_learner(state_dim=4, prior_bags=["demonstrations"])
    assert graph.statuses[-1].prior_transitions == 18
    assert (graph.statuses[-1].steps, graph.statuses[-1].updates) == (0, 0)
    assert "ends in the middle of an episode" in capfd.readouterr().err


def test_step_record_keeps_images_only_where_asked():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = step_message(replace(doubles.episode(1, 2, 1)[0], images=(image,)))
    (kept,) = step_record(message, keep_images=True).images
    assert (kept == image).all()
    assert step_record(message, keep_images=False).images == ()


@ros
def test_steps_that_cannot_be_used_are_dropped_and_the_rest_is_learned(graph, capfd):
    """Regression: a Step of another size ended the training, an unknown outcome the node."""
    graph.start_learner(state_dim=4)
    steps = [step_message(step) for step in doubles.episode(1, 19, 1)]
    steps[3].state = array.array("f", [0.0] * 7)
    steps[5].source = 9
    steps[-1].outcome = 77  # and this one ends the episode
    for step in steps:
        graph.replay.publish(step)
    status = graph.wait_for(17)
    assert (status.lost_steps, status.updates) == (3, 7)
    graph.send(doubles.episode(2, 9, 21))
    assert graph.wait_for(27).lost_steps == 3
    message = graph.wait_for_message("Steps dropped: 3, the last:")
    assert message.endswith("step 19 of episode 1: 77 is not a valid Outcome")
    assert message in capfd.readouterr().err


@ros
def test_non_finite_update_keeps_the_last_good_weights(graph, tmp_path, capfd):
    """Regression: the thread died without a checkpoint, and later Steps were lost."""
    values = {
        "state_dim": 4, "run_directory": str(tmp_path), "rlpd.layer_norm": False, "publish_every": 4
    }  # fmt: skip
    learner = graph.start_learner(**values)
    graph.send(doubles.episode(1, 19, 1))
    graph.wait_for(20)
    huge = np.full(4, 1e30, np.float32)  # finite, but not its square
    graph.send([replace(step, state=huge) for step in doubles.episode(2, 9, 21)])
    assert "not finite" in graph.wait_for_message("stopped: no more updates")
    graph.send(doubles.episode(3, 9, 31))
    status = graph.wait_for(40)
    graph.listen()  # as one that comes late: the weights are latched
    graph.until(lambda: graph.weights, "the latched weights")
    graph.remove(learner)
    assert "stopped: no more updates" in capfd.readouterr().err
    stored = read_actor(tmp_path)
    assert stored.version == graph.weights[-1].version == status.policy_version
    check_same_weights(stored.tensors, graph.newest()[1])
    store = CheckpointStore(tmp_path)
    manifest = store.verify(store.last_good())
    assert manifest["buffers"]["online"]["state"]["total"] == 40
    assert manifest["values"]["updates"] == status.updates
    graph.start_learner(**values, resume=str(tmp_path))
    graph.until(lambda: graph.statuses[-1].steps == 40, "the resumed count")


@ros
def test_damaged_checkpoint_is_refused_with_the_last_good_one_named(graph, tmp_path):
    """Regression: the one before it was taken, and nobody knew."""
    store = CheckpointStore(tmp_path)
    learner = make_algorithm("bc", {}, "rlpd", PolicySpec(4, 2, (8,)), 0)
    paths = [store.save(learner, Buffers(ReplayBuffer(10, 4, 2))) for _ in range(2)]
    (paths[1] / "manifest.json").unlink()
    with pytest.raises(ValueError, match="resume: ") as refused:
        LearnerNode(parameters(**SMALL, resume=str(tmp_path)))
    assert f"resume: {paths[1]}/manifest.json: cannot be read" in str(refused.value)
    assert f"The last good checkpoint: {paths[0]}" in str(refused.value)


@pytest.mark.parametrize("free", [10**6, 10**12, None])
@pytest.mark.parametrize("publish_every", [0, 50])
def test_start_warns_of_what_would_go_wrong_hours_later(monkeypatch, free, publish_every):
    monkeypatch.setattr(learner_node, "free_memory", lambda: free)
    warnings = []
    node = SimpleNamespace(
        _value={"publish_every": publish_every},
        get_logger=lambda: SimpleNamespace(warning=warnings.append),
    )
    encoder = EncoderSpec("resnet18")
    spec = PolicySpec(3, 2, images=((8, 8, 3),), encoder=encoder)
    LearnerNode._warn_of_size(node, spec, Buffers(ReplayBuffer(50_000, 3, 2, ((8, 8, 3),))))
    found = "".join(warnings)
    assert ("the buffers take 0.0 GB" in found) == (free == 10**6)
    assert ("publish_every: 0 sends them" in found) == bool(publish_every)


def test_save_checkpoint_makes_nobody_else_wait():
    """Regression: until it was written, a minute at most, the node took in nothing."""
    saving = Future()
    node = SimpleNamespace(executor=None, _loop=SimpleNamespace(request_save=lambda: saving))
    answers = [LearnerNode._on_save(node, Trigger.Request(), Trigger.Response()) for _ in range(2)]
    for answer in answers:
        answer.send(None)  # it gives way to others
    saving.set_result(Path("run/checkpoints/000001"))
    for answer in answers:
        with pytest.raises(StopIteration) as ended:
            answer.send(None)
        response = ended.value.value
        assert (response.success, response.message) == (True, "run/checkpoints/000001")


def test_save_checkpoint_that_fails_is_answered_with_the_reason():
    def refuse():
        raise ValueError("no checkpoint_directory")

    failed = Future()
    failed.set_exception(TrainingEndedError("the training has ended"))
    for request, words in ((refuse, "checkpoint_directory"), (lambda: failed, "has ended")):
        node = SimpleNamespace(executor=None, _loop=SimpleNamespace(request_save=request))
        with pytest.raises(StopIteration) as ended:
            LearnerNode._on_save(node, Trigger.Request(), Trigger.Response()).send(None)
        response = ended.value.value
        assert not response.success and words in response.message


TWO = ["arm_1", "cell/arm_2"]


@pytest.fixture
def fleet():
    made = LearnerGraph(tuple(TWO))
    yield made
    made.close()


def of(robot, steps):
    return [replace(step, robot=robot) for step in steps]


@ros
def test_steps_of_several_robots_become_weights_for_each(fleet):
    fleet.start_learner(robots=TWO, state_dim=4, prior_episodes=1)
    for number in (1, 2):
        fleet.send(of("arm_1", doubles.episode(number, 9, 10 * number, takeover=number + 2)))
    fleet.send(of("cell/arm_2", doubles.episode(1, 9, 500)[:-3]))
    fleet.send(of("cell/arm_2", doubles.episode(1, 9, 500)[-2:]))  # one is lost
    status = fleet.wait_for(29)
    assert (status.lost_steps, status.transitions, status.prior_transitions) == (1, 9, 9 + 7)
    assert [(r.robot, r.steps, r.lost_steps) for r in status.robots] == [
        ("arm_1", 20, 0), ("cell/arm_2", 9, 1),
    ]  # fmt: skip
    one, two = TWO  # their rows come when they come: there is no order between topics
    fleet.until(
        lambda: (
            {name: row.steps for name, row in fleet.rows.items()} == {one: 20, two: 9}
            and fleet.rows[two].policy_version == fleet.weights[-1].version > 1
        ),
        lambda: f"the rows and weights of both: {fleet.rows}",
    )
    rows = [fleet.rows[name] for name in TWO]
    assert [row.lost_steps for row in rows] == [0, 1]
    assert [[r.robot for r in row.robots] for row in rows] == [[one], [two]]


@ros
def test_steps_of_a_robot_that_joins_late_are_taken_from_its_recorder(fleet):
    """Latched: what it has recorded before the learner saw it is not lost."""
    fleet.send(of("cell/arm_2", doubles.episode(1, 9, 0)))
    fleet.start_learner(robots=TWO, state_dim=4)
    fleet.send(of("arm_1", doubles.episode(1, 9, 0)))
    status = fleet.wait_for(20)
    assert status.lost_steps == 0 and [row.steps for row in status.robots] == [10, 10]


def test_status_of_a_robot_is_caught_up_with_that_robot():
    row = RobotStatus(robot="arm_1", steps=3, caught_up=True)
    sums = LearnerStatus(steps=9, caught_up=False, updates=4)
    own = status_of(row, sums)
    assert (own.steps, own.caught_up, own.updates, sums.caught_up) == (3, True, 4, False)


@pytest.mark.parametrize(
    ("robots", "words"),
    [
        (["arm_1", "/arm_1"], "expected each robot once"),
        (["arm 1"], "robots: found 'arm 1', expected a namespace"),
        (["arm_1", "rlif"], "robots: found /rlif, the learner's own namespace"),
    ],
)
def test_robots_that_are_no_namespaces_or_not_different_are_refused(robots, words):
    with pytest.raises(ValueError, match=words):
        robot_names(robots, "/rlif")


WRONG = [
    ({"rlpd.utdd": 3}, "rlpd.utdd"),
    ({"algorithm": "ppo"}, "found 'ppo', expected one of rlpd"),
    ({"resume": "/nowhere"}, "found none at /nowhere"),
    ({"state_dim": 4, "state_scale": [1.0]}, "state_scale: found 1 entries, expected 4"),
    (
        {"encoder": "resnet18", "cameras": ["wrist"], "encoder_weights": "/nowhere.pth"},
        "found no file /nowhere.pth",
    ),
    ({"rlpd.random_shift": 1000}, "random_shift: found 1000"),
    ({"failure_reward": -0.5}, "failure_reward: found -0.5, expected 0 or at most -1"),
]


@ros
@pytest.mark.parametrize(("values", "words"), WRONG)
def test_wrong_configuration_is_refused_at_once(graph, values, words):
    """ValueError, of which rlif_node.running makes a line on the log and exit code 2."""
    with pytest.raises(ValueError) as refused:
        LearnerNode(parameters(**{**SMALL, **values}))
    assert words in str(refused.value)


PLAIN = {"rlpd.utd": 1, "publish_every": 0}
IMAGES = ((36, 40, 3), (36, 40, 3))
SEEING = {
    **PLAIN, "cameras": ["wrist", "fixed"], "image_width": 40, "image_height": 36,
    "encoder_features": 6,
}  # fmt: skip


def check_answer(graph, actor, step, version):
    expected = actor.act(step.state, images=step.images if actor.spec.images else ())
    np.testing.assert_allclose(graph.ask(step, version).action, expected, atol=1e-5)


@ros
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
    graph.send(vision_doubles.noise_episode(1, 9, IMAGES))
    graph.wait_for(10)
    spec, before = graph.newest()
    assert spec.images == IMAGES and spec.state_dim == 3
    graph.send(vision_doubles.noise_episode(2, 9, IMAGES, first=1010))
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
    shown = [vision_doubles.noise_episode(n, 1, IMAGES)[0] for n in (7, 8)]
    for step in shown:
        check_answer(graph, expected, step, status.policy_version)
    capfd.readouterr()
    refused = graph.show(vision_doubles.noise_episode(9, 1, (IMAGES[0], (20, 40, 3)))[0])
    graph.until(lambda: "no action: " in capfd.readouterr().err, "the refusal")
    check_answer(graph, expected, shown[0], status.policy_version)
    assert refused not in {answer.tick for answer in graph.answers}
    for node in (policy, learner):
        graph.remove(node)

    stored = read_actor(tmp_path / "run")
    assert stored.spec == spec
    graph.start_policy(encoder_weights=weights, checkpoint=str(tmp_path / "run"), learn=False)
    check_answer(graph, NumpyActor(spec, stored.tensors, trunk), shown[1], stored.version)


@ros
def test_steps_with_other_images_are_dropped_and_the_rest_is_learned(graph, capfd):
    graph.start_learner(**SEEING, encoder="small", state_dim=3)
    messages = [step_message(step) for step in vision_doubles.noise_episode(1, 19, IMAGES)]
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


@ros
@pytest.mark.parametrize("more", [{}, {"keep_images": True}])
def test_images_without_an_encoder_are_ignored(graph, more):
    """And so where they shall be kept, but no camera is named. Regression: all Steps were dropped."""
    graph.start_learner(**PLAIN, **more)
    graph.send(vision_doubles.noise_episode(1, 19, IMAGES))
    status = graph.wait_for(20)
    assert (status.lost_steps, status.updates) == (0, 10)
    spec, tensors = graph.newest()
    assert spec.encoder is None and not any("encoder" in name for name in tensors)
    graph.start_policy()
    step = vision_doubles.noise_episode(5, 1, IMAGES)[0]
    check_answer(graph, NumpyActor(spec, tensors), step, status.policy_version)
