"""Train from bags, without a graph: what the learner does, on Steps that were recorded.

  rlif train BAG... -o DIR [--config config/learner.yaml] [--prior BAG...] [--updates N]

DIR gets checkpoints, as those of a live run, and TensorBoard curves over updates. The images of
the Steps are not used: the policy sees the state.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rlif_learner.bags import BagError, bag_paths
from rlif_learner.bags_relabel import Relabelling
from rlif_learner.bags_train import (
    Data,
    OfflineConfig,
    load,
    make_trainer,
    read_parameters,
    updates_due,
)
from rlif_learner.checkpoint import CheckpointStore
from rlif_learner.commands.relabel import parse_parameters
from rlif_learner.optim import NonFiniteError
from rlif_learner.scalars import Scalars
from rlif_learner.training import Trainer

SAY_EVERY = 2.0  # s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bags", nargs="+", type=Path, metavar="BAG")
    add("-o", "--output", type=Path, required=True, help="directory of the checkpoints; new")
    add("--config", type=Path, help="parameter file of the learner node")
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="parameter of the learner node over the file's, e.g. seed=3; the value is JSON",
    )  # fmt: skip
    add("--prior", nargs="+", type=Path, default=[], metavar="BAG", help="bags of prior data")
    add("--labels", type=Path, help="directory that `rlif relabel` wrote, instead of a scheme")
    add("--topic", default="", help="of the Steps, where there are several")
    add("--updates", type=int, help="default: updates_per_step for each step")
    add("--checkpoint-every", type=int, default=5000, metavar="UPDATES")
    add("--no-curves", action="store_true", help="write no TensorBoard events")
    add(
        "--evaluate", type=int, metavar="EPISODES",
        help="evaluate on the simulated arm at the end",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 with one line on stderr for data or settings that cannot be used."""
    try:
        config = _config(arguments)
        data = Data(
            bag_paths(arguments.bags), bag_paths(arguments.prior), arguments.topic, arguments.labels
        )
        if arguments.output.exists() and any(arguments.output.iterdir()):
            raise ValueError(f"{arguments.output} is not empty; name a new directory")
        torch.set_num_threads(1)  # small networks: more threads wait for each other
        trainer = make_trainer(config, data)
        load(trainer, data, print)
        updates = arguments.updates or updates_due(trainer, config)
        if not trainer.ready:
            raise ValueError(f"there is no transition for {config.algorithm} in these bags")
        path = _train(trainer, updates, arguments)
    except (BagError, ValueError, OSError, NonFiniteError) as error:
        print(f"rlif train: {error}", file=sys.stderr)
        return 1
    print(f"checkpoint: {path}\nnext: rlif evaluate {arguments.output}")
    return _evaluate(arguments) if arguments.evaluate else 0


def _identifier(pair: str) -> str:
    """rlpd.utd=3 as rlpd__utd=3."""
    name, equals, value = pair.partition("=")
    return name.replace(".", "__", 1) + equals + value


def _config(arguments: argparse.Namespace) -> OfflineConfig:
    parameters = read_parameters(arguments.config) if arguments.config else {}
    over = parse_parameters([_identifier(p) for p in arguments.parameters])
    for name, value in over.items():
        group, dot, inner = name.partition("__")
        if dot:
            parameters[group] = {**parameters.get(group, {}), inner: value}
        else:
            parameters[name] = value
    config, unused = OfflineConfig.from_parameters(parameters)
    wrong = set(over) & set(unused)
    if wrong:
        raise ValueError(f"--set: found {sorted(wrong)}, which offline training has no use for")
    if unused:
        print(f"not used offline: {', '.join(unused)}")
    Relabelling(config.label_scheme).function()
    return config


def _train(trainer: Trainer, updates: int, arguments: argparse.Namespace) -> Path:
    """All updates, with lines on the way; a checkpoint also when interrupted."""
    buffers = trainer.buffers
    prior = len(buffers.prior) if buffers.prior is not None else 0
    print(
        f"{trainer.counts.steps} steps, {len(buffers.online)} transitions, {prior} of prior data; "
        f"{updates} updates"
    )
    store = CheckpointStore(arguments.output)
    scalars = None if arguments.no_curves else Scalars(arguments.output / "tensorboard")
    said = time.monotonic()
    try:
        for done in range(1, updates + 1):
            trainer.update()
            if time.monotonic() - said > SAY_EVERY or done == updates:
                said = time.monotonic()
                _say(trainer, done, updates, scalars)
            if done % arguments.checkpoint_every == 0 and done < updates:
                save(store, trainer)
    except KeyboardInterrupt:
        print(f"interrupted; checkpoint: {save(store, trainer)}")
        raise
    finally:
        if scalars is not None:
            scalars.close()
    return save(store, trainer)


def save(store: CheckpointStore, trainer: Trainer) -> Path:
    extra = {**trainer.counters(), "policy_version": trainer.algorithm.updates}
    return store.save(trainer.algorithm, trainer.buffers, extra=extra)


def _say(trainer: Trainer, done: int, updates: int, scalars: Scalars | None) -> None:
    status = trainer.status()
    losses = "  ".join(f"{k} {v:.4g}" for k, v in status.metrics.items() if "loss" in k)
    print(f"  {done}/{updates} updates  {losses}", flush=True)
    if scalars is not None:
        scalars.write(replace(status, steps=done))  # curves over updates: the steps are all there


def _evaluate(arguments: argparse.Namespace) -> int:
    program: Sequence[str] = (sys.argv[0], "evaluate", str(arguments.output))
    return subprocess.run([*program, "--eval-episodes", str(arguments.evaluate)]).returncode
