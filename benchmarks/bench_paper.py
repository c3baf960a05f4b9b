# SPDX-License-Identifier: Apache-2.0
"""The paper's comparison: RLIF against HG-DAgger, DAgger and BC with imperfect operators.

make bench-paper                          experts, all cells, table; goes on where it stopped
make bench-paper ARGS="--only hopper --methods rlif hg_dagger --seeds 0 --jobs 2"
make bench-paper ARGS="--ablation task_reward every_step --only hopper --levels weak"
make bench-paper ARGS="experts --only hopper"   train and choose judge and operators
make bench-paper ARGS="table"             paper.json, docs/paper.md and the curves from what was run
make bench-paper ARGS="judge"             what each task's judge objects to, into paper_judge.json
make bench-paper ARGS="measure"           processor time of 1,000 steps, and of the whole table

docs/paper.md says what is compared. A cell's result is a file in benchmarks/results/paper/.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench_demo import machine
from paper import experts, judging
from paper.cells import run_cell
from paper.report import RESULTS, read_results, write_json, write_report
from paper.settings import (
    ABLATIONS,
    DEFAULT_TASKS,
    METHODS,
    SETTINGS,
    Cell,
    ablation_cells,
    main_cells,
    used,
    with_defaults,
)
from paper.speed import cost, measure
from paper.tasks import LEVELS, TASKS

CELLS = RESULTS / "paper"


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def work(cell: Cell, device: str) -> dict[str, Any]:
    """A cell, in a process or on a machine of its own."""
    return run_cell(cell, experts.load(cell.task), device, log)


def make_experts(task: str, seed: int, device: str) -> None:
    experts.make(TASKS[task], seed, log, device)


def end_with_parent() -> None:
    """In a worker: when the process that started it was killed, its cell would go on for its own."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def workers(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )


def make_all_experts(tasks: list[str], seed: int, options: argparse.Namespace) -> None:
    """Several tasks at a time; an error of one is raised when the others are done."""
    with workers(options.jobs) as pool:
        futures = [pool.submit(make_experts, task, seed, options.device) for task in tasks]
    for future in futures:
        future.result()


def in_processes(
    cells: list[Cell], jobs: int, device: str
) -> Iterator[tuple[Cell, dict[str, Any] | None]]:
    """Results as they are done; None for a cell that failed, whose error is printed."""
    with workers(jobs) as pool:
        futures = {pool.submit(work, cell, device): cell for cell in cells}
        for future in as_completed(futures):
            if (error := future.exception()) is not None:
                traceback.print_exception(error)
                yield futures[future], None
            else:
                yield futures[future], future.result()


def on_cluster(
    cells: list[Cell], device: str
) -> Iterator[tuple[Cell, dict[str, Any] | None]]:  # pragma: no cover - no cluster in the tests
    """The same through Ray, one core a cell; the clone must lie at the same path on each machine."""
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise SystemExit("--ray: found no ray; install it: pip install ray==2.60.0") from error
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    ray.init(address="auto", runtime_env=paths)
    remote = ray.remote(num_cpus=1)(work)
    tasks = {remote.remote(cell, device): cell for cell in cells}
    while tasks:
        (done,), _ = ray.wait(list(tasks))
        cell = tasks.pop(done)
        try:
            yield cell, ray.get(done)
        except ray.exceptions.RayError as error:
            traceback.print_exception(error)
            yield cell, None


def outdated(cells: list[Cell], results: dict[Cell, dict[str, Any]]) -> list[Cell]:
    """Cells whose result is of other settings or experts than today's."""
    there = [cell for cell in cells if cell in results]
    digests = {task: experts.load(task).digest for task in {cell.task for cell in there}}

    def holds(cell: Cell) -> bool:
        result = results[cell]
        found = used(with_defaults(result["settings"]), METHODS[cell.method])
        return found == cell.used_settings and result["experts"] == digests[cell.task]

    return [cell for cell in there if not holds(cell)]


def run(cells: list[Cell], options: argparse.Namespace) -> int:
    """All cells that have no result yet. Returns the exit status: 1 if one failed."""
    results = read_results(CELLS)
    if not options.again and (old := outdated(cells, results)):
        raise SystemExit(
            f"found {len(old)} results of other settings or experts, such as {old[0].name}; restore "
            "what they were made with, or compute them again with --again"
        )
    todo = [cell for cell in cells if options.again or cell not in results]
    log(f"{len(cells) - len(todo)} of {len(cells)} cells are there, {len(todo)} to run")
    if not todo:
        return 0
    make_all_experts(experts.missing(sorted({cell.task for cell in todo})), 0, options)
    source = {"machine": machine(), "commit": commit(), "device": options.device}
    if options.ray:
        stream = on_cluster(todo, options.device)
    else:
        stream = in_processes(todo, options.jobs, options.device)
    total, done, failed, began = sum(map(cost, todo)), 0.0, 0, time.monotonic()
    for number, (cell, result) in enumerate(stream, start=1):
        done += cost(cell)
        left = (time.monotonic() - began) * (total - done) / done
        progress = f"{number} of {len(todo)} cells, about {left / 3600:.1f} h left"
        if result is None:
            failed += 1
            log(f"{cell.name} failed; {progress}")
            continue
        write_json(CELLS / f"{cell.name}.json", {**result, **source}, indent=None)
        score = sum(result["scores"]) / len(result["scores"])
        log(f"{cell.name}: {score:.1f} % in {result['seconds']['wall'] / 60:.1f} min; {progress}")
    return int(failed > 0)


def commit() -> str:
    """Of the clone, with + for changes that are not committed; empty outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def report() -> None:
    there = set(TASKS) - set(experts.missing(list(TASKS)))
    for path in write_report(CELLS, {task: experts.load(task).scores for task in sorted(there)}):
        log(f"wrote {path}")


def report_judges(tasks: list[str]) -> None:
    """Of those of the tasks that have experts."""
    there = [task for task in tasks if task not in experts.missing(tasks)]
    found = {
        task: judging.measure(TASKS[task], experts.load(task), SETTINGS[task], log)
        for task in there
    }
    write_json(RESULTS / "paper_judge.json", found)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "command", nargs="?", default="run", choices=["run", "experts", "table", "judge", "measure"]
    )
    parser.add_argument("--only", nargs="+", choices=TASKS, default=DEFAULT_TASKS, help="tasks")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="default: all, or rlif with --ablation"
    )
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--ablation", nargs="+", choices=ABLATIONS, help="the methods changed so")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--ray", action="store_true", help="on a cluster that `ray start` began")
    parser.add_argument("--again", action="store_true", help="also cells that have a result")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.command == "experts":
        make_all_experts(options.only, options.seeds[0], options)
        return 0
    if options.command == "table":
        report()
        return 0
    if options.command == "judge":
        report_judges(options.only)
        return 0
    tasks, levels, seeds = options.only, options.levels, options.seeds
    if options.ablation:
        try:
            methods = options.methods or ["rlif"]
            cells = ablation_cells(tasks, options.ablation, methods, levels, seeds)
        except ValueError as error:
            raise SystemExit(f"--ablation: {error}") from error
    else:
        cells = main_cells(tasks, options.methods or list(METHODS), levels, seeds)
    if options.command == "measure":
        measure(cells, machine(), log)
        return 0
    status = run(cells, options)
    if read_results(CELLS):
        report()
    return status


if __name__ == "__main__":
    sys.exit(main())
