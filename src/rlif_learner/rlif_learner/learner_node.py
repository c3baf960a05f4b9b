# SPDX-License-Identifier: Apache-2.0
"""Node `learner`: turns the Steps that the recorder sends into better weights, while all runs.

Subscribes
    replay           rlif_msgs/Step            in order; a gap in `sequence` is counted as a loss
Publishes
    weights          rlif_msgs/PolicyWeights   first ones at the start, then as they improve (latched)
    learner_status   rlif_msgs/LearnerStatus   once a second, and when it has caught up (latched)
    critic_value     rlif_msgs/CriticValue     of each Step's action, while somebody subscribes
Services
    save_checkpoint  std_srvs/Trigger

With `robots` it learns from several: the four topics are then in the namespace of each robot, so that
every robot's own graph runs as with a learner of its own. `learner_status` of a robot has its Steps,
losses and rates; that of the learner's namespace has the sums, and a row for each robot.

It trains in a thread of its own (rlif_learner.learner_loop). What is wrong is in `learner_status`
and on the log. A Step that cannot be used is dropped and counts as lost; after an update that is not
finite there are no more, and the policy keeps the last good weights; anything else ends the node.
"""

from __future__ import annotations

import array
import copy
import functools
import sys
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rlif_node.logs import logs_shown
from rlif_node.names import absolute_namespace, namespace_problem
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, RELIABLE_100, REPLAY
from rlif_node.running import run
from rlif_node.stamps import to_msg
from std_srvs.srv import Trigger

from rlif_learner.counts import StepCounts
from rlif_learner.data.checkpoint import CheckpointError, CheckpointStore
from rlif_learner.data.labels import SCHEMES
from rlif_learner.data.prior import open_prior
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.step_messages import record_from_message, stamp_of
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines.memory import free_memory, keep_freed_memory
from rlif_learner.learner_loop import LearnerLoop, LoopConfig, Weights
from rlif_learner.making import (
    ALGORITHMS,
    DEVICES,
    BufferSettings,
    TrainerSettings,
    find_device,
    make_algorithm,
    make_trainer,
)
from rlif_learner.resuming import Received, bags_of, read_on
from rlif_learner.scalars import Scalars
from rlif_learner.settings import declare_settings
from rlif_learner.training import Trainer, TrainingConfig, TrainingStatus
from rlif_learner.vision import NAMES, VisionConfig, make_vision
from rlif_msgs.msg import CriticValue, LearnerStatus, PolicyWeights, RobotStatus, Step
from rlif_policy.encoders import POOLINGS
from rlif_policy.features import StateLayout
from rlif_policy.networks import PolicySpec
from rlif_policy.stored_actor import find_checkpoint

PARAMETERS = (
    Param(
        "algorithm",
        "rlpd",
        "learning algorithm: rlpd, bc or hg_dagger",
        choices=(*ALGORITHMS, "dagger"),
    ),
    Param(
        "preset",
        "rlpd",
        "defaults of rlpd.*: rlpd (of the RLPD reference) or rlif (of the RLIF authors)",
    ),
    Param(
        "robots",
        [],
        "namespaces of the robots that it learns from; empty: one robot, in its own namespace",
        items=str,
    ),
    Param(
        "robot_sampling",
        "transitions",
        "of several robots, what is equally likely in a batch: transitions, or robots",
        choices=("transitions", "robots"),
    ),
    Param("label_scheme", "onset", "which policy steps are labelled -1", choices=SCHEMES),
    Param(
        "failure_reward",
        0.0,
        "reward of the last step of a failed episode, at most -1, which is then terminal; 0: -1 on "
        "the last policy step, not terminal",
        -1000.0,
        0.0,
    ),
    Param("axes", ["x", "y", "z"], "entries of an action, as of the arbiter"),
    Param(
        "features",
        [],
        "features of the state, as of the observer; empty: state_dim says the size",
        items=str,
    ),
    Param("joints", [], "names of the joints in the state, as of the observer", items=str),
    Param("state_dim", 0, "entries of the state; 0: of features, or of the first Step", 0, 10_000),
    Param(
        "state_offset",
        [],
        "offset subtracted from each state entry; empty, both: of the demonstrations",
    ),
    Param(
        "state_scale",
        [],
        "scale that normalises each state entry; empty, both: of the demonstrations",
    ),
    Param("hidden", [256, 256], "widths of the policy's hidden layers"),
    Param("layer_norm", False, "layer normalisation in the policy"),
    Param("updates_per_step", 1.0, "updates per Step received; 0: as fast as possible", 0.0, 1e3),
    Param("warmup_steps", 100, "Steps received before the first update is due", 0, 10**7),
    Param(
        "prior_episodes",
        0,
        "how many of the first episodes, of each robot, are demonstrations",
        0,
        10**6,
    ),
    Param("prior_bags", [], "bags of demonstrations, or folders of such bags", items=str),
    Param("prior_into_online", False, "demonstrations go into the online buffer"),
    Param("capacity", 100_000, "steps that the online buffer holds", 2, 10**8),
    Param("prior_capacity", 20_000, "steps that the prior buffer holds", 2, 10**8),
    Param("encoder", "none", "image encoder; none: the policy uses no images", choices=NAMES),
    Param(
        "encoder_pooling",
        "spatial_softmax",
        "pooling of the encoder's feature maps",
        choices=tuple(POOLINGS),
    ),
    Param("encoder_features", 64, "features of an image", 1, 4096),
    Param("encoder_channels", 32, "channels of the small encoder's layers", 1, 1024),
    Param("encoder_embeddings", 8, "embeddings of each channel, with spatial_embedding", 1, 256),
    Param("encoder_shared", False, "one encoder for all cameras; false: one for each"),
    Param("encoder_frozen", False, "keep the trunk of a pretrained encoder as it is"),
    Param(
        "encoder_weights",
        "torchvision",
        "weights of a pretrained encoder: see rlif_policy/pretrained.py",
    ),
    Param("keep_images", False, "keep images in the buffers although no encoder uses them"),
    Param("cameras", [], "names of the cameras, as of the observer", items=str),
    Param("image_width", 128, "pixels, as of the observer", 8, 4096),
    Param("image_height", 128, "pixels, as of the observer", 8, 4096),
    Param("image_directory", "", "directory of files for the buffers' images; empty: in memory"),
    Param(
        "publish_every",
        50,
        "updates between two sets of weights; 0: at the ends of episodes, and "
        "at least every 5 s while updates of an ended episode are due",
        0,
        10**6,
    ),
    Param(
        "longest_backlog",
        60.0,
        "s that the updates due may take when an episode begins; those of a "
        "longer backlog are dropped and reported; 0: none ever is",
        0.0,
        1e6,
    ),
    Param(
        "control_rate",
        10.0,
        "Hz of Steps of a robot, as the observer's: what updates have to keep up with",
        0.1,
        200.0,
    ),
    Param("pace", False, "episodes wait for the updates, as of the episode node"),
    Param("run_directory", "", "directory of checkpoints and curves, where the next two are empty"),
    Param("checkpoint_directory", "", "directory of checkpoints; empty: run_directory"),
    Param("tensorboard_directory", "", "directory of curves; empty: tensorboard/ in run_directory"),
    Param(
        "checkpoint_every", 5000, "updates between two checkpoints; 0: none by updates", 0, 10**9
    ),
    Param("checkpoint_period", 60.0, "s between two checkpoints; 0: none by time", 0.0, 1e6),
    Param("keep_checkpoints", 3, "how many of the newest checkpoints are kept", 1, 1000),
    Param("resume", "", "checkpoint, or run, to resume from; empty: none"),
    Param(
        "resume_bag",
        "",
        "recorder's bag of the run, from which a resumed learner takes the Steps after the checkpoint; "
        "empty: bag/ of the run, if there is one; none: no bag. With robots: the folder of ROBOT/bag; "
        "empty: the run",
    ),
    Param("device", "cpu", "device of the training; auto: a GPU if there is one", choices=DEVICES),
    Param("torch_threads", 1, "threads of the training on the CPU", 1, 256),
    Param("seed", 0, "seed of networks, batches and noise", 0, 2**31 - 1),
)
# The recorder keeps what it sent before this node was discovered. A resumed learner without the bag of
# its run cannot tell what of that it has had, except of a robot that is new to it.
REPLAY_RESUMED = QoSProfile(depth=1000)
STOP_TIMEOUT = 25.0  # s; launch waits 30 s before it kills


class RobotTopics:
    """What the learner publishes to one robot; with a name, in the namespace of that name."""

    def __init__(self, node: Node, robot: str) -> None:
        self._prefix = f"{absolute_namespace(robot).rstrip('/')}/" if robot else ""
        self.weights = node.create_publisher(PolicyWeights, self.name("weights"), LATCHED)
        self.status = node.create_publisher(LearnerStatus, self.name("learner_status"), LATCHED)
        self.values = node.create_publisher(CriticValue, self.name("critic_value"), RELIABLE_100)

    def name(self, topic: str) -> str:
        """Of the robot's topic."""
        return self._prefix + topic


class LearnerNode(Node):
    """Shell around `LearnerLoop`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("learner", parameter_overrides=list(overrides))
        self._value = declare(self, PARAMETERS)
        value = self._value
        self._settings = declare_settings(self, value["algorithm"], value["preset"])
        self._vision_config = VisionConfig.from_parameters(value)
        self._vision = make_vision(self._vision_config)
        if self._vision.encoder is not None:
            keep_freed_memory()
        kept = value["keep_images"] and bool(value["cameras"])
        self._keep_images = kept or self._vision.encoder is not None
        self._store = self._make_store()
        self._scalars = self._make_scalars()
        self._message = ""
        self._failure_logged = False
        self._names = robot_names(value["robots"], self.get_namespace())
        self._robots = {name: RobotTopics(self, name) for name in self._names or ("",)}
        self._sums: Publisher | None = None
        if self._names:
            self._sums = self.create_publisher(LearnerStatus, "learner_status", LATCHED)
        self._received: dict[str, Received] = {}
        trainer, version = self._first_trainer()
        config = LoopConfig(
            publish_every=value["publish_every"],
            checkpoint_every=value["checkpoint_every"],
            checkpoint_period=value["checkpoint_period"],
            longest_backlog=value["longest_backlog"],
            step_rate=0.0 if value["pace"] else value["control_rate"],
            torch_threads=value["torch_threads"],
            robots=self._names,
        )
        self._loop = LearnerLoop(
            self._make_trainer, self._publish_weights, self._publish_status, config,
            self._store, trainer, version, self._publish_value,
        )  # fmt: skip
        self.create_service(Trigger, "save_checkpoint", self._on_save)
        added = self._added(trainer)
        self._loop.start()
        for name, topics in self._robots.items():
            told = name in self._received or name in added  # apart from what it has had
            replay = REPLAY_RESUMED if value["resume"] and not told else REPLAY
            receive = functools.partial(self._on_step, name)
            self.create_subscription(Step, topics.name("replay"), receive, replay)

    # ---- making

    def _make_store(self) -> CheckpointStore | None:
        """ValueError where another run's checkpoints are: to number on there would mix the two."""
        directory = self._value["checkpoint_directory"] or self._value["run_directory"]
        if not directory:
            return None
        store = CheckpointStore(directory, self._value["keep_checkpoints"])
        if store.paths() and not self._resumes(store):
            raise ValueError(
                f"{store.root} already holds the checkpoints of another run: go on from them with "
                f"resume:={store.root}, or name another run_directory or checkpoint_directory"
            )
        return store

    def _resumes(self, store: CheckpointStore) -> bool:
        """Whether `resume` is a checkpoint of this very store."""
        if not self._value["resume"]:
            return False
        root = find_checkpoint(Path(self._value["resume"])).parent.parent
        return root.resolve() == store.root.resolve()

    def _make_scalars(self) -> Scalars | None:
        value = self._value
        if value["tensorboard_directory"]:
            return Scalars(Path(value["tensorboard_directory"]))
        return (
            Scalars(Path(value["run_directory"], "tensorboard")) if value["run_directory"] else None
        )

    def _first_trainer(self) -> tuple[Trainer | None, int]:
        """The Trainer, if the size of the state is known already; resumed, if asked for."""
        value, settings = self._value, self._trainer_settings()
        if value["resume"]:
            return self._resume(Path(value["resume"]))
        state_dim = value["state_dim"]
        if value["features"]:
            state_dim = StateLayout(tuple(value["features"]), tuple(value["joints"])).state_dim
            if value["state_dim"] not in (0, state_dim):
                raise ValueError(f"state_dim: found {value['state_dim']}, expected {state_dim}, "
                                 "the size of the features")  # fmt: skip
        if state_dim:
            trainer = self._make_trainer(state_dim)
            self._load_prior(trainer)
            return trainer, 0
        if value["prior_bags"]:
            raise ValueError(
                "prior_bags: set features or state_dim too, to make the networks first"
            )
        if find_device(value["device"]) == "cuda":
            raise ValueError(
                "device: on a GPU set features or state_dim too, so that the learner warms up "
                "before the first episode and not in it"
            )
        # The networks are made with the first Step; settings that are wrong are refused now.
        make_algorithm(
            settings.algorithm, settings.settings, settings.preset,
            PolicySpec(1, len(value["axes"])), settings.seed,
        )  # fmt: skip
        self.get_logger().info("waiting for the first Step: it tells the size of the state")
        return None, 0

    def _trainer_settings(self) -> TrainerSettings:
        value = self._value
        chosen = {f.name: value[f.name] for f in fields(TrainerSettings) if f.name in value}
        return TrainerSettings(**chosen, settings=self._settings)

    def _make_trainer(self, state_dim: int) -> Trainer:
        value, action_dim = self._value, len(self._value["axes"])
        settings = self._trainer_settings()
        sizes = BufferSettings(
            value["capacity"], value["prior_capacity"],
            self._vision_config.images if value["keep_images"] else (), value["image_directory"],
            bool(self._names), value["robot_sampling"] == "robots",
        )  # fmt: skip
        config = TrainingConfig(
            updates_per_step=value["updates_per_step"],
            warmup_steps=value["warmup_steps"],
            prior_episodes=value["prior_episodes"],
            prior_into_online=value["prior_into_online"],
            robots=self._names,
        )
        trainer = make_trainer(settings, self._vision, state_dim, action_dim, sizes, config)
        self.get_logger().info(
            f"{settings.algorithm}: state of {state_dim}, action of {action_dim}, hidden "
            f"{settings.hidden}, encoder {self._vision_config.encoder}, on "
            f"{find_device(settings.device)}"
        )
        self._warn_of_size(trainer.algorithm.spec, trainer.buffers)
        return trainer

    def _warn_of_size(self, spec: PolicySpec, buffers: Buffers) -> None:
        """Of what would go wrong hours later, or in mid-episode."""
        wanted = buffers.online.memory + (buffers.prior.memory if buffers.prior is not None else 0)
        free = free_memory()
        if free is not None and wanted > free:
            self.get_logger().warning(
                f"the buffers take {wanted / 1e9:.1f} GB when they are full, of {free / 1e9:.1f} GB of "
                "memory that are free now: the system would end this node then. Lower capacity and "
                "prior_capacity, or name an image_directory"
            )
        encoder = spec.encoder
        large = encoder is not None and encoder.pretrained and not encoder.frozen
        if large and self._value["publish_every"]:
            self.get_logger().warning(
                "weights with a fine-tuned trunk are large: while the policy takes them in, in "
                "mid-episode, it does not answer and the arm holds. publish_every: 0 sends them "
                "between episodes"
            )

    def _load_prior(self, trainer: Trainer) -> None:
        """ValueError names the bag that is missing, damaged or of another robot."""
        paths = self._value["prior_bags"]
        try:
            for source in open_prior(paths, self._keep_images) if paths else ():
                for step in source:
                    trainer.add_prior(step)
                for note in source.notes:
                    self.get_logger().warning(note)
                count = trainer.status().prior_transitions
                self.get_logger().info(f"{source.path}: {count} in all")
        except (RuntimeError, ValueError) as problem:
            raise ValueError(f"prior_bags: {problem}") from problem

    def _resume(self, path: Path) -> tuple[Trainer, int]:
        """ValueError says what is wrong with the checkpoint, or how it differs from the settings."""
        folder = find_checkpoint(path)
        # In its own directory it goes on numbering; from elsewhere the buffers are written anew.
        own = self._store if self._store is not None and self._resumes(self._store) else None
        store = own or CheckpointStore(folder.parent.parent)
        try:
            spec = store.manifest(folder)["spec"]
            trainer = self._make_trainer(spec["state_dim"])
            extra = store.load(folder, trainer.algorithm, trainer.buffers)
        except CheckpointError as problem:
            raise ValueError(f"resume: {problem}") from problem
        try:
            trainer.restore(extra)
            version = int(extra["policy_version"])
        except KeyError as missing:
            raise ValueError(
                f"resume: found no {missing} in {folder}; expected a checkpoint of this node, or of "
                "`rlif train`"
            ) from missing
        self.get_logger().info(
            f"resumed from {folder}: {trainer.counts.steps} steps, "
            f"{trainer.algorithm.updates} updates"
        )
        run = folder.parent.parent
        named = self._value["resume_bag"]
        if named != "none":
            for robot in self._names:
                self._read_on(trainer, Path(named or run) / robot.strip("/") / "bag", robot)
            # A run of one robot until now. Without Steps of that, the bag is of somebody else.
            if self._names and trainer.counts.of().steps:
                self._read_on(trainer, run / "bag")
            if not self._names:
                self._read_on(trainer, Path(named) if named else run / "bag", needed=bool(named))
        if own is None:  # another recorder counts from anew, and repeats nothing
            for robot in self._robots:
                trainer.counts.of(robot).last_sequence = None
            self._received.clear()
        return trainer, version

    def _read_on(self, trainer: Trainer, bag: Path, robot: str = "", needed: bool = False) -> None:
        """Steps that were recorded after the checkpoint. ValueError for a bag that is not of its run."""
        if robot and not bag.exists():
            self.get_logger().warning(
                f"no bag {bag}: what {robot} has sent since the checkpoint is lost; name the folder of "
                f"{robot}/bag with resume_bag"
            )
        if needed or bag.exists():
            try:
                sources = list(open_prior([str(b) for b in bags_of(bag)], self._keep_images))
                taken, received = read_on(trainer, chain.from_iterable(sources), robot)
                self._received[robot] = received
                for source in sources:
                    for note in source.notes:
                        self.get_logger().warning(note)
                self.get_logger().info(f"{bag}: {taken} Steps after the checkpoint")
            except (RuntimeError, ValueError) as problem:
                raise ValueError(
                    f"resume_bag: {bag}: {problem}; resume_bag:=none goes on without it"
                ) from problem

    def _added(self, trainer: Trainer | None) -> set[str]:
        """Robots of which the checkpoint has nothing: all that their recorders repeat is new."""
        if trainer is None:
            return set()
        return {name for name in self._names if trainer.counts.of(name) == StepCounts()}

    # ---- in

    def _on_step(self, robot: str, message: Step) -> None:
        received = self._received.get(robot)
        if received is not None and received.repeats(message, stamp_of(message)):
            return
        try:
            self._loop.receive(step_record(message, self._keep_images, robot))
        except ValueError as problem:
            where = f"step {message.step_index} of episode {message.episode_id}"
            self._loop.drop(message, f"{where}: {problem}", robot)

    async def _on_save(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Steps are taken in while it waits for the disk."""
        written = Future(executor=self.executor)
        try:
            self._loop.request_save().add_done_callback(written.set_result)
        except ValueError as problem:
            response.message = str(problem)
            return response
        saving = await written
        error = saving.exception()
        response.success = error is None
        response.message = str(error or saving.result())
        return response

    # ---- out, from the training's thread

    def _publish_weights(self, weights: Weights) -> None:
        message = PolicyWeights(version=weights.version, sha256=weights.sha256)
        message.header.stamp = self.get_clock().now().to_msg()
        message.spec, message.spec_hash = weights.spec.to_json(), weights.spec.hash()
        message.data = array.array("B", weights.data)
        for robot in weights.robots:
            self._robots[robot].weights.publish(message)

    def _publish_value(self, step: StepRecord, trainer: Trainer) -> None:
        values = self._robots[step.robot].values
        if values.get_subscription_count():
            value = trainer.value(step)
            if value is not None:
                message = CriticValue(
                    episode_id=step.episode_id, step_index=step.step_index, value=value
                )
                message.header.stamp = to_msg(step.stamp)
                values.publish(message)

    def _publish_status(self, status: TrainingStatus, version: int, note: str) -> None:
        if self._scalars is not None:
            self._scalars.write(status)
            note = "; ".join(text for text in (note, self._scalars.problem) if text)
        if note and note != self._message:
            self.get_logger().error(note)
        self._message = note
        message = status_message(status, version, note)
        message.header.stamp = self.get_clock().now().to_msg()
        if self._sums is None:
            self._robots[""].status.publish(message)
        else:
            self._sums.publish(message)
            for row in message.robots:
                self._robots[row.robot].status.publish(status_of(row, message))
        self._last_status = (status, version)

    # ---- the end

    def failed(self) -> bool:
        """Whether the training has failed; logs the reason once."""
        error = self._loop.failure()
        if error is None:
            return False
        if not self._failure_logged:
            self._failure_logged = True
            reason = f"training ended: {type(error).__name__}: {error}"
            self.get_logger().fatal(reason)
            status, version = getattr(self, "_last_status", (None, 0))
            if status is not None:
                rows = tuple(replace(row, caught_up=False) for row in status.robots)
                status = replace(status, caught_up=False, robots=rows)
                self._publish_status(status, version, reason)
        return True

    def close(self) -> None:
        """Save a last checkpoint and end the thread; errors are logged."""
        if not self.failed():
            try:
                self._loop.stop(STOP_TIMEOUT)
            except FutureTimeoutError:
                self.get_logger().error(f"no last checkpoint: not written within {STOP_TIMEOUT} s")
            except Exception:
                if not self.failed():  # which says it
                    raise
        if self._scalars is not None:
            self._scalars.close()
            if self._scalars.problem:
                self.get_logger().error(self._scalars.problem)


def robot_names(robots: Sequence[str], own: str) -> tuple[str, ...]:
    """The parameter `robots`. ValueError for a name that is no namespace, there twice, or the learner's.

    Empty names are left out: a launch file cannot pass an empty list.
    """
    robots = [robot for robot in robots if robot]
    for robot in robots:
        if problem := namespace_problem(robot):
            raise ValueError(
                f"robots: found {robot!r}, expected a namespace, as `arm_1`: {problem}"
            )
    names = [absolute_namespace(robot) for robot in robots]
    if len(set(names)) < len(names):
        raise ValueError(f"robots: found {list(robots)}, expected each robot once")
    if own in names:
        raise ValueError(
            f"robots: found {own}, the learner's own namespace, whose learner_status has the sums; start "
            "the learner in another one"
        )
    return tuple(robots)


def step_record(message: Step, keep_images: bool, robot: str = "") -> StepRecord:
    """What the learner needs of a Step; without `keep_images` its images are not even looked at."""
    if not keep_images:
        message.images = []
    return record_from_message(message, robot)


def status_of(row: RobotStatus, sums: LearnerStatus) -> LearnerStatus:
    """What the nodes of one robot get: of its own Steps, and of the training that all have in common."""
    message = copy.copy(sums)
    message.steps, message.lost_steps = row.steps, row.lost_steps
    message.intervention_rate, message.policy_version = row.intervention_rate, row.policy_version
    message.caught_up = row.caught_up
    message.robots = [row]
    return message


def status_message(status: TrainingStatus, version: int, note: str) -> LearnerStatus:
    metrics: dict[str, Any] = status.metrics
    message = LearnerStatus(
        steps=status.steps,
        transitions=status.transitions,
        prior_transitions=status.prior_transitions,
        updates=status.updates,
        critic_steps=status.critic_steps,
        critic_steps_per_s=status.critic_steps_per_s,
        updates_per_step=status.updates_per_step,
        backlog=status.backlog,
        caught_up=status.caught_up,
        lost_steps=status.lost_steps,
        policy_version=version,
        metric_names=list(metrics),
        intervention_rate=status.intervention_rate,
        message=note,
    )
    message.metric_values = array.array("f", metrics.values())
    message.robots = [RobotStatus(**asdict(row)) for row in status.robots]
    return message


def main() -> None:
    """Console script `learner`."""
    # No events: they take no service that waits.
    with logs_shown("learner", "rlif_learner"):
        code = run("learner", LearnerNode, LearnerNode.failed, LearnerNode.close, events=False)
    sys.exit(code)
