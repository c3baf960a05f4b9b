# SPDX-License-Identifier: Apache-2.0
"""Jobs on a Ray cluster. Ray is an optional extra, imported only when it is asked for.

On each node the workspace must be sourced before `ray start`, and bags and output must lie under
the same paths: on a file system that all share.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError

Job = TypeVar("Job")
Result = TypeVar("Result")
LOCAL = "local"  # in the place of an address: a cluster of this machine alone, for this run
_CONNECT_TIMEOUT = 5.0  # s
_OBJECT_STORE = 128 * 2**20  # bytes; of a local cluster: jobs and reports are small


def run_on_ray(
    run: Callable[[Job], Result],
    lost: Callable[[Job, str], Result],
    jobs: Sequence[Job],
    address: str,
) -> Iterator[Result]:
    """Results in the order of the jobs; `lost` makes that of a job whose worker was lost.

    BagError where there is no cluster at `address`.
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
        remote = ray.remote(max_retries=2)(run)
        waiting = [(job, remote.remote(job)) for job in jobs]
        for job, result in waiting:
            try:
                yield ray.get(result)
            except ray.exceptions.RayError as error:
                first = str(error).strip().splitlines()[-1]
                yield lost(job, f"its worker on the cluster was lost: {first}.")
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """OSError at once where no server listens at host:port: Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()
