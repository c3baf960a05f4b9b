# SPDX-License-Identifier: Apache-2.0
"""Evaluates a checkpoint on the simulated arm: the policy alone, deterministic, nothing learned.

CHECKPOINT is what a run has left under runs/<time>/checkpoints. The robot configuration and the cameras are those
of that run, unless you name others. With cameras there is a bag, and a film of some of the episodes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from rlif_bringup import filming
from rlif_bringup.demo import EVALUATION_BOARDS, add_common_arguments, rate_line
from rlif_bringup.graph_client import GraphError, InterruptedByUserError
from rlif_bringup.launch_command import parse_values
from rlif_bringup.processes import Interrupt
from rlif_bringup.progress import Progress
from rlif_bringup.session import Phase, Session
from rlif_bringup.simulation import chosen_domain, make_run_directory, simulation
from rlif_bringup.substitutions import LaunchFileError
from rlif_bringup.summary import EpisodeRecord, summarise, write_csv, write_json

INTERMIXED = True
TRAINED_WITH = ("robot", "config_directory", "images")  # launch arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif evaluate`."""
    parser.add_argument("checkpoint", type=Path, help="directory of a checkpoint, or of several")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif evaluate`."""
    progress = Progress(f"Evaluation of {arguments.checkpoint}")
    try:
        if not arguments.checkpoint.exists():
            raise GraphError(f"no checkpoint {arguments.checkpoint}: runs/*/checkpoints hold some")
        directory = make_run_directory(arguments.run_directory)
        with Interrupt() as interrupt, progress:
            plan, records = _evaluate(arguments, directory, progress, interrupt)
    except InterruptedByUserError:
        print("rlif evaluate: interrupted", file=sys.stderr)
        return 130
    except (GraphError, LaunchFileError) as error:
        print(f"rlif evaluate: {error}", file=sys.stderr)
        return 1
    filming.make_film(plan, records, arguments.checkpoint, directory, progress.print_line)
    for name in ("summary.json", filming.GIF):
        if (directory / name).exists():
            progress.print_line(f"  {directory / name}")
    return 0


def as_trained(checkpoint: Path) -> dict[str, str]:
    """Launch arguments of the run that `checkpoint` is of, as far as they say what a policy sees and
    drives; none where it lies in no run.

    Raises:
        GraphError: the run's own record of them cannot be read.
    """
    for folder in (checkpoint.absolute(), *checkpoint.absolute().parents[:2]):
        record = folder / "config" / "launch_arguments.yaml"
        if not record.is_file():
            continue
        try:
            content = yaml.safe_load(record.read_text(encoding="utf-8"))
            return {name: str(content[name]) for name in TRAINED_WITH if name in content}
        except (OSError, TypeError, yaml.YAMLError) as error:
            raise GraphError(f"{record} cannot be read: {error}") from error
    return {}


def _evaluate(
    arguments: argparse.Namespace, directory: Path, progress: Progress, interrupt: Interrupt
) -> tuple[filming.FilmPlan | None, Sequence[EpisodeRecord]]:
    """Run the episodes and write the summary; returns what a film is made of."""
    boards, episodes = arguments.seed + EVALUATION_BOARDS, arguments.eval_episodes
    phase = Phase("policy", "never", episodes=episodes, evaluation=True, boards=boards)
    trained = as_trained(arguments.checkpoint)
    values: dict[str, object] = {
        "seed": arguments.seed,
        **trained,
        "images": arguments.images or trained.get("images") == "true",
        "auto_start": False,
        "pace": False,
        "learner": False,
        "checkpoint": arguments.checkpoint.absolute(),
        "run_directory": directory,
        **parse_values(arguments.values),
    }
    if filming.films(arguments.film, values):
        values.setdefault("bag_directory", directory / "bag")
    with (
        chosen_domain(arguments.domain_id) as domain_id,
        simulation(values, directory, progress, domain_id, interrupt) as graph,
    ):
        session = Session(graph, progress.show, [phase], learner=False)
        versions = graph.watch_policy()
        session.wait_until_up()
        plan = filming.plan_film(arguments.film, values, graph, progress.print_line)
        session.run(phase)
        if versions & {0} or not versions:
            raise GraphError(
                f"the policy acted with weights of version {sorted(versions)}, not with those of "
                f"{arguments.checkpoint}: its log is in {directory / 'log'}"
            )
        elapsed = session.elapsed
    summary = summarise(
        session.records,
        checkpoint=str(arguments.checkpoint),
        policy_version=max(versions),
        seed=arguments.seed,
        wall_seconds=round(elapsed, 1),
    )
    write_json(directory / "summary.json", summary)
    write_csv(directory / "episodes.csv", session.records)
    progress.print_line(rate_line("policy alone", summary, "policy_success"))
    return plan, session.records
