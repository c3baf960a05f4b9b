# SPDX-License-Identifier: Apache-2.0
"""Whether the processes that send images have room for them in Fast DDS's shared memory. No ROS.

The segment is the sender's, so what counts is the environment that a camera driver was started with. It is
read from /proc, where the driver runs on this host and as this user.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rlif_node.transports import BUILTIN, PROFILES

DEFAULT_SEGMENT = 512 * 1024  # bytes, of Fast DDS without a profile
LIBRARIES = dict(zip(("libfastrtps", "libfastdds"), PROFILES, strict=True))  # Fast DDS 2 and 3
SEGMENT = re.compile(r"(fastrtps|fastdds)_[0-9a-f]{16}_el")  # the lock of a process's segment
YOUNG = 60.0  # s; a lock that was just made may not be held yet
HOST, PROCESS = slice(2, 4), slice(4, 6)  # in the identifier of a publisher, lowest byte first


@dataclass(frozen=True)
class ImageSender:
    """A publisher of a camera. segment: bytes of shared memory that it has; None: not known."""

    node: str
    topic: str
    image: int  # bytes
    segment: int | None


def segment_of(
    identifier: Sequence[int], own: Sequence[int], proc: Path = Path("/proc")
) -> int | None:
    """Bytes of shared memory of a publisher's process.

    identifier, own: of the publisher, and of one of this process (endpoint_gid)

    None: not known, since it runs elsewhere, as another user, or with transports of its own choice.
    """
    if identifier[HOST] != own[HOST]:
        return None
    low = int.from_bytes(bytes(identifier[PROCESS]), "little")
    for folder in proc.glob("[0-9]*"):
        if int(folder.name) & 0xFFFF != low:
            continue
        try:
            maps = (folder / "maps").read_text(encoding="utf-8", errors="replace")
            text = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:  # ended, or another user's
            continue
        variable = next((v for library, v in LIBRARIES.items() if library in maps), None)
        if variable is not None:
            environment = dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)
            return _segment(environment, variable)
    return None


def _segment(environment: Mapping[str, str], variable: str) -> int | None:
    path = environment.get(variable, "")
    if not path:
        return None if BUILTIN in environment else DEFAULT_SEGMENT
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return DEFAULT_SEGMENT  # Fast DDS reports it and goes on without
    sizes = [int(e.text or 0) for e in root.iter() if e.tag.rpartition("}")[2] == "segment_size"]
    return max(sizes, default=DEFAULT_SEGMENT)


def raw_cameras(observer: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Topic and bytes of an image of each raw camera, out of the observer's parameters."""
    if not observer.get("images"):
        return
    names = observer.get("cameras")
    for name in names if isinstance(names, (list, tuple)) else ():
        sizes = [observer.get(f"camera.{name}.{side}") for side in ("width", "height")]
        if observer.get(f"camera.{name}.transport", "raw") == "raw":
            width, height = (size if isinstance(size, int) else 0 for size in sizes)
            yield f"camera/{name}/image", 3 * width * height


def remove_abandoned(folder: Path = Path("/dev/shm")) -> int:
    """Bytes of shared memory of processes that were killed: Fast DDS itself leaves their segments there.

    A process holds the lock of its segment for as long as it lives. Other users' are left alone.
    """
    freed = 0
    for lock in folder.glob("fast*_el"):
        segment = folder / lock.name.removesuffix("_el")
        # Gone, or another user's: not ours to remove.
        with contextlib.suppress(OSError), lock.open("r+b") as file:
            if not SEGMENT.fullmatch(lock.name) or time.time() - lock.stat().st_mtime < YOUNG:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: it lives
            freed += segment.stat().st_size if segment.exists() else 0
            segment.unlink(missing_ok=True)
            lock.unlink()
    return freed
