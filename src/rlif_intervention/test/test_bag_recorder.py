# SPDX-License-Identifier: Apache-2.0
"""The thread that writes: what a slow or full disk, an error or a kill costs."""

from __future__ import annotations

import errno
import io
import itertools
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from bag_rig import INT, config, int_message, messages_of_unfinished, read_all
from waiting import scaled, wait_until

from rlif_intervention.bag_recorder import BagRecorder, LogClock
from rlif_intervention.bag_writer import BagWriter, Topic

_KILLED = """
import sys, time
from pathlib import Path
from rlif_intervention.bag_recorder import BagRecorder
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic
topic = Topic("/count", "std_msgs/msg/Int64", "int64 data\\n")
recorder = BagRecorder(lambda: BagWriter(BagConfig(Path(sys.argv[1]), required_free_mib=0)))
i = 0
while True:
    recorder.record(topic, time.time_ns(), b"\\x00\\x01\\x00\\x00" + i.to_bytes(8, "little"))
    print(time.monotonic(), flush=True)
    i += 1
    time.sleep(0.001)  # the rate of the messages
"""


@pytest.mark.slow
def test_bag_of_a_killed_process_lacks_at_most_a_second(tmp_path: Path) -> None:
    """A killed process must still leave a readable bag: at three moments between two flushes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path / "bag")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    times, file, left = [], tmp_path / "bag/bag_0.mcap", []
    moments = [1.3, 1.77, 2.4]  # s; at the last of them it is killed, at the others it might be
    for line in process.stdout:
        times.append(float(line))
        if times[-1] - times[0] >= moments[0]:
            left.append((len(times), tmp_path / f"{moments.pop(0)}.mcap"))
            if not moments:
                process.send_signal(signal.SIGKILL)
                break
            shutil.copy(file, left[-1][1])
    process.stdout.close()
    process.wait(10)
    shutil.copy(file, left[-1][1])
    assert len(left) == 3
    # Where the machine let the process stand still, its thread may have done so as well.
    stood_still = max(b - a for a, b in itertools.pairwise(times))
    for sent, copy in left:
        found = messages_of_unfinished(copy)
        assert found == [int_message(i) for i in range(len(found))]
        assert len(found) < sent
        assert times[sent - 1] - times[len(found)] < 1.3 + 2.0 * stood_still


class FullDisk(io.BytesIO):
    """Takes `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_recorder_with_a_full_disk_stops_and_reports_it(tmp_path: Path) -> None:
    recorder = BagRecorder(
        lambda: BagWriter(config(tmp_path, chunk_kib=1), open_file=lambda _: FullDisk(4000))
    )
    sent = 0
    while not recorder.status().error and sent < 10_000_000:
        recorder.record(INT, sent, int_message(sent))
        sent += 1
    status = recorder.close()
    assert "No space left" in status.error and status.error.startswith("recording stopped")
    assert status.lost > 0 and recorder.record(INT, 1, int_message(1)) is False
    assert recorder.lost() == {"/count": recorder.status().lost}
    # Regression: what was in memory when the disk was full was neither written nor lost.
    assert status.written + status.lost == sent


@pytest.mark.parametrize("where", ["write", "flush_if_due", "close"])
def test_recorder_with_any_error_in_its_thread_reports_it_and_closes_the_file(
    tmp_path: Path, where: str
) -> None:
    """PITFALLS: errors swallowed in threads. One that nobody thought of ended it silently."""
    files: list[Any] = []

    def open_file(path: Path) -> Any:
        files.append(path.open("xb"))
        return files[-1]

    def fail(*_: Any, **__: Any) -> None:
        if where == "close":
            BagWriter.close(writer)
        raise KeyError("unforeseen")

    writer = BagWriter(config(tmp_path), open_file=open_file)
    setattr(writer, where, fail)
    recorder = BagRecorder(lambda: writer)
    recorder.record(INT, 1, int_message(1))
    if where != "close":
        wait_until(lambda: recorder.status().error, "the error in the status")
    status = recorder.close()
    assert status.error == "recording stopped: KeyError: 'unforeseen'"
    assert status.lost == (where == "write") and files[0].closed
    assert read_all(tmp_path / "bag") is not None, "the bag is finished as far as it goes"


def test_recorder_with_a_slow_disk_counts_what_is_lost(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(BagWriter):
        def write(self, *args: Any, **more: Any) -> None:
            assert gate.wait(scaled(20.0))
            super().write(*args, **more)

    recorder = BagRecorder(lambda: Slow(config(tmp_path)), queue_mib=1)
    big = b"\x00\x01\x00\x00" + bytes(400_000)
    topic = Topic("/big", "std_msgs/msg/String", "string data\n")
    taken = [recorder.record(topic, i, big) for i in range(10)]
    gate.set()
    status = recorder.close()
    assert 0 < status.lost == taken.count(False)
    assert status.written == taken.count(True) and not status.error


def test_recorder_that_is_closed_writes_all_that_waits(tmp_path: Path) -> None:
    recorder = BagRecorder(lambda: BagWriter(config(tmp_path)))
    for i in range(5000):
        assert recorder.record(INT, i, int_message(i))
    status = recorder.close()
    assert (status.written, status.lost, status.error) == (5000, 0, "")
    assert [d for _, _, d in read_all(tmp_path / "bag")] == [int_message(i) for i in range(5000)]


def test_log_clock_with_a_clock_that_is_set_back_goes_on() -> None:
    wall, steady = [1_000], [50]
    clock = LogClock(lambda: wall[0], lambda: steady[0])
    assert clock() == 1_000
    wall[0], steady[0] = 10, 60
    assert clock() == 1_010
