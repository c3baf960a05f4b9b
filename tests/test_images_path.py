"""The same bytes all the way: simulated camera, observer, DDS, recorder, bag, the learner's batch."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Image

from rlif_bags.reading.step_reader import StepReader
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.step_messages import record_from_message
from rlif_learner.data.steps import StepRecord
from rlif_msgs.msg import Step
from rlif_policy.images import CameraSpec, RawImage, to_rgb

pytestmark = pytest.mark.ros

CONFIG = Path(__file__).parents[1] / "config"
CAMERAS = ("wrist", "fixed")
NODES = {
    "robot": ("rlif_sim", "sim_robot"),
    "operator": ("rlif_sim", "sim_operator"),
    "observer": ("rlif_policy", "observer"),
    "policy": ("rlif_policy", "policy"),
    "arbiter": ("rlif_intervention", "arbiter"),
    "episode": ("rlif_intervention", "episode"),
    "recorder": ("rlif_intervention", "recorder"),
}
Pictures = dict[int, dict[str, np.ndarray]]  # by stamp and camera, as an observation has them

# What the cameras send, what is used of it, what an observation has.
SETTINGS = {
    "as they come": ((64, 48), (), (64, 48)),
    "a region, resized": ((160, 120), (40, 10, 100, 100), (32, 32)),
}


def parameters(run_directory, sent, roi, used) -> dict[str, dict[str, object]]:
    images = {"images": True}
    sides = dict(zip(("camera_width", "camera_height"), sent, strict=True))
    observer = images | dict(zip(("image_width", "image_height"), used, strict=True))
    for name in CAMERAS:
        observer |= {f"camera.{name}.width": sent[0], f"camera.{name}.height": sent[1]}
        observer |= {f"camera.{name}.roi": list(roi)} if roi else {}
    lock = {"lock_step": True}
    return {
        "robot": lock | images | sides,
        "operator": lock,
        "observer": lock | observer,
        "policy": {"initial": "random"},
        "arbiter": lock,
        "episode": {"auto_start": True, "max_steps": 10},
        "recorder": {"bag_directory": str(run_directory / "bag")},
    }


def start(start_node, name, values) -> object:
    package, file = NODES[name]
    return start_node(
        package,
        name,
        files=[CONFIG / f"{file}.yaml", CONFIG / "sim" / "robot.yaml"],
        remap={"servo_node/delta_twist_cmds": "command"} if name == "robot" else None,
        use_sim_time=name != "robot",
        **values,
    )


def listen(node, specs: dict[str, CameraSpec]) -> tuple[Pictures, list[Step]]:
    pictures: Pictures = {}
    steps: list[Step] = []

    def keep(name: str, message: Image) -> None:
        data = np.frombuffer(message.data, np.uint8)
        raw = RawImage(message.width, message.height, message.encoding, message.step, data)
        seen = pictures.setdefault(to_ns(message.header.stamp), {})
        seen[name] = to_rgb(raw, specs[name])

    for name in specs:
        node.create_subscription(
            Image, f"camera/{name}/image", lambda m, n=name: keep(n, m), QoSProfile(depth=50)
        )
    node.create_subscription(Step, "replay", steps.append, QoSProfile(depth=1000))
    return pictures, steps


def sampled(records: Iterable[StepRecord], shape: tuple[int, int, int]) -> ReplayBuffer:
    records = list(records)
    buffer = ReplayBuffer(
        len(records) + 2, len(records[0].state), len(records[0].action), (shape,) * len(CAMERAS)
    )
    for record in records:
        buffer.add_step(record)
    return buffer


def check_batch(buffer: ReplayBuffer, expected: dict[bytes, tuple[np.ndarray, ...]]) -> int:
    """Transitions of many batches that have the pictures of their two states; how many differ."""
    batch = buffer.sample(512, np.random.default_rng(0))
    seen = set()
    for row in range(512):
        pairs = ((batch.states, batch.images), (batch.next_states, batch.next_images))
        for states, images in pairs:
            state = states[row].numpy().tobytes()
            seen.add(state)
            for image, wanted in zip(images, expected[state], strict=True):
                assert image[row].numpy().tobytes() == wanted.tobytes()
    return len(seen)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_batch_has_the_pictures_of_the_camera_to_the_last_bit(
    setting, ros_node, start_node, spin_until, tmp_path
):
    sent, roi, used = SETTINGS[setting]
    specs = {name: CameraSpec(name, *sent, *used, roi) for name in CAMERAS}
    pictures, steps = listen(ros_node, specs)
    values = parameters(tmp_path, sent, roi, used)
    running = {"robot": start(start_node, "robot", values["robot"])}
    # What the cameras send before they know this test would be missing below.
    spin_until(lambda: any(len(seen) == 2 for seen in pictures.values()), "pictures", 60.0)
    running |= {name: start(start_node, name, values[name]) for name in NODES if name != "robot"}

    def enough() -> bool:
        for name, process in running.items():
            assert process.poll() is None, f"{name} ended: {process.stdout.read()}"
        return sum(step.is_last for step in steps) >= 3

    spin_until(enough, "three episodes", 90.0)
    running["recorder"].send_signal(signal.SIGINT)
    assert running["recorder"].wait(30) == 0
    live = {step.sequence: step for step in steps}
    stored = {
        record.sequence: record
        for record in StepReader(tmp_path / "bag")
        if record.sequence in live
    }
    assert set(stored) == set(live) and len(live) > 20
    expected = {}
    for sequence, record in stored.items():
        seen = pictures[to_ns(live[sequence].header.stamp)]
        expected[record.state.tobytes()] = tuple(seen[name] for name in CAMERAS)
        assert [i.header.frame_id for i in live[sequence].images] == list(CAMERAS)
        for name, image in zip(CAMERAS, record.images, strict=True):
            assert image.tobytes() == seen[name].tobytes(), f"{name}, step {sequence}"
    assert len(expected) == len(stored), "two states are the same: a pair would not be checked"
    distinct = {pair[0].tobytes() for pair in expected.values()}
    assert len(distinct) > 10, "the pictures must differ, or any would do"
    shape = (used[1], used[0], 3)
    for records in (map(record_from_message, steps), stored.values()):
        assert check_batch(sampled(records, shape), expected) > 15
