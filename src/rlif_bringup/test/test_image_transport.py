# SPDX-License-Identifier: Apache-2.0
"""The shared memory of a camera driver, read from its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from rlif_bringup.image_transport import (
    DEFAULT_SEGMENT,
    YOUNG,
    raw_cameras,
    remove_abandoned,
    segment_of,
)

PROFILE = Path(__file__).resolve().parents[3] / "config" / "fastdds.xml"
PID = 70000  # above 16 bits, of which the identifier has the lower
DRIVER = [1, 15, 7, 8, *(PID & 0xFFFF).to_bytes(2, "little"), 3, 4, *[0] * 8]
OWN = [1, 15, 7, 8, 9, 9, 9, 9, *[0] * 8]


def processes(folder: Path, library: str, **environment: str) -> Path:
    for pid, maps in ((PID & 0xFFFF, "/usr/bin/bash"), (PID, f"7f00 r-xp /lib/{library}.so")):
        (folder / str(pid)).mkdir()
        (folder / str(pid) / "maps").write_text(maps)
        text = "".join(f"{k}={v}\0" for k, v in environment.items())
        (folder / str(pid) / "environ").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("library", "environment", "segment"),
    [
        ("libfastrtps", {}, DEFAULT_SEGMENT),
        ("libfastrtps", {"FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE)}, 16 << 20),
        ("libfastdds", {"FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE)}, DEFAULT_SEGMENT),
        ("libfastdds", {"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)}, 16 << 20),
        ("libfastrtps", {"FASTRTPS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}, DEFAULT_SEGMENT),
        ("libfastrtps", {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, None),
        ("libddsc", {}, None),
    ],
)
def test_segment_of_a_process_is_that_of_its_profile(
    library: str, environment: dict[str, str], segment: int | None, tmp_path: Path
) -> None:
    assert segment_of(DRIVER, OWN, processes(tmp_path, library, **environment)) == segment


def test_segment_of_a_process_on_another_host_is_not_known(tmp_path: Path) -> None:
    there = [*DRIVER[:2], 1, 1, *DRIVER[4:]]
    assert segment_of(there, OWN, processes(tmp_path, "libfastrtps")) is None


def test_raw_cameras_are_those_of_the_observer_that_send_whole_images() -> None:
    observer = {"images": True, "cameras": ["a", "b"], "camera.b.transport": "compressed",
                "camera.a.width": 640, "camera.a.height": 480}  # fmt: skip
    assert list(raw_cameras(observer)) == [("camera/a/image", 921600)]
    assert not list(raw_cameras({**observer, "images": False}))


def test_remove_abandoned_frees_the_segments_of_processes_that_are_gone(tmp_path: Path) -> None:
    def segment(name: str, age: float = 2 * YOUNG) -> Path:
        (tmp_path / name).write_bytes(bytes(1000))
        lock = tmp_path / f"{name}_el"
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
        return lock

    abandoned, young = (
        segment("fastrtps_0123456789abcdef"),
        segment("fastdds_00000000000000aa", 0.0),
    )
    alive, port = segment("fastdds_00000000000000bb"), segment("fastrtps_port7000")
    with alive.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_abandoned(tmp_path) == 1000
    left = {path.name for path in tmp_path.iterdir()}
    assert not {abandoned.name, abandoned.name.removesuffix("_el")} & left
    assert {young.name, alive.name, port.name} <= left and len(left) == 6
