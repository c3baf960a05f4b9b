# SPDX-License-Identifier: Apache-2.0
"""Relabelling many bags: one after another, in processes side by side, or on a Ray cluster.

A job is one bag, and knows all it needs: wherever it runs, the files and the report are the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlif_bags.external.convert import convert_bag
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ConversionReport
from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError
from rlif_bags.relabelling.relabel import Relabelling, RelabelReport, describe_raised, relabel_bag

LOCAL = "local"  # in the place of an address: a cluster of this machine alone, for this run
_CONNECT_TIMEOUT = 5.0  # s
_OBJECT_STORE = 128 * 2**20  # bytes; of a local cluster: jobs and reports are small


@dataclass(frozen=True)
class Job:
    """mapping: of a bag that this suite did not record; plots: one picture for each episode."""

    bag: Path
    output: Path
    work: Relabelling
    mapping: TopicMapping | None = None
    plots: bool = False


@dataclass(frozen=True)
class JobResult:
    """error: why there is no report; empty: there is one."""

    bag: str
    error: str = ""
    conversion: ConversionReport | None = None
    report: RelabelReport | None = None
    plots: str = ""  # directory

    def entry(self) -> dict[str, Any]:
        """Of report.json."""
        values: dict[str, Any] = vars(self.report) if self.report is not None else {}
        # The report of an external recording names the bag that it became.
        values = {**values, "bag": self.bag}
        values |= {"error": self.error} if self.error else {}
        if self.conversion is not None:
            values["conversion"] = self.conversion.entry()
        return values


def run_job(job: Job) -> JobResult:
    """Never raises for what is wrong with the bag, the scheme or the disk: the result holds the reason."""
    conversion = None
    try:
        bag = job.bag
        if job.mapping is not None:
            conversion = convert_bag(bag, job.output, job.mapping)
            bag = Path(conversion.target)
        report = relabel_bag(bag, job.output, job.work)
        plots = ""
        if job.plots:
            from rlif_bags.drawing.plot import plot_episodes  # matplotlib takes long to import

            plots = str(plot_episodes(bag, job.output, job.work, not report.resumed))
        return JobResult(str(job.bag), conversion=conversion, report=report, plots=plots)
    except Exception as error:  # noqa: BLE001 - one bag must not end the work on the others
        known = isinstance(error, (BagError, ValueError, OSError))
        text = str(error) if known else f"unexpected {describe_raised(error)}"
        where = "" if text.startswith(f"{job.bag}: ") else f"{job.bag}: "
        return JobResult(str(job.bag), where + text, conversion)


def run_jobs(
    jobs: Sequence[Job], workers: int = 1, ray_address: str | None = None
) -> Iterator[JobResult]:
    """Results in the order of the jobs. BagError where Ray is asked for and cannot be had."""
    if ray_address is not None:
        yield from _on_ray(jobs, ray_address)
    elif workers <= 1 or len(jobs) <= 1:
        yield from map(run_job, jobs)
    else:
        yield from _side_by_side(jobs, workers)


def _side_by_side(jobs: Sequence[Job], workers: int) -> Iterator[JobResult]:
    # Not forked: a process may have threads by now.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        try:
            with _ctrl_c_blocked():  # the workers begin here, and inherit it
                waiting = [(job, pool.submit(run_job, job)) for job in jobs]
            for job, future in waiting:
                try:
                    yield future.result()
                except BrokenProcessPool:
                    yield lost_job(
                        job, "a worker process died; is there memory for so many --jobs?"
                    )
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal: this one stops the others, with one line."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_ray(jobs: Sequence[Job], address: str) -> Iterator[JobResult]:
    """On each node the workspace must be sourced before `ray start`, and bags and output must lie
    under the same paths. BagError where there is no cluster at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    ray = optional("ray")
    settings: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == LOCAL:
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    try:
        _check_port(address)
        ray.init(**settings)
    except (ray.exceptions.RayError, ValueError, RuntimeError, OSError) as error:
        raise BagError(f"--ray {address}: {error}") from error
    try:
        remote = ray.remote(max_retries=2)(run_job)
        waiting = [(job, remote.remote(job)) for job in jobs]
        for job, result in waiting:
            try:
                yield ray.get(result)
            except ray.exceptions.RayError as error:
                first = str(error).strip().splitlines()[-1]
                yield lost_job(job, f"its worker on the cluster was lost: {first}.")
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """OSError at once where no server listens at host:port: Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()


def lost_job(job: Job, why: str) -> JobResult:
    """Of a job whose worker was lost."""
    return JobResult(str(job.bag), f"{job.bag}: {why} Run it again: what is done stays done")
