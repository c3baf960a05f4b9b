# SPDX-License-Identifier: Apache-2.0
"""The machine's memory: what is free of it, and what becomes of it between two updates."""

from __future__ import annotations

import ctypes
from pathlib import Path

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1  # bytes that would have to be free at the end of the heap


def keep_freed_memory() -> bool:
    """From now on what an update frees stays with this process, for the next one.

    Learning from images takes and frees hundreds of megabytes in each update. By default glibc gives
    pieces of that size back to the system at once, and the next update waits while each of their
    pages is zeroed again: on a processor that was up to half of its time (docs/cameras.md). The
    numbers do not change. The process keeps the memory of its largest update; threads that begin
    later share one heap, so call it before training begins.

    False: this C library has no such settings, nothing was changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))
    return all(mallopt(*setting) == 1 for setting in settings)


def free_memory() -> int | None:
    """Bytes that a process can have without others being put on disk; None where Linux does not say.

    Of the whole machine: a container's own limit may be lower.
    """
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    for line in information.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None
