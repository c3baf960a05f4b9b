# SPDX-License-Identifier: Apache-2.0
"""Train from bags, without a graph: what the learner does, on Steps that were recorded.

  rlif train BAG... -o DIR [--config config/learner.yaml] [--prior BAG...] [--updates N]

DIR gets checkpoints, as those of a live run, and TensorBoard curves over updates. The images of
the Steps are read where the parameters name an encoder. Whatever ends the training early, a last
checkpoint is written where there can be one.

In several processes, whose gradients are averaged; the first one writes files and messages:

  torchrun --standalone --nproc-per-node 2 --no-python rlif train BAG... -o DIR
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rlif_bags.commands.options import add_bags, add_set, parse_parameters
from rlif_bags.reading.files import BagError, bag_paths, refuse_inside
from rlif_bags.train import (
    Data,
    OfflineConfig,
    load,
    make_trainer,
    read_parameters,
    updates_due,
)
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.data.checkpoint import CheckpointStore
from rlif_learner.engines import distributed
from rlif_learner.engines.distributed import GroupError, Processes
from rlif_learner.engines.memory import keep_freed_memory
from rlif_learner.scalars import Scalars
from rlif_learner.training import Trainer

PRINT_PERIOD = 2.0  # s
Print = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    add_set(parser, "parameter of the learner node over the file's, e.g. seed=3; the value is JSON")
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="directory of the checkpoints; new")
    add("--config", type=Path, help="parameter file of the learner node")
    add("--prior", nargs="+", type=Path, default=[], metavar="BAG", help="bags of prior data")
    add("--labels", type=Path, help="directory that `rlif relabel` wrote, instead of a scheme")
    add("--updates", type=int, help="default: updates_per_step for each step")
    add("--checkpoint-every", type=int, default=5000, metavar="UPDATES")
    add("--no-curves", action="store_true", help="write no TensorBoard events")
    add(
        "--evaluate", type=int, metavar="EPISODES",
        help="evaluate on the simulated arm at the end: the checkpoint's score",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 with one line on stderr for data or settings that cannot be used."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rlif_learner").setLevel(logging.INFO)  # that it compiles, and for how long
    with distributed.processes() as own:
        try:
            prepared = _prepare(arguments, own)
            if prepared is None:
                return 1
            trainer, updates = prepared
            store = CheckpointStore(arguments.output) if own.is_first else None
            path = _train(trainer, updates, arguments, own, store)
        except (BagError, ValueError, OSError, NonFiniteError, GroupError) as error:
            _print_error(error, own)
            return 1
    if store is None:
        return 0
    print(f"checkpoint: {path}\nnext: rlif evaluate {arguments.output}")
    return _evaluate(arguments, store, trainer) if arguments.evaluate else 0


def _prepare(arguments: argparse.Namespace, own: Processes) -> tuple[Trainer, int] | None:
    """The trainer with its data, and how many updates it shall do.

    None where that failed in one of the processes; the first of them reports it.
    """
    problem: Exception | None = None
    try:
        wanted = 1 if arguments.updates is None else arguments.updates
        if wanted < 1 or arguments.checkpoint_every < 1:
            raise ValueError(
                f"--updates, --checkpoint-every: found {arguments.updates} and "
                f"{arguments.checkpoint_every}, expected whole numbers of at least 1"
            )
        if own.is_first and arguments.output.exists() and any(arguments.output.iterdir()):
            raise ValueError(f"{arguments.output} is not empty; name a new directory")
        bags = bag_paths([*arguments.bags, *arguments.prior])
        refuse_inside(bags, arguments.output)
        config, trainer, updates = _load(arguments, print if own.is_first else lambda _: None)
    except (BagError, ValueError, OSError) as error:
        problem = error
    failed = own.first_failed(problem is not None)
    if failed is not None:
        if problem is not None and failed == own.rank:
            _print_error(problem, own)
        own.first_failed(False)  # no process ends before it is printed: torchrun would end all
        return None
    if own.count > 1:
        distributed.join(trainer.algorithm, config.seed)
    return trainer, updates


def _print_error(error: Exception, own: Processes) -> None:
    which = f" (process {own.rank} of {own.count})" if own.count > 1 else ""
    print(f"rlif train{which}: {error}", file=sys.stderr, flush=True)


def _load(arguments: argparse.Namespace, report: Print) -> tuple[OfflineConfig, Trainer, int]:
    config = _config(arguments, report)
    data = Data(
        bag_paths(arguments.bags), bag_paths(arguments.prior), arguments.topic, arguments.labels
    )
    torch.set_num_threads(config.torch_threads)
    trainer = make_trainer(config, data)
    if trainer.algorithm.spec.encoder is not None:
        keep_freed_memory()
    load(trainer, data, report)
    updates = arguments.updates or updates_due(trainer, config)
    if not trainer.ready:
        raise ValueError(f"there is no transition for {config.algorithm} in these bags")
    prior = len(trainer.buffers.prior) if trainer.buffers.prior is not None else 0
    report(
        f"{trainer.counts.steps} steps, {len(trainer.buffers.online)} transitions, {prior} of "
        f"prior data; {updates} updates"
    )
    return config, trainer, updates


def _config(arguments: argparse.Namespace, report: Print) -> OfflineConfig:
    parameters = read_parameters(arguments.config) if arguments.config else {}
    over = parse_parameters(arguments.parameters)
    for name, value in over.items():
        group, dot, inner = name.partition(".")
        if dot:
            parameters[group] = {**parameters.get(group, {}), inner: value}
        else:
            parameters[name] = value
    config, unused = OfflineConfig.from_parameters(parameters)
    wrong = set(over) & set(unused)
    if wrong:
        raise ValueError(f"--set: found {sorted(wrong)}, which offline training has no use for")
    if unused:
        report(f"not used offline: {', '.join(unused)}")
    return config


def _train(
    trainer: Trainer,
    updates: int,
    arguments: argparse.Namespace,
    own: Processes,
    store: CheckpointStore | None,
) -> Path | None:
    """All updates, with lines on the way. With `store`, returns the last checkpoint."""
    curves = store is not None and not arguments.no_curves
    scalars = Scalars(arguments.output / "tensorboard") if curves else None
    printed = time.monotonic()
    try:
        for done in range(1, updates + 1):
            trainer.update()
            if store is None:
                continue
            if time.monotonic() - printed > PRINT_PERIOD or done == updates:
                printed = time.monotonic()
                _print_status(trainer, done, updates, scalars)
            if done % arguments.checkpoint_every == 0 and done < updates:
                save(store, trainer)
        digest = distributed.common_digest(trainer.algorithm) if own.count > 1 else ""
    except BaseException:
        if store is not None:
            _save_what_there_is(store, trainer, own)
        raise
    finally:
        if scalars is not None:
            scalars.close()
    if store is None:
        return None
    if digest:
        print(f"{own.count} processes with the same weights: sha256 {digest}")
    return save(store, trainer)


def _save_what_there_is(store: CheckpointStore, trainer: Trainer, own: Processes) -> None:
    """A last checkpoint, before what has happened is shown."""
    if own.count > 1:
        # torchrun ends all processes once one has failed; it waits longer than this takes.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        print(f"last checkpoint: {save(store, trainer)}", file=sys.stderr)
    except OSError as problem:
        print(f"no last checkpoint: {problem}", file=sys.stderr)


def save(store: CheckpointStore, trainer: Trainer, score: float | None = None) -> Path:
    extra = {**trainer.counters(), "policy_version": trainer.algorithm.updates}
    return store.save(trainer.algorithm, trainer.buffers, score=score, extra=extra)


def _print_status(trainer: Trainer, done: int, updates: int, scalars: Scalars | None) -> None:
    status = trainer.status()
    losses = "  ".join(f"{k} {v:.4g}" for k, v in status.metrics.items() if "loss" in k)
    print(f"  {done}/{updates} updates  {losses}", flush=True)
    if scalars is not None:
        scalars.write(replace(status, steps=done))  # curves over updates: the steps are all there


def _evaluate(arguments: argparse.Namespace, store: CheckpointStore, trainer: Trainer) -> int:
    """As `rlif evaluate`, whose success rate becomes the score of one more checkpoint."""
    directory = arguments.output / "evaluation"
    program: Sequence[str] = (sys.argv[0], "evaluate", str(arguments.output))
    options = ("--eval-episodes", str(arguments.evaluate), "--run-directory", str(directory))
    code = subprocess.run([*program, *options]).returncode
    if code:
        return code
    summary = directory / "summary.json"
    try:
        score = float(json.loads(summary.read_text(encoding="utf-8"))["policy_success"])
        path = save(store, trainer, score)
    except (OSError, ValueError, KeyError) as error:
        print(f"rlif train: no score from {summary}: {error!r}", file=sys.stderr)
        return 1
    print(f"checkpoint with its score, {score:.2f}: {path}")
    return 0
