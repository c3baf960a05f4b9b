# SPDX-License-Identifier: Apache-2.0
"""What seeing costs: from images to an action, updates per second, the buffer, where time goes.

    python benchmarks/bench_vision.py              # some three minutes; benchmarks/results/vision.json
    python benchmarks/bench_vision.py --quick      # a second of each, nothing written
    python benchmarks/bench_vision.py --robot      # config/ur5e_gamepad on one core alone: a minute
    python benchmarks/bench_vision.py --device cpu # leaves a GPU out; cuda: fails where there is none

Two cameras of 128x128 unless a name says otherwise, on two cores (further ones are left out). Keys
without a name of a device are the processor's, with two threads; `learner` has one thread too, which
is the learner node's default. `gpu` has what the learner does on a GPU. The policy is on the
processor always, with one thread, as the node is.

A policy's answer is timed twice. `in_process`: from an Observation, as rclpy hands it over, to the
action. `dds`: the real policy node in a process of its own, from before an Observation is published
until the PolicyAction of its tick has come, 30 times per second; with weights that came over DDS too.

ImageNet's weights are not fetched: the frozen ResNet-18 has random ones, which cost the same time.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import rclpy
import torch
import yaml
from bench_ablation import random_weights
from bench_demo import machine
from bench_learner import median_time
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.table import Table
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.running import make_executor
from std_msgs.msg import Header
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from rlif_learner.algorithms import rlpd
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.augmentation import random_shift
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome, Source, StepRecord
from rlif_learner.engines.memory import keep_freed_memory
from rlif_learner.engines.select import accelerate
from rlif_learner.vision import Vision, VisionConfig, make_buffer, make_vision
from rlif_msgs.msg import Observation, PolicyAction, PolicyWeights
from rlif_policy.encoders import EncoderSpec, ImageEncoder
from rlif_policy.features import StateLayout
from rlif_policy.inference import NumpyActor
from rlif_policy.networks import Actor, PolicySpec
from rlif_policy.observer_messages import image_message
from rlif_policy.policy_node import pixels
from rlif_policy.processor import processor
from rlif_policy.weights import pack_weights, unpack_weights

RESULTS = Path(__file__).with_name("results") / "vision.json"
CONFIG = Path(__file__).parent.parent / "config"
LIMITS = {"policy_ms_p99_2cameras": 20.0, "bytes_per_transition_ratio": 1.05}  # at most
CAMERAS = ("wrist", "fixed")
SIDE = 128  # pixels of an image
STATE, AXES = 17, ["x", "y", "z", "roll", "pitch", "yaw"]
ENCODERS = {"small": {}, "frozen_resnet18": {"encoder": "resnet18", "encoder_frozen": True}}
ROBOT = "ur5e_gamepad"
BATCH = 256
EPISODE = 100  # actions
DOMAIN = "79"  # of DDS: nobody else's policy shall hear this
RATE = 30.0  # Hz, observations over DDS
STARTING = 60.0  # s of a node to start, and of an answer to come
BLOCKS = 5  # of updates; their median counts
TRANSITIONS = 100_000  # whose memory is told
FILLED = 10_000  # of them are really stored, 1 GB
DISTINCT = 16  # pictures in a buffer: each row has a copy of its own


def make(encoder: str, weights: str, cameras: int = 2) -> Vision:
    """What one of ENCODERS is made of."""
    chosen: dict[str, Any] = {"encoder": "small", "encoder_weights": weights, **ENCODERS[encoder]}
    return make_vision(VisionConfig(**chosen, cameras=CAMERAS[:cameras]))


def noise(shape: Sequence[int], count: int, cameras: int) -> list[tuple[np.ndarray, ...]]:
    """Images of `count` observations."""
    rng = np.random.default_rng(0)
    return [
        tuple(rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(cameras))
        for _ in range(count)
    ]


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = (round(float(np.percentile(milliseconds, p)), 2) for p in (50, 99))
    return {"p50": p50, "p99": p99, "answers": len(milliseconds)}


# ---- the policy


def observations(cameras: int) -> list[Observation]:
    """As the observer publishes them."""
    rng = np.random.default_rng(1)
    found = []
    for images in noise((SIDE, SIDE, 3), DISTINCT, cameras):
        message = Observation(images=[image_message(image, Header()) for image in images])
        message.state = array.array("f", rng.normal(size=STATE).astype(np.float32))
        found.append(message)
    return found


def in_process(actor: Actor, trunk: Mapping[str, Tensor] | None, calls: int) -> dict[str, float]:
    """What PolicyNode does between an Observation and its answer, ms."""
    spec, rng = actor.spec, np.random.default_rng(0)
    policy = NumpyActor(spec, unpack_weights(*pack_weights(actor, spec), spec), trunk)
    messages = [
        deserialize_message(serialize_message(message), Observation)
        for message in observations(len(spec.images))
    ]
    times = []
    for i in range(5 + calls):
        message = messages[i % len(messages)]
        start = time.perf_counter_ns()
        state = np.frombuffer(message.state, dtype=np.float32)
        policy.act(state, rng, [pixels(image) for image in message.images])
        times.append((time.perf_counter_ns() - start) / 1e6)
    return percentiles(times[5:])


class Client(Node):
    """Shows observations to the policy node and waits for its answers."""

    def __init__(self, namespace: str, actor: Actor) -> None:
        super().__init__("bench_vision", namespace=namespace)
        self._observation = self.create_publisher(Observation, "observation", RELIABLE)
        self._weights = self.create_publisher(PolicyWeights, "weights", LATCHED)
        self.create_subscription(PolicyAction, "policy_action", self._on_action, RELIABLE)
        self._messages = observations(len(actor.spec.images))
        self._tick, self._answer, self._answered = 0, PolicyAction(), 0
        data, sha256 = pack_weights(actor, actor.spec)
        message = PolicyWeights(version=1, sha256=sha256, data=array.array("B", data))
        message.spec, message.spec_hash = actor.spec.to_json(), actor.spec.hash()
        self._weights.publish(message)

    def _on_action(self, message: PolicyAction) -> None:
        self._answer, self._answered = message, time.perf_counter_ns()

    def ask(self) -> int:
        """Publish the next observation. Returns the time before, ns."""
        self._tick += 1
        message = self._messages[self._tick % len(self._messages)]
        message.tick, message.header.stamp = self._tick, self.get_clock().now().to_msg()
        start = time.perf_counter_ns()
        self._observation.publish(message)
        return start

    def answered(self) -> int | None:
        """When the answer to the last observation, by our weights, came, ns; None: it did not yet."""
        mine = self._answer.tick == self._tick and self._answer.policy_version == 1
        return self._answered if mine else None


def start_policy(namespace: str, weights: str) -> subprocess.Popen[bytes]:
    """The node as it runs on a robot."""
    parameters = {"axes": json.dumps(AXES), "encoder_weights": weights}
    given = [a for name, value in parameters.items() for a in ("-p", f"{name}:={value}")]
    code = "import sys; from rlif_policy.policy_node import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--ros-args", "-r", f"__ns:={namespace}", *given]
    return subprocess.Popen(command)


def over_dds(actor: Actor, weights: str, seconds: float) -> dict[str, float]:
    """The real node's answers, ms. TimeoutError where one does not come."""
    namespace = f"/bench_vision_{os.getpid()}"
    process = start_policy(namespace, weights)
    executor, client = make_executor(), Client(namespace, actor)
    executor.add_node(client)

    def spin(until: Callable[[], object], limit: float) -> None:
        """Until that is true, or so many seconds."""
        end = time.monotonic() + limit
        while not until() and (left := end - time.monotonic()) > 0.0:
            if process.poll() is not None:
                raise RuntimeError(f"the policy node ended with {process.returncode}")
            executor.spin_once(timeout_sec=min(left, 0.5))

    def answer(limit: float) -> float | None:
        start = client.ask()
        spin(lambda: client.answered() is not None, limit)
        end = client.answered()
        return None if end is None else (end - start) / 1e6

    try:
        # Before it has the weights nobody answers, or somebody without them.
        begun = time.monotonic()
        while answer(0.2) is None:
            if time.monotonic() - begun > STARTING:
                raise TimeoutError(f"the policy node did not answer within {STARTING} s")
        times: list[float] = []
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            due = time.monotonic() + 1.0 / RATE
            found = answer(STARTING)
            if found is None:
                raise TimeoutError(f"an observation was not answered within {STARTING} s")
            times.append(found)
            spin(lambda: False, due - time.monotonic())
    finally:
        process.terminate()
        process.wait(30)
        executor.shutdown()
        client.destroy_node()
    return percentiles(times)


def policies(weights: str, seconds: float, calls: int) -> dict[str, Any]:
    """By encoder and number of cameras."""
    torch.set_num_threads(1)  # as the node does
    results: dict[str, Any] = {}
    for name in ENCODERS:
        for cameras in (1, 2):
            vision = make(name, weights, cameras)
            spec = PolicySpec(STATE, len(AXES), images=vision.images, encoder=vision.encoder)
            actor = Actor(spec, 0, vision.trunk)
            results.setdefault(name, {})[f"cameras_{cameras}"] = {
                "in_process": in_process(actor, vision.trunk, calls),
                "dds": over_dds(actor, weights, seconds),
            }
    return results


# ---- the learner


@dataclass(frozen=True)
class Case:
    """A learner that is timed."""

    spec: PolicySpec
    config: RLPDConfig
    trunk: Mapping[str, Tensor] | None = None

    def settings(self) -> dict[str, Any]:
        """What its figures depend on most."""
        names = ("batch_size", "utd", "ensemble_size", "hidden", "precision", "random_shift")
        encoder, settings = self.spec.encoder, self.config.to_mapping()
        assert encoder is not None
        return {
            "encoder": encoder.name, "frozen": encoder.frozen, "images": self.spec.images,
            "channels": encoder.channels, "pooling": encoder.pooling,
            **{name: settings[name] for name in names},
        }  # fmt: skip


def reference_case(encoder: str, weights: str) -> Case:
    """The preset `rlpd`, one critic step per update."""
    vision = make(encoder, weights)
    spec = PolicySpec(STATE, len(AXES), images=vision.images, encoder=vision.encoder)
    return Case(spec, RLPDConfig(utd=1, batch_size=BATCH), vision.trunk)


def set_up_case(robot: str, **over: Any) -> Case:
    """As config/ROBOT/robot.yaml has it, with `over` in place of its own."""
    content = yaml.safe_load((CONFIG / robot / "robot.yaml").read_text(encoding="utf-8"))
    given = {**content["/**"]["ros__parameters"], **over}
    vision = make_vision(VisionConfig.from_parameters(given))
    layout = StateLayout(tuple(given["features"]), tuple(given.get("joints", ())))
    spec = PolicySpec(
        layout.state_dim, len(given["axes"]), tuple(given["hidden"]),
        images=vision.images, encoder=vision.encoder,
    )  # fmt: skip
    preset = given.get("preset", "rlpd")
    return Case(spec, RLPDConfig.from_mapping(given["rlpd"], preset), vision.trunk)


def fill(
    buffer: ReplayBuffer, pictures: Sequence[tuple[np.ndarray, ...]], transitions: int
) -> ReplayBuffer:
    """Episodes of EPISODE actions; `pictures` in turn."""
    rng = np.random.default_rng(0)
    for n in range(rows(transitions)):
        t = n % (EPISODE + 1)
        last = t == EPISODE
        buffer.add_step(
            StepRecord(
                sequence=n, episode_id=1 + n // (EPISODE + 1), step_index=t, is_first=t == 0,
                is_last=last, outcome=Outcome.TRUNCATED if last else Outcome.RUNNING,
                source=Source.NONE if last else Source.POLICY, onset=False, intervention_id=0,
                evaluation=False, state=rng.normal(size=buffer.state_dim).astype(np.float32),
                action=rng.uniform(-1, 1, 0 if last else buffer.action_dim).astype(np.float32),
                images=pictures[n % len(pictures)],
            )
        )  # fmt: skip
    return buffer


def rows(transitions: int) -> int:
    """Steps of whole episodes with so many transitions."""
    return transitions // EPISODE * (EPISODE + 1)


def filled_buffers(actor: Actor, transitions: int) -> Buffers:
    """Of the robot's own and of prior data, as the learner node makes them."""
    pictures = noise(actor.spec.images[0], DISTINCT, len(actor.spec.images))
    encoder = actor.encoder
    if encoder is not None and encoder.spec.frozen:
        device = encoder.mean.device
        maps = [encoder.maps([torch.from_numpy(i).to(device) for i in seen]) for seen in pictures]
        pictures = [tuple(one.cpu().numpy() for one in seen) for seen in maps]
    made = (make_buffer(rows(transitions), actor) for _ in range(2))
    return Buffers(*(fill(buffer, pictures, transitions) for buffer in made))


def updates_per_second(learner: RLPD, buffers: Buffers, seconds: float) -> dict[str, float]:
    """Of whole updates: the median of BLOCKS blocks, each of a share of `seconds`."""

    def block(length: float) -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < length or not count:
            learner.update(buffers)
            count += 1
        learner.engine.finish()  # updates overlap on a GPU: the time of all of them
        return count / (time.perf_counter() - start)

    block(0.0)
    rates = [block(seconds / BLOCKS) for _ in range(BLOCKS)]
    values = {"median": statistics.median(rates), "least": min(rates), "most": max(rates)}
    return {name: float(f"{value:.3g}") for name, value in values.items()}


def robot_on_one_core(seconds: float) -> dict[str, Any]:
    """Updates of config/ROBOT per second of processor time, one thread; those of its `encoder_channels`
    and of the default, in turn."""
    keep_freed_memory()
    torch.set_num_threads(1)
    cases = (set_up_case(ROBOT), set_up_case(ROBOT, encoder_channels=EncoderSpec().channels))
    learners = [RLPD(case.config, case.spec, trunk=case.trunk) for case in cases]
    buffers = [filled_buffers(learner.actor, 1000) for learner in learners]
    times: list[list[float]] = [[], []]
    begun = time.monotonic()
    while time.monotonic() - begun < seconds or len(times[1]) < 6:
        for learner, buffer, spent in zip(learners, buffers, times, strict=True):
            start = time.process_time()
            learner.update(buffer)
            spent.append(time.process_time() - start)
    return {
        "level": processor().level.name,
        "settings": cases[0].settings(),
        **{
            f"updates_per_cpu_s_channels_{case.settings()['channels']}": round(
                1.0 / statistics.median(spent[2:]), 1
            )
            for case, spent in zip(cases, times, strict=True)
        },
    }


# ---- where an update's time goes

REST = "losses, target average, the rest"
FORWARD = 0  # the profiler's scope of what is no function of the way back


def labels(learner: RLPD) -> Iterator[tuple[Any, str, str]]:
    """Who has which function, and what its time is counted as; the innermost one counts."""
    encoder = learner.encoder
    assert encoder is not None
    yield learner, "draw_batches", "sampling, gathering from the buffer"
    yield rlpd, "shift_cameras", "random shift"
    yield encoder, "forward", "encoder, the rest"
    for module in encoder.trunks.modules():
        if isinstance(module, nn.Conv2d):
            yield module, "forward", "convolutions"
    for head in encoder.heads:
        yield head, "forward", "pooling and bottleneck"
    for critic in (learner.critic, learner.target):
        yield critic, "forward", "critics"
    yield learner.actor, "sample", "actor"
    for optimiser in (
        learner.critic_optimiser, learner.actor_optimiser, learner.temperature_optimiser,
        learner.encoder_optimiser,
    ):  # fmt: skip
        yield optimiser, "step", "optimisers"


def labelled(function: Callable[..., Any], label: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        with record_function(label):
            return function(*arguments, **more)

    return call


def where_time_goes(learner: RLPD, buffers: Buffers, seconds: float) -> dict[str, float]:
    """Milliseconds of an update by what they are spent on, most first."""
    with contextlib.ExitStack() as stack:
        names = {REST}
        for owner, name, label in labels(learner):
            names.add(label)
            function = labelled(getattr(owner, name), label)
            stack.enter_context(mock.patch.object(owner, name, function))
        learner.update(buffers)
        recorder = stack.enter_context(profile(activities=[ProfilerActivity.CPU]))
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or count < 2:
            with record_function(REST):
                learner.update(buffers)
            count += 1
    total = by_label(recorder.events() or [], names)
    found = {name: value / count / 1e3 for name, value in total.items()}
    return {n: round(v, 2) for n, v in sorted(found.items(), key=lambda pair: -pair[1])}


def by_label(events: Sequence[Any], names: set[str]) -> dict[str, float]:
    """Microseconds of each label's own, those of the way back apart.

    A step of the way back has the number of the step of the way there that it belongs to.
    """

    def within(event: Any, found: Callable[[Any], bool]) -> Any:
        """The innermost event around this one, itself among them, of which that is true."""
        while event is not None and not found(event):
            event = event.cpu_parent
        return event

    def is_label(event: Any) -> bool:
        return event.name in names

    there = {
        event.sequence_nr: around.name
        for event in sorted(events, key=lambda event: event.time_range.start)
        if event.scope == FORWARD and not is_back(event)
        if (around := within(event, is_label)) is not None
    }
    total: dict[str, float] = defaultdict(float)
    for event in events:
        around = within(event, lambda one: is_label(one) or is_back(one))
        if around is None:
            continue  # not of an update
        name = around.name
        if is_back(around):
            name = there.get(around.sequence_nr, REST)
            name = name if name == REST else f"{name}, back"
        total[name] += event.self_cpu_time_total
    return total


def is_back(event: Any) -> bool:
    """Of the step of the way back as a whole."""
    return event.name.startswith("autograd::engine::evaluate_function")


def parts(weights: str, device: str, calls: int) -> dict[str, float]:
    """What the pieces cost by themselves, ms."""

    def timed(call: Callable[[], object]) -> float:
        def whole() -> None:
            call()
            if device != "cpu":
                torch.cuda.synchronize()

        return round(1e3 * median_time(whole, calls, warm_up=1), 3)

    def encoder(name: str) -> ImageEncoder:
        vision = make(name, weights)
        assert vision.encoder is not None
        made = ImageEncoder(vision.encoder, vision.images, torch.Generator())
        if vision.trunk is not None:
            made.load_trunk(vision.trunk)
        return made.to(device)

    small, frozen = encoder("small"), encoder("frozen_resnet18")
    one = [torch.from_numpy(i).to(device) for i in noise((SIDE, SIDE, 3), 1, 2)[0]]
    batch = [torch.from_numpy(i).to(device) for i in noise((BATCH, SIDE, SIDE, 3), 1, 2)[0]]
    shifts = torch.randint(-4, 5, (BATCH, 2), device=device)

    def forward() -> None:
        with torch.no_grad():
            small(batch)

    return {
        "frozen_resnet18_ms_per_image": round(timed(lambda: frozen.maps(one)) / len(one), 3),
        "small_ms_per_image": round(timed(lambda: small.maps(one)) / len(one), 3),
        "random_shift_256_ms": timed(lambda: random_shift(batch[0], shifts)),
        "small_forward_2x256_ms": timed(forward),
        "small_forward_and_back_2x256_ms": timed(lambda: small(batch).sum().backward()),
    }


def learners(
    cases: Mapping[str, Case], seconds: float, transitions: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Updates per second by number of threads, and where their time goes."""
    keep_freed_memory()  # as the node does
    speeds: dict[str, Any] = {}
    profiles: dict[str, Any] = {}
    for name, case in cases.items():
        learner = RLPD(case.config, case.spec, trunk=case.trunk)
        buffers = filled_buffers(learner.actor, transitions)
        speeds[name] = {"settings": case.settings()}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            speeds[name][f"threads_{threads}"] = updates_per_second(learner, buffers, seconds)
        profiles[name] = where_time_goes(learner, buffers, seconds / 2)
    return speeds, profiles


def on_gpu(weights: str, seconds: float, calls: int, transitions: int) -> dict[str, Any]:
    """What a learner does there. No profile: an update is one recording that is played."""
    cases = {name: reference_case(name, weights) for name in ENCODERS}
    cases["sim_vision_gpu"] = set_up_case("sim_vision_gpu")
    results: dict[str, Any] = {"name": torch.cuda.get_device_name(), "learner": {}}
    for name, case in cases.items():
        learner = accelerate(RLPD(case.config, case.spec, device="cuda", trunk=case.trunk))
        buffers = filled_buffers(learner.actor, transitions)
        speed = updates_per_second(learner, buffers, seconds)
        results["learner"][name] = {"settings": case.settings(), **speed}
        results[f"updates_per_s_{name}"] = speed["median"]
    return {**results, "parts": parts(weights, "cuda", calls)}


# ---- the buffer


def image_buffer(transitions: int) -> ReplayBuffer:
    images = ((SIDE, SIDE, 3),) * len(CAMERAS)
    buffer = ReplayBuffer(rows(transitions), STATE, len(AXES), images)
    return fill(buffer, noise(images[0], DISTINCT, len(images)), transitions)


def arrays(buffer: ReplayBuffer) -> int:
    """Bytes of all that it holds."""
    return sum(column.nbytes for column in buffer.columns.values())


def resident() -> int:
    """Bytes of this process in memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise ValueError("/proc/self/status: found no VmRSS, expected Linux's")


def fill_alone(transitions: int) -> None:
    """What the child prints: by how much filling a buffer makes it grow."""
    image_buffer(EPISODE)  # what is loaded on the way is no part of it
    before = resident()
    buffer = image_buffer(transitions)
    print(json.dumps({"transitions": len(buffer), "bytes": resident() - before}))


def storage(transitions: int) -> dict[str, Any]:
    """Bytes per transition, and memory of many of them, two cameras."""
    buffer = image_buffer(10 * EPISODE)
    # The flag of the end is a byte; all other numbers are of four.
    once = len(CAMERAS) * SIDE * SIDE * 3 + 4 * (STATE + len(AXES) + 1) + 1
    per_row = arrays(buffer) / buffer.capacity
    output = subprocess.run(
        [sys.executable, __file__, "--fill", str(transitions)],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    child = json.loads(output)
    per_transition = child["bytes"] / child["transitions"]
    return {
        "bytes_per_transition": round(arrays(buffer) / len(buffer), 1),
        "bytes_of_a_transition_once": once,
        "bytes_per_transition_ratio": round(arrays(buffer) / len(buffer) / once, 4),
        "memory_100k_transitions_gb": round(per_transition * TRANSITIONS / 1e9, 2),
        "memory_100k_transitions_is": f"growth of a process's resident memory by "
        f"{child['transitions']} transitions in episodes of {EPISODE}, times "
        f"{TRANSITIONS / child['transitions']:g}; GB are 1e9 bytes",
        "arrays_100k_transitions_gb": round(per_row * rows(TRANSITIONS) / 1e9, 2),
    }


# ---- all of it


def measure(seconds: float, calls: int, filled: int, device: str) -> dict[str, Any]:
    """All keys of benchmarks/results/vision.json."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder, "resnet18.pth"))
        stored = storage(filled)
        policy = policies(weights, seconds, calls)
        cases = {name: reference_case(name, weights) for name in ENCODERS}
        cases["sim_vision"] = set_up_case("sim_vision")
        speeds, profiles = learners(cases, seconds, min(filled, 1000))
        pieces = {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pieces[f"threads_{threads}"] = parts(weights, "cpu", 5)
        gpu = None
        if device != "cpu":
            gpu = on_gpu(weights, seconds, 50, min(filled, 1000))
    return {
        "policy_ms_p99_2cameras": policy["small"]["cameras_2"]["dds"]["p99"],
        "policy_ms_p99_2cameras_is": "small network, over DDS, from before the Observation is "
        f"published until its PolicyAction has come; {RATE:g} per second; both processes on the "
        "same two cores",
        **{f"updates_per_s_{name}": speed["threads_2"]["median"] for name, speed in speeds.items()},
        **stored,
        "policy_ms": policy,
        "learner": speeds,
        "robot_on_one_core": robot_on_one_core(4 * seconds),
        "profile_ms_per_update_threads_2": profiles,
        "parts": pieces,
        "gpu": gpu,
        "weights_of_resnet18": "random; they cost the time of ImageNet's",
        "seconds": seconds,
        "load_before": load,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def show(results: dict[str, Any]) -> bool:
    """The tables. Returns True if every limit is kept."""
    console = Console()
    table = Table("quantity", "value", "to reach", title="Seeing")
    for name, value in results.items():
        if isinstance(value, int | float):
            limit = LIMITS.get(name)
            table.add_row(name, f"{value:g}", "" if limit is None else f"at most {limit:g}")
    for threads, pieces in results["parts"].items():
        for name, value in pieces.items():
            table.add_row(f"{name}, {threads.replace('_', ' ')}", f"{value:g}")
    for name, value in (results["gpu"] or {"no GPU": {}}).items():
        if isinstance(value, int | float):
            table.add_row(f"{name}, GPU", f"{value:g}")
    console.print(table)
    console.print(policy_table(results["policy_ms"]), learner_table(results["learner"]))
    console.print(profile_table(results["profile_ms_per_update_threads_2"]))
    return all(results[name] <= limit for name, limit in LIMITS.items())


def policy_table(policy: dict[str, Any]) -> Table:
    table = Table("policy", "cameras", "", "p50, ms", "p99, ms", "answers", title="An answer")
    for name, by_cameras in policy.items():
        for cameras, ways in by_cameras.items():
            for way, found in ways.items():
                table.add_row(name, cameras[-1], way, *(f"{value:g}" for value in found.values()))
    return table


def learner_table(speeds: dict[str, Any]) -> Table:
    table = Table("learner", "threads", "median", "least", "most", title="Updates per second")
    for name, found in speeds.items():
        for threads in (1, 2):
            values = found[f"threads_{threads}"].values()
            table.add_row(name, str(threads), *(f"{value:g}" for value in values))
    return table


def profile_table(profiles: dict[str, Any]) -> Table:
    table = Table("ms of an update", *profiles, title="Where the time goes, two threads")
    groups = {group: None for found in profiles.values() for group in found}  # in order, once each
    for group in groups:
        table.add_row(group, *(f"{found.get(group, 0.0):.1f}" for found in profiles.values()))
    sums = (sum(found.values()) for found in profiles.values())
    table.add_row("sum", *(f"{value:.1f}" for value in sums))
    return table


def chosen_device(name: str) -> str:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise SystemExit("--device: found 'cuda', but PyTorch finds no GPU here; use cpu or auto")
    return "cuda" if there and name != "cpu" else "cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each speed (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a second of each, write nothing")
    parser.add_argument("--robot", action="store_true", help=f"{ROBOT} on one core alone")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--fill", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        fill_alone(arguments.fill)
        return 0
    if arguments.robot:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        kept["robot_on_one_core"] = robot_on_one_core(4 * arguments.seconds)
        print(json.dumps(kept["robot_on_one_core"]))
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        return 0
    quick = arguments.quick
    device = chosen_device(arguments.device)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    os.environ["ROS_DOMAIN_ID"] = DOMAIN
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    rclpy.init()
    seconds = 1.0 if quick else arguments.seconds
    results = measure(seconds, 50 if quick else 300, 1000 if quick else FILLED, device)
    rclpy.try_shutdown()
    kept = show(results)
    if not quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
