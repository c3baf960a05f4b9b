"""The learner as a process, over DDS."""

import array
import importlib.util
import signal
from pathlib import Path

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from rlif_learner.bags_write import StepWriter
from rlif_learner.learner_node import step_record
from rlif_msgs.msg import LearnerStatus, PolicyWeights, Step
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import read_actor
from rlif_policy.weights import unpack_weights

_spec = importlib.util.spec_from_file_location(
    "doubles", Path(__file__).with_name("learner_doubles.py")
)
doubles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(doubles)

START = 90.0  # s; importing torch takes a while where other tests run beside this one
REPLAY = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # the recorder's
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SMALL = {
    "axes": "[a, b]", "hidden": "[8]", "rlpd.hidden": "[8]", "rlpd.utd": 2, "rlpd.batch_size": 8,
    "rlpd.ensemble_size": 2, "warmup_steps": 10,
}  # fmt: skip


def step_message(step):
    message = Step(
        sequence=step.sequence, episode_id=step.episode_id, step_index=step.step_index,
        is_first=step.is_first, is_last=step.is_last, outcome=int(step.outcome),
        source=int(step.source), onset=step.onset, intervention_id=step.intervention_id,
        evaluation=step.evaluation,
    )  # fmt: skip
    message.state = array.array("f", step.state.tobytes())
    message.executed_action = array.array("f", step.action.tobytes())
    return message


class Rig:
    """A recorder and a policy for the learner."""

    def __init__(self, node, start_node, spin_until, **parameters):
        self.node, self.spin_until = node, spin_until
        self.statuses, self.weights = [], []
        node.create_subscription(LearnerStatus, "learner_status", self.statuses.append, LATCHED)
        node.create_subscription(PolicyWeights, "weights", self.weights.append, LATCHED)
        self.replay = node.create_publisher(Step, "replay", REPLAY)
        self.process = start_node("rlif_learner", "learner", **{**SMALL, **parameters})
        spin_until(lambda: self.statuses, "the first status", START)
        spin_until(self.replay.get_subscription_count, "the learner's subscription")

    def send(self, steps):
        for step in steps:
            self.replay.publish(step_message(step))

    def wait_for(self, steps):
        self.spin_until(
            lambda: self.statuses[-1].steps == steps and self.statuses[-1].caught_up,
            f"{steps} steps worked through",
            40.0,
        )
        return self.statuses[-1]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


@pytest.fixture
def make_rig(ros_node, start_node, spin_until):
    return lambda **parameters: Rig(ros_node, start_node, spin_until, **parameters)


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
    spin_until(lambda: rig.weights[-1].version == status.policy_version, "the newest weights")
    newest = rig.weights[-1]
    spec = PolicySpec.from_json(newest.spec)
    published = unpack_weights(bytes(newest.data), newest.sha256, spec)

    client = rig.node.create_client(Trigger, "save_checkpoint")
    spin_until(client.service_is_ready, "the service")
    call = client.call_async(Trigger.Request())
    spin_until(call.done, "the checkpoint")
    assert call.result().success, call.result().message
    stored = read_actor(call.result().message)
    assert stored.spec == spec and stored.version == newest.version
    for name, tensor in published.items():
        np.testing.assert_array_equal(stored.tensors[name].numpy(), tensor.numpy())
    code, output = rig.end()
    assert code == 0, output
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2
    assert list((tmp_path / "run/tensorboard").glob("events*"))

    again = make_rig(run_directory=tmp_path / "run", resume=tmp_path / "run", prior_episodes=1)
    spin_until(lambda: again.statuses[-1].steps == 28, "the resumed count")
    spin_until(lambda: again.weights and again.weights[-1].version > newest.version, "weights")
    resumed = unpack_weights(bytes(again.weights[-1].data), again.weights[-1].sha256, spec)
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
    rig = make_rig(state_dim=4)
    spin_until(lambda: rig.weights, "the initial weights")
    rig.send(doubles.episode(1, 3, 1, state_dim=7))
    spin_until(lambda: rig.statuses[-1].message, "the reason")
    assert "found shape (7,), expected (4,)" in rig.statuses[-1].message
    assert not rig.statuses[-1].caught_up
    spin_until(lambda: rig.process.poll() is not None, "the end of the process")
    assert rig.process.returncode == 1


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
