"""The learner as a process, over DDS."""

import array
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import learner_doubles as doubles
import numpy as np
import pytest
import replay_rig
from replay_rig import LATCHED, START, ReplayRig, step_message
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from rlif_bags.step_writer import StepWriter
from rlif_learner import learner_node
from rlif_learner.algorithms.registry import make_algorithm
from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.learner_loop import TrainingEndedError
from rlif_learner.learner_node import LearnerNode, step_record
from rlif_msgs.msg import PolicyWeights
from rlif_policy.encoders import EncoderSpec
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import read_actor
from rlif_policy.weights import unpack_weights

pytestmark = pytest.mark.ros

SMALL = {**replay_rig.SMALL, "rlpd.utd": 2}


@pytest.fixture
def make_rig(ros_node, start_node, spin_until):
    return lambda **more: ReplayRig(ros_node, start_node, spin_until, **{**SMALL, **more})


@pytest.mark.timeout(300)
def test_steps_become_weights_a_checkpoint_and_a_resumed_learner(make_rig, spin_until, tmp_path):
    rig = make_rig(run_directory=tmp_path / "run", prior_episodes=1)
    assert rig.statuses[0].caught_up and rig.statuses[0].steps == 0
    rig.send(doubles.episode(1, 9, 1))
    rig.wait_for(10)
    rig.send(doubles.episode(2, 9, 11, takeover=4))
    rig.send(doubles.episode(3, 9, 21, evaluation=True))
    rig.send(doubles.episode(4, 9, 31)[2:])  # two are lost
    status = rig.wait_for(28)
    assert (status.updates, status.critic_steps) == (18, 36)
    assert (status.prior_transitions, status.lost_steps) == (9, 2)
    assert status.intervention_rate == pytest.approx(1 / (9 + 9 + 7))
    assert "critic_loss" in status.metric_names and np.isfinite(status.metric_values).all()
    version = status.policy_version
    spec, published = rig.newest()

    client = rig.node.create_client(Trigger, "save_checkpoint")
    spin_until(client.service_is_ready, "the service")
    call = client.call_async(Trigger.Request())
    spin_until(call.done, "the checkpoint")
    assert call.result().success, call.result().message
    stored = read_actor(call.result().message)
    assert stored.spec == spec and stored.version == version
    for name, tensor in published.items():
        np.testing.assert_array_equal(stored.tensors[name].numpy(), tensor.numpy())
    code, output = rig.end()
    assert code == 0, output
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2
    assert list((tmp_path / "run/tensorboard").glob("events*"))

    again = make_rig(run_directory=tmp_path / "run", resume=tmp_path / "run", prior_episodes=1)
    spin_until(lambda: again.statuses[-1].steps == 28, "the resumed count")
    spin_until(lambda: again.weights and again.weights[-1].version > version, "weights")
    _, resumed = again.newest()
    for name, tensor in published.items():  # a resumed learner once sent a random actor
        np.testing.assert_array_equal(resumed[name].numpy(), tensor.numpy())
    assert again.statuses[-1].updates == 18


def test_a_run_directory_that_holds_another_run_is_refused(start_node, tmp_path):
    for used in ("first", "second"):
        (tmp_path / used / "checkpoints" / "000001").mkdir(parents=True)
        (tmp_path / used / "checkpoints" / "000001" / "manifest.json").write_text("{}")
    for more in ({}, {"resume": tmp_path / "second"}):
        process = start_node(
            "rlif_learner", "learner", **SMALL, **more, run_directory=tmp_path / "first"
        )
        output, _ = process.communicate(timeout=START)
        assert process.returncode == 2, output
        assert f"{tmp_path / 'first'} already holds the checkpoints" in output
        assert f"resume:={tmp_path / 'first'}" in output and "another run_directory" in output
    assert not (tmp_path / "first" / "tensorboard").exists()


@pytest.mark.timeout(180)
def test_demonstrations_come_out_of_bags(make_rig, spin_until, tmp_path):
    with StepWriter(tmp_path / "demonstrations") as writer:
        for number in (1, 2):
            for step in doubles.episode(number, 9, 10 * number, takeover=0):
                writer.write(step, 10**9 * step.sequence)
    rig = make_rig(state_dim=4, prior_bags=f"[{tmp_path / 'demonstrations'}]")
    assert rig.statuses[-1].prior_transitions == 18
    assert (rig.statuses[-1].steps, rig.statuses[-1].updates) == (0, 0)


def test_images_are_kept_only_where_asked_for():
    message = step_message(doubles.episode(1, 2, 1)[0])
    pixels = np.arange(24, dtype=np.uint8)
    image = Image(
        height=2, width=4, encoding="rgb8", step=12, data=array.array("B", pixels.tobytes())
    )
    message.images = [image]
    (kept,) = step_record(message, keep_images=True).images
    assert (kept == pixels.reshape(2, 4, 3)).all()
    assert step_record(message, keep_images=False).images == ()


@pytest.mark.timeout(180)
def test_a_training_that_fails_says_why_and_ends_the_node(make_rig, spin_until):
    rig = make_rig(state_scale="[1.0, 2.0]")
    rig.send(doubles.episode(1, 3, 1))
    spin_until(lambda: rig.statuses[-1].message, "the reason")
    assert "state_scale: found 2 entries, expected 4" in rig.statuses[-1].message
    assert not rig.statuses[-1].caught_up
    spin_until(lambda: rig.learner.poll() is not None, "the end of the process")
    assert rig.learner.returncode == 1


@pytest.mark.timeout(180)
def test_steps_that_cannot_be_used_are_dropped_and_said_and_the_rest_is_learned(make_rig):
    """Regression: a Step of another size ended the training, an unknown outcome the node."""
    rig = make_rig(state_dim=4)
    steps = [step_message(step) for step in doubles.episode(1, 19, 1)]
    steps[3].state = array.array("f", [0.0] * 7)
    steps[5].source = 9
    steps[-1].outcome = 77  # and this one ends the episode
    for step in steps:
        rig.replay.publish(step)
    status = rig.wait_for(17)
    assert (status.lost_steps, status.updates) == (3, 7)
    rig.send(doubles.episode(2, 9, 21))
    assert rig.wait_for(27).lost_steps == 3
    rig.spin_until(lambda: "Steps dropped: 3, the last:" in rig.statuses[-1].message, "the words")
    code, output = rig.end()
    assert code == 0, output
    assert "Steps dropped: 3, the last: step 19 of episode 1: 77 is not a valid Outcome" in output


@pytest.mark.timeout(180)
def test_after_an_update_that_is_not_finite_the_last_good_weights_stay(
    make_rig, spin_until, tmp_path
):
    """Regression: the thread died without a checkpoint, and later Steps were lost."""
    more = {"rlpd.layer_norm": False, "publish_every": 4}
    rig = make_rig(state_dim=4, run_directory=tmp_path / "run", **more)
    rig.send(doubles.episode(1, 19, 1))
    rig.wait_for(20)
    huge = np.full(4, 1e30, np.float32)  # finite, but not its square
    rig.send([replace(step, state=huge) for step in doubles.episode(2, 9, 21)])
    spin_until(lambda: "stopped: no more updates" in rig.statuses[-1].message, "the reason")
    assert "not finite" in rig.statuses[-1].message
    rig.send(doubles.episode(3, 9, 31))
    status = rig.wait_for(40)
    late: list[PolicyWeights] = []
    rig.node.create_subscription(PolicyWeights, "weights", late.append, LATCHED)
    spin_until(lambda: late, "the latched weights")
    code, output = rig.end()
    assert code == 0 and "stopped: no more updates" in output, output
    stored = read_actor(tmp_path / "run")
    assert stored.version == late[-1].version == status.policy_version
    spec = PolicySpec.from_json(late[-1].spec)
    published = unpack_weights(bytes(late[-1].data), late[-1].sha256, spec)
    for name, tensor in published.items():
        np.testing.assert_array_equal(stored.tensors[name].numpy(), tensor.numpy())

    store = CheckpointStore(tmp_path / "run")
    manifest = store.verify(store.last_good())
    assert manifest["buffers"]["online"]["state"]["total"] == 40
    assert manifest["values"]["updates"] == status.updates
    again = make_rig(state_dim=4, run_directory=tmp_path / "run", resume=tmp_path / "run", **more)
    spin_until(lambda: again.statuses[-1].steps == 40, "the resumed count")


def test_a_damaged_checkpoint_is_not_resumed_and_the_last_good_one_is_offered(start_node, tmp_path):
    """Regression: the one before it was taken, and nobody knew."""
    store = CheckpointStore(tmp_path)
    learner = make_algorithm("bc", {}, "rlpd", PolicySpec(4, 2, (8,)), 0)
    paths = [store.save(learner, Buffers(ReplayBuffer(10, 4, 2))) for _ in range(2)]
    (paths[1] / "manifest.json").unlink()
    process = start_node("rlif_learner", "learner", **SMALL, resume=tmp_path)
    output, _ = process.communicate(timeout=START)
    assert process.returncode == 2, output
    assert f"resume: {paths[1]}/manifest.json: cannot be read" in output
    assert f"The last good checkpoint: {paths[0]}" in output


@pytest.mark.parametrize("free", [10**6, 10**12, None])
@pytest.mark.parametrize("publish_every", [0, 50])
def test_what_would_go_wrong_hours_later_is_said_at_the_start(monkeypatch, free, publish_every):
    monkeypatch.setattr(learner_node, "free_memory", lambda: free)
    said = []
    node = SimpleNamespace(
        _value={"publish_every": publish_every},
        get_logger=lambda: SimpleNamespace(warning=said.append),
    )
    encoder = EncoderSpec("resnet18")
    spec = PolicySpec(3, 2, images=((8, 8, 3),), encoder=encoder)
    LearnerNode._warn_of_size(node, spec, Buffers(ReplayBuffer(50_000, 3, 2, ((8, 8, 3),))))
    words = "".join(said)
    assert ("the buffers take 0.0 GB" in words) == (free == 10**6)
    assert ("publish_every: 0 sends them" in words) == bool(publish_every)


def test_whoever_asks_for_a_checkpoint_waits_alone():
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


def test_a_checkpoint_that_fails_is_answered_in_words():
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


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rlpd.utdd": 3}, "rlpd.utdd"),
        ({"algorithm": "ppo"}, "found 'ppo', expected one of rlpd"),
        ({"resume": "/nowhere"}, "found none at /nowhere"),
        ({"state_dim": 4, "state_scale": "[1.0]"}, "state_scale: found 1 entries, expected 4"),
    ],
)
def test_a_wrong_configuration_ends_the_node_at_once(start_node, parameters, words):
    process = start_node("rlif_learner", "learner", **{**SMALL, **parameters})
    output, _ = process.communicate(timeout=START)
    assert process.returncode == 2, output
    assert words in output
