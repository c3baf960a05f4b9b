# SPDX-License-Identifier: Apache-2.0
"""Offline training: the learner's Trainer, fed from bags instead of from the replay topic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlif_bags.reading.files import BagError
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.step_reader import StepReader, step_connections
from rlif_bags.relabelling.relabel import facts_of, labels_path, read_labels
from rlif_learner import making
from rlif_learner.config import checked
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.making import BufferSettings, TrainerSettings
from rlif_learner.training import Trainer, TrainingConfig
from rlif_learner.vision import VisionConfig, make_vision


@dataclass(frozen=True)
class OfflineConfig(TrainerSettings):
    """Those parameters of the learner node that matter without a graph, with its defaults."""

    updates_per_step: float = 1.0
    prior_episodes: int = 0
    prior_into_online: bool = False
    torch_threads: int = 1
    vision: VisionConfig = field(default_factory=VisionConfig)  # encoder*, cameras, image_*

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, lowest in (("torch_threads", 1), ("seed", 0), ("prior_episodes", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"{name}: found {getattr(self, name)}, expected a whole number of at least "
                    f"{lowest}"
                )

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> tuple[OfflineConfig, list[str]]:
        """The configuration, and the names of parameters that only the node has a use for.

        ValueError names one that is of another kind.
        """
        values = dict(parameters)
        own = "rlpd" if values.get("algorithm", "rlpd") == "rlpd" else "imitation"
        settings = values.pop(own, {})
        values.pop("imitation" if own == "rlpd" else "rlpd", None)
        known = {f.name: f.default for f in fields(cls) if f.name not in ("settings", "vision")}
        seeing = {f.name for f in fields(VisionConfig)}
        chosen: dict[str, Any] = {
            name: checked(name, value, known[name])
            for name, value in values.items()
            if name in known
        }
        left = sorted(set(values) - set(known) - seeing)
        vision = VisionConfig.from_parameters(values)
        return cls(**chosen, settings=settings, vision=vision), left


def read_parameters(path: Path) -> dict[str, Any]:
    """The parameters of a ROS parameter file, of all nodes in it. ValueError if it is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found a {type(content).__name__}, expected names of nodes")
    merged: dict[str, Any] = {}
    for node, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("ros__parameters"), dict):
            raise ValueError(f"{path}: found no ros__parameters under {node!r}")
        merged.update(entry["ros__parameters"])
    return merged


@dataclass(frozen=True)
class Data:
    """What to learn from. labels: directory of `rlif relabel`, instead of the label scheme."""

    bags: Sequence[Path]
    prior: Sequence[Path] = ()
    topic: str = ""
    labels: Path | None = None


def count_steps(bags: Sequence[Path], topic: str) -> int:
    """Steps in these bags, at most: those that cannot be read are among them."""
    count = 0
    for path in bags:
        with open_bag(path) as bag:
            count += sum(c.msgcount for c in step_connections(bag, topic))
    return count


def _sizes(bag: Path, topic: str) -> tuple[int, int]:
    """Sizes of state and action, from the first step that has both."""
    for step in StepReader(bag, topic, images=False):
        if not step.is_last:
            return len(step.state), len(step.action)
    raise BagError(f"{bag}: holds no step with an action")


def make_trainer(config: OfflineConfig, data: Data) -> Trainer:
    """A Trainer of the right sizes with empty buffers. ValueError names a wrong setting."""
    state_dim, action_dim = _sizes(data.bags[0], data.topic)
    vision = make_vision(config.vision)
    steps, prior = (max(2, count_steps(bags, data.topic)) for bags in (data.bags, data.prior))
    training = TrainingConfig(
        updates_per_step=config.updates_per_step,
        # Behavioural cloning has no other data: all of the bags are demonstrations.
        prior_episodes=2**62 if config.algorithm == "bc" else config.prior_episodes,
        prior_into_online=config.prior_into_online,
    )
    sizes = BufferSettings(steps, prior + steps)
    return making.make_trainer(config, vision, state_dim, action_dim, sizes, training)


def load(trainer: Trainer, data: Data, report: Callable[[str], None]) -> None:
    """Fill the buffers: prior bags into the prior one, the others as the node would.

    BagError for labels of other Steps; ValueError for Steps of another robot, naming the bag, and for
    labels that the learner's settings do not allow.
    """
    prior = trainer.buffers.prior
    assert prior is not None
    for bag in data.prior:
        _load_bag(bag, data, report, trainer.add_to_prior, [prior])
    for bag in data.bags:
        _load_bag(bag, data, report, trainer.receive, [trainer.buffers.online, prior])
        trainer.counts.of().last_sequence = None  # the next bag has its own count
    if getattr(trainer.algorithm.config, "clip_positive_values", False):
        _refuse_positive(trainer.buffers.online, prior)
    trainer.demonstrated = True  # all data are there: the state is normalised by them


def _refuse_positive(*buffers: ReplayBuffer) -> None:
    highest = max(float(np.nanmax(b.columns["reward"], initial=0.0)) for b in buffers)
    if highest > 0.0:
        raise ValueError(
            f"labels: found {highest:g}, expected none above 0 with rlpd.clip_positive_values true; "
            "add --set rlpd.clip_positive_values=false"
        )


def _load_bag(
    bag: Path,
    data: Data,
    report: Callable[[str], None],
    add: Callable[[Any], None],
    buffers: Sequence[ReplayBuffer],
) -> None:
    labels = None if data.labels is None else read_labels(labels_path(bag, data.labels))
    rows: list[list[tuple[ReplayBuffer, int]]] = []  # for each Step where it went
    digest = hashlib.sha256()
    reader = StepReader(bag, data.topic, images=bool(buffers[0].image_shapes))
    for step in reader:
        before = [b.total for b in buffers]
        try:
            add(step)
        except ValueError as error:
            raise ValueError(f"{bag}: {error}") from error
        digest.update(facts_of(step))
        totals = zip(buffers, before, strict=True)
        rows.append([(b, total % b.capacity) for b, total in totals if b.total > total])
    for buffer in buffers:
        buffer.interrupt()
    if labels is not None:
        if labels.about.get("steps") != digest.hexdigest():
            raise BagError(
                f"{data.labels}: its labels are not those of the Steps of {bag}; label it again"
            )
        rewards, terminals = labels.columns["reward"], labels.columns["terminal"]
        for places, reward, terminal in zip(rows, rewards, terminals, strict=True):
            for buffer, row in places:
                buffer.columns["reward"][row] = reward
                buffer.columns["terminal"][row] = np.float32(terminal)
    for note in reader.notes:
        report(f"note: {note}")


def updates_due(trainer: Trainer, config: OfflineConfig) -> int:
    """As many as live: `updates_per_step` for each Step. ValueError where that is no number."""
    if config.updates_per_step == 0.0:
        raise ValueError("updates_per_step is 0, without bound: give a number with --updates")
    return max(1, int(config.updates_per_step * trainer.counts.steps))
