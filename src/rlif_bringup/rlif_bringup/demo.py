# SPDX-License-Identifier: Apache-2.0
"""Trains a policy on the simulated arm out of a scripted operator's take-overs, and evaluates it.

Phases: a few demonstrations, training with interventions until the given number of environment
steps, the policy alone, the operator's actor alone on the same boards. Ctrl-C ends it in order.
With --operator me you are the operator: in real time, in the browser, in about ten minutes.
With --robots N as many arms, each with an operator of its own, share the work and one learner.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlif_bringup import filming
from rlif_bringup.detection import (
    PATIENCE,
    Truth,
    detector_problem,
    detector_trainings,
    judge_detector,
    train_detector,
)
from rlif_bringup.fleet import Fleet
from rlif_bringup.graph_client import GraphClient, GraphError, InterruptedByUserError
from rlif_bringup.launch_command import parse_values
from rlif_bringup.operators import Operator, PersonOperator
from rlif_bringup.plot import Curves, draw
from rlif_bringup.processes import Interrupt
from rlif_bringup.progress import Progress, clock
from rlif_bringup.session import Phase, Session
from rlif_bringup.simulation import (
    chosen_domain,
    make_run_directory,
    simulation,
    write_configuration,
)
from rlif_bringup.substitutions import LaunchFileError
from rlif_bringup.summary import (
    WINDOW,
    EpisodeRecord,
    of_phase,
    operator_share,
    success_rate,
    summarise,
    trial_name,
    write_csv,
    write_json,
)

INTERMIXED = True
EVALUATION_BOARDS = 1_000_000  # added to the seed: boards that training has not seen
TRIAL_BOARDS = 2_000_000
PERSON_TRIALS = 5  # of each evaluation: a person has to do them too
# Launch arguments where a person operates: real time, and an arm that a person can put a peg in with.
PERSON = {
    "robot": "sim_person",
    "operator": False,
    "lock_step": False,
    "console": True,
    "cameras": True,
}
_NODES = ["sim_robot", "observer", "policy", "arbiter", "episode", "recorder"]


def whole_number(text: str) -> int:
    """A count, for argparse: 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of at least 0")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif demo`."""
    add_common_arguments(parser)
    parser.add_argument(
        "--operator", choices=("scripted", "me"), default="scripted", help="who takes over"
    )
    parser.add_argument(
        "--robots",
        type=whole_number,
        default=1,
        help="simulated arms that share episodes and steps, and one learner (%(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=whole_number,
        default=8_000,
        help="environment steps (%(default)s); with --operator me --corrections counts instead",
    )
    parser.add_argument(
        "--corrections",
        type=whole_number,
        default=15,
        help="episodes of training with --operator me (%(default)s)",
    )
    parser.add_argument(
        "--demonstrations",
        type=whole_number,
        default=10,
        help="episodes of prior data (%(default)s)",
    )
    parser.add_argument(
        "--eval-every",
        type=whole_number,
        default=0,
        metavar="STEPS",
        help="try the policy alone in between, before training too; 0: at the end only",
    )
    parser.add_argument(
        "--trials",
        type=whole_number,
        default=20,
        help="episodes of each --eval-every (%(default)s)",
    )
    parser.add_argument(
        "--detector",
        action="store_true",
        help="a detector that learns from the success button ends the episodes: docs/success_detector.md",
    )
    parser.add_argument(
        "--detector-steps",
        type=whole_number,
        default=2_000,
        metavar="STEPS",
        help="environment steps until it is trained, and each time trained again (%(default)s)",
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="through robot.launch.yaml, as a lab would: real time, cameras at 30 Hz, all limits in force",
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs the simulated graph."""
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="of all that is random (%(default)s)"
    )
    parser.add_argument(
        "--eval-episodes", type=whole_number, default=50, help="of each evaluation (%(default)s)"
    )
    parser.add_argument("--images", action="store_true", help="render and record the cameras")
    parser.add_argument("--film", type=whole_number, metavar="N", help=filming.HELP)
    parser.add_argument("--run-directory", help="for everything that is written (runs/<time>)")
    parser.add_argument("--domain-id", type=whole_number, help="of DDS (one for this run)")
    parser.add_argument(
        "values", nargs="*", metavar="name:=value", help="more arguments of sim.launch.yaml"
    )


def phases_of(arguments: argparse.Namespace) -> list[Phase]:
    """The phases of a demo; those of length 0 are left out."""
    count = arguments.eval_episodes
    if arguments.operator == "me":
        count = min(count, PERSON_TRIALS)
    judged: list[Phase] = []
    if count:
        how = {"episodes": count, "evaluation": True, "boards": arguments.seed + EVALUATION_BOARDS}
        judged = [Phase("policy", "never", **how), Phase("expert", "always", **how)]
    if arguments.operator == "me":
        return [
            Phase("demonstrations", "always", episodes=arguments.demonstrations or 1),
            Phase("training", "intervene", episodes=arguments.corrections or 1),
            *judged,
        ]
    # Other boards than those of the evaluation at the end, the same ones each time.
    boards = arguments.seed + TRIAL_BOARDS
    trial = Phase("", "never", episodes=arguments.trials or 1, evaluation=True, boards=boards)
    every = arguments.eval_every if arguments.trials else 0
    phases = []
    if every:
        phases.append(dataclasses.replace(trial, name=trial_name(0)))
    if arguments.demonstrations:
        phases.append(Phase("demonstrations", "always", episodes=arguments.demonstrations))
    goals = set(range(every, arguments.steps, every)) if every else set()
    stops = goals | set(detector_trainings(arguments))
    for steps in sorted(stop for stop in stops if stop < arguments.steps):
        phases.append(Phase("training", "intervene", env_steps=steps))
        if steps in goals:
            phases.append(dataclasses.replace(trial, name=trial_name(steps)))
    if arguments.steps:
        phases.append(Phase("training", "intervene", env_steps=arguments.steps))
    return phases + judged


class Demo:
    """One run: its directory, its records, and what is made of them at the end."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, progress: Progress) -> None:
        self._arguments, self._progress = arguments, progress
        self.directory, self._bag = directory, directory / "bag"
        self._curves = Curves(directory / "tensorboard" / "episodes")
        self._session: Session | None = None
        self._graph: GraphClient | None = None
        self._training: list[EpisodeRecord] = []
        self._film: filming.FilmPlan | None = None
        self._person = arguments.operator == "me"
        self._port = free_port() if self._person else 0
        self._load: dict[str, Any] = {}  # of a run in real time
        self._detector = directory / "detector" if arguments.detector else None
        self._fleet: Fleet | None = None  # with several robots

    @property
    def values(self) -> dict[str, object]:
        """Launch arguments of the run; those given on the command line win."""
        person: dict[str, object] = {}
        if self._person:
            robot = "sim_person_vision" if self._arguments.images else "sim_person"
            person = PERSON | {"robot": robot, "console_port": self._port}
        if self._detector:
            person |= {"detector": self._detector, "hide_success": True}
        return {
            **person,
            "seed": self._arguments.seed,
            "images": self._arguments.images or self._arguments.real_time,
            "auto_start": False,
            "run_directory": self.directory,
            "bag_directory": self._bag,
            "prior_episodes": self._arguments.demonstrations,
            **parse_values(self._arguments.values),
        }

    def run(self, interrupt: Interrupt) -> None:
        """Start the graph and run all phases on it."""
        self._progress.print_line("starting the nodes")
        if self._detector:
            self._detector.mkdir()  # empty: the node judges nothing until it is trained
        if self._arguments.robots > 1:
            self._run_fleet(interrupt)
            return
        file = "robot_sim.launch.yaml" if self._arguments.real_time else "sim.launch.yaml"
        run = (self.values, self.directory, self._progress)
        with (
            chosen_domain(self._arguments.domain_id) as domain_id,
            simulation(*run, domain_id, interrupt, file) as graph,
        ):
            self._run_phases(graph)

    def _run_fleet(self, interrupt: Interrupt) -> None:
        self._fleet = Fleet(
            self.values, self._arguments, self.directory, self._progress, phases_of, self._on_record
        )
        self._fleet.run(interrupt)

    @property
    def records(self) -> Sequence[EpisodeRecord]:
        """Of all episodes so far."""
        if self._fleet:
            return self._fleet.records
        return self._session.records if self._session else ()

    def _run_phases(self, graph: GraphClient) -> None:
        phases = phases_of(self._arguments)
        self._graph = graph
        person = PersonOperator(graph) if self._person else None
        session = Session(
            graph, self._progress.show, phases, learner=True, finished=self._on_record,
            operator=person, pace=not (self._arguments.real_time or person),
            truth=Truth(graph).succeeded if self._detector else None,
        )  # fmt: skip
        self._session = session
        session.wait_until_up()
        nodes = [*_NODES, "learner", *(person or Operator(graph)).nodes]
        nodes += ["success_detector"] if self._detector else []
        if person:
            self._open_page()
        write_configuration(graph, self.values, nodes, self.directory / "config")
        self._film = filming.plan_film(
            self._arguments.film, self.values, graph, self._progress.print_line
        )
        for phase in phases:
            if session.detects:
                # What is judged ends without the operator's buttons.
                delay = -1 if phase.evaluation else PATIENCE
                graph.set_parameters("sim_operator", success_delay=delay)
            done = session.run(phase)
            rate = success_rate(done) or 0.0
            self._progress.print_line(
                f"[{clock(session.elapsed)}] {phase.name}: {len(done)} episodes, "
                f"{rate:.0%} successful"
            )
            if self._detector and phase.env_steps in detector_trainings(self._arguments):
                self._progress.print_line("training the success detector")
                directory = self._detector / str(phase.env_steps)
                seed, again = self._arguments.seed, session.detects
                if problem := train_detector(graph, self._bag, directory, seed, again):
                    self._progress.print_line(problem)
                session.detects = True
            if self._arguments.real_time:
                self._load = real_time_load(graph, session.elapsed)
        if person:
            person.tell(person_result(session.records))
            self._progress.print_line("the result stands on the page; Ctrl-C ends the demo")
            with contextlib.suppress(InterruptedByUserError):
                graph.wait(lambda: False, "Ctrl-C", person.patience)
        self._progress.print_line("stopping the nodes")

    def _open_page(self) -> None:
        """The address is printed too: there may be no browser here."""
        port = self.values["console_port"]
        address = f"http://127.0.0.1:{port}/"
        self._progress.print_line(
            f"you operate: {address}\nFrom another machine: ssh -L {port}:127.0.0.1:{port} HOST, "
            "and open the same address there. Take the controls, then arm."
        )
        webbrowser.open(address)

    def _on_record(self, record: EpisodeRecord) -> None:
        if record.phase != "training":
            return
        self._training.append(record)
        recent = self._training[-WINDOW:]
        self._curves.add(
            record.env_steps,
            training__success=success_rate(recent),
            training__operator_share=operator_share(recent),
            training__interventions=sum(r.interventions for r in recent) / len(recent),
            training__false_successes=judge_detector(recent)["false_success_rate"],
        )

    def finish(self, interrupted: bool, error: str | None) -> dict[str, Any]:
        """Write summary, records, picture and curves of what there was."""
        records = self.records
        graph = self._fleet.learner if self._fleet else self._graph
        status = graph.learner if graph else None
        if self._fleet:
            self._load = self._fleet.summary()
            seconds = max((record.wall_seconds for record in records), default=0.0)
        else:
            seconds = self._session.elapsed if self._session else 0.0
        summary = (
            summarise(
                records,
                updates=status.updates if status else 0,
                gradient_steps=status.critic_steps if status else 0,
                lost_steps=status.lost_steps if status else 0,
                wall_seconds=round(seconds, 1),
                seed=self._arguments.seed,
                interrupted=interrupted,
                error=error,
            )
            | self._load
        )
        if self._detector:
            summary["detector"] = {
                "evaluation": judge_detector(of_phase(records, "policy")),
                "training": judge_detector(of_phase(records, "training")),
                "training_last20": judge_detector(of_phase(records, "training")[-WINDOW:]),
            }
        write_json(self.directory / "summary.json", summary)
        write_csv(self.directory / "episodes.csv", records)
        if of_phase(records, "training") or of_phase(records, "policy"):
            title = f"Learned from interventions: peg in hole, seed {self._arguments.seed}"
            draw(records, title, self.directory / "plot.png")
        self._curves.close()
        return summary

    def film(self) -> None:
        """Show some episodes of the evaluation, if the run has recorded images of them."""
        filming.make_film(
            self._film, self.records, self.directory, self.directory, self._progress.print_line
        )


def real_time_load(graph: GraphClient, seconds: float) -> dict[str, Any]:
    """What a run in real time has cost, and whether the learner kept up.

    cpu_percent: of one core, by node, since its start; learner_lag_steps: Steps not yet learned from;
    faults: of the arbiter
    """
    status = graph.learner
    used = graph.cpu_seconds()
    return {
        "cpu_percent": {name: round(100 * used[name] / seconds, 1) for name in sorted(used)},
        "updates_per_s": round(status.updates / seconds, 2) if status else None,
        "learner_lag_steps": int(status.steps - status.updates) if status else None,
        "faults": graph.faults,
    }


def free_port() -> int:
    """A TCP port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def person_result(records: Sequence[EpisodeRecord]) -> str:
    """The last text on the page: the person beside the policy."""

    def count(phase: str) -> str:
        found = of_phase(records, phase)
        return f"{sum(record.success for record in found)} of {len(found)}"

    return (
        f"Done. The policy alone: {count('policy')}. You, on the same boards: {count('expert')}. "
        "It has learned from your demonstrations and your take-overs. Thank you!"
    )


def rate_line(name: str, summary: dict[str, Any], key: str) -> str:
    """A success rate with its interval, as a line."""
    if summary[key] is None:
        return f"  {name:<28} not evaluated"
    low, high = summary[f"{key}_interval"]
    return f"  {name:<28} {summary[key]:6.1%}   (95 % interval {low:.1%} to {high:.1%})"


def detector_lines(summary: dict[str, Any]) -> list[str]:
    """What the success detector was worth; nothing where there was none."""
    lines = []
    for name, found in summary.get("detector", {}).items():
        if name != "training_last20":
            lines.append(
                f"  {f'detector, {name}':<28} precision {_share(found['precision'])}, recall "
                f"{_share(found['recall'])}, {found['false_successes']} false successes in "
                f"{found['episodes']} episodes"
            )
    return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def report(summary: dict[str, Any], directory: Path) -> str:
    """What came out, where it is, and what to look at next."""
    try:
        shown = directory.relative_to(Path.cwd())
    except ValueError:
        shown = directory
    first, last = summary["operator_share_first20"], summary["operator_share_last20"]
    files = {
        "summary.json": "the numbers above, for programs",
        "plot.png": "success and interventions over steps: look at this first",
        "episodes.csv": "one line per episode",
        "episodes.gif": "the first episodes of the policy alone, with the critic's value",
        "tensorboard/": f"tensorboard --logdir {shown}/tensorboard",
        "checkpoints/": f"rlif evaluate {shown}",
        "detector/": "the success detector of each training, its report and its worst mistakes",
        "bag/": f"rlif show {shown}/bag, or open it in Foxglove",
        "config/": "the parameters of every node",
        "log/": "what every node printed",
        "arm_1/": "bag, configuration and logs of this robot; of the others beside it",
    }
    there = [(name, text) for name, text in files.items() if (directory / name).exists()]
    return "\n".join(
        [
            "",
            rate_line("policy alone", summary, "policy_success"),
            rate_line("operator alone", summary, "expert_success"),
            f"  {'operator share of steps':<28} {_share(first)} in the first, {_share(last)} in the "
            f"last {WINDOW} training episodes",
            f"  {'environment steps':<28} {summary['env_steps']:,} with "
            f"{summary['interventions']:,} interventions, {summary['gradient_steps']:,} gradient "
            f"steps, {clock(summary['wall_seconds'])} minutes",
            *detector_lines(summary),
            "",
            f"In {shown}:",
            *(f"  {name:<14} {text}" for name, text in there),
        ]
    )


def conflict(arguments: argparse.Namespace) -> str:
    """Why these options do not go together; empty: they do."""
    if arguments.real_time and arguments.operator == "me":
        return "--operator me is in real time already: leave --real-time out"
    if arguments.robots != 1 and (arguments.real_time or arguments.operator == "me"):
        return "--robots is for scripted operators: leave --operator me and --real-time out"
    if arguments.robots < 1 or (arguments.robots > 1 and arguments.film):
        return "--robots: expected at least 1, and no --film with several"
    return ""


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif demo`."""
    if problem := conflict(arguments) or detector_problem(arguments):
        print(f"rlif demo: {problem}", file=sys.stderr)
        return 2
    try:
        directory = make_run_directory(arguments.run_directory)
        parse_values(arguments.values)
    except (GraphError, LaunchFileError) as error:
        print(f"rlif demo: {error}", file=sys.stderr)
        return 2
    progress = Progress(f"RLIF demo, seed {arguments.seed}")
    demo = Demo(arguments, directory, progress)
    interrupted, problem = False, ""
    with Interrupt() as interrupt:
        try:
            with progress:
                demo.run(interrupt)
        except InterruptedByUserError:
            interrupted = True
            progress.print_line("interrupted: all nodes were stopped; the results so far:")
        except (GraphError, LaunchFileError) as error:
            problem = str(error)
        summary = demo.finish(interrupted, problem or None)
    if not interrupted:
        demo.film()
    progress.print_line(report(summary, directory))
    if problem:
        print(f"\nrlif demo: {problem}", file=sys.stderr)
        return 1
    return 130 if interrupted else 0
