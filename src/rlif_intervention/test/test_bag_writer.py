"""Bags: readable by others, whole after a crash, honest about what is lost."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from mcap.records import Chunk, Message
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from rlif_intervention.bag_recorder import BagRecorder, LogClock
from rlif_intervention.bag_writer import BagConfig, BagError, BagWriter, Topic, qos_profile

BOOL = Topic(
    "/flag",
    "std_msgs/msg/Bool",
    "bool data\n",
    "RIHS01_feb91e995ff9ebd09c0cb3d2aed18b11077585839fb5db80193b62d74528f6c9",
    (qos_profile(depth=3),),
)
INT = Topic("/count", "std_msgs/msg/Int64", "int64 data\n", "", (qos_profile("best_effort"),))


def bool_message(value: bool) -> bytes:
    return b"\x00\x01\x00\x00" + bytes([value])


def int_message(value: int) -> bytes:
    return b"\x00\x01\x00\x00" + value.to_bytes(8, "little")


def config(path: Path, **settings: Any) -> BagConfig:
    return BagConfig(path / "bag", required_free_mib=0, **settings)


def write_some(writer: BagWriter, count: int = 100) -> list[tuple[str, int, bytes]]:
    written = []
    for topic in (BOOL, INT):
        writer.add_topic(topic)
    for i in range(count):
        topic, data = (BOOL, bool_message(i % 4 == 0)) if i % 2 else (INT, int_message(i))
        writer.write(topic.name, 1_000_000 + i, data)
        written.append((topic.name, 1_000_000 + i, data))
    return written


def read_all(directory: Path) -> list[tuple[str, int, bytes]]:
    with AnyReader([directory]) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_rosbags_reads_back_what_was_written(tmp_path: Path, compression: str) -> None:
    writer = BagWriter(config(tmp_path, compression=compression, chunk_kib=1))
    written = write_some(writer)
    writer.close()
    assert read_all(tmp_path / "bag") == written


def test_messages_deserialise_with_the_definitions_in_the_bag(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer, 4)
    writer.close()
    with AnyReader([tmp_path / "bag"]) as reader:
        values: list[Any] = [
            reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()
        ]
    assert [v.data for v in values] == [0, False, 2, False]


def test_metadata_is_that_of_rosbag2(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer, 100)
    writer.close()
    metadata = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())
    info = metadata["rosbag2_bagfile_information"]
    assert info["version"] == 9 and info["storage_identifier"] == "mcap"
    assert info["message_count"] == 100
    assert info["starting_time"] == {"nanoseconds_since_epoch": 1_000_000}
    assert info["duration"] == {"nanoseconds": 99}
    assert info["relative_file_paths"] == ["bag_0.mcap"]
    flag = info["topics_with_message_count"][0]
    assert flag["message_count"] == 50
    assert flag["topic_metadata"]["type_description_hash"] == BOOL.hash
    assert flag["topic_metadata"]["offered_qos_profiles"][0]["reliability"] == "reliable"


def test_the_file_is_what_rosbag2_expects_of_mcap(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path))
    write_some(writer)
    writer.close()
    with (tmp_path / "bag/bag_0.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2" and summary is not None
        assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}
        channel = summary.channels[1]
        assert channel.message_encoding == "cdr" and channel.metadata["topic_type_hash"]
        assert yaml.safe_load(channel.metadata["offered_qos_profiles"])[0]["depth"] == 3
        assert [m.name for m in reader.iter_metadata()] == ["rosbag2"]


def test_a_split_bag_reads_as_one(tmp_path: Path) -> None:
    now = [0.0]
    writer = BagWriter(config(tmp_path, split_seconds=10.0), clock=lambda: now[0])
    written = []
    for part in range(3):
        written += write_some(writer, 10) if part == 0 else []
        if part:
            writer.write("/count", 2_000_000 * part, int_message(part))
            written.append(("/count", 2_000_000 * part, int_message(part)))
        now[0] += 11.0
        writer.flush_if_due()
    writer.close()
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())
    files = info["rosbag2_bagfile_information"]["files"]
    assert [f["message_count"] for f in files] == [10, 1, 1, 0]
    assert read_all(tmp_path / "bag") == written


def test_metadata_is_there_while_recording(tmp_path: Path) -> None:
    now = [0.0]
    writer = BagWriter(config(tmp_path), clock=lambda: now[0])
    write_some(writer, 10)
    now[0] = 1.0
    writer.flush_if_due()
    text = (tmp_path / "bag/metadata.yaml").read_text()
    assert yaml.safe_load(text)["rosbag2_bagfile_information"]["message_count"] == 10
    writer.close()


def test_bags_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        config(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("compression", "zip"), ("split_mib", -1), ("flush_period", 0.0), ("chunk_kib", 0)],
)
def test_bad_settings_are_named(tmp_path: Path, setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        config(tmp_path, **{setting: value})


def messages_of_unfinished(path: Path) -> list[bytes]:
    """What a reader gets out of a file without an end."""
    found = []
    with path.open("rb") as stream:
        try:
            for record in StreamReader(stream).records:
                if isinstance(record, Message):
                    found.append(record.data)
        except Exception as error:  # noqa: BLE001  whatever a cut file makes the library raise
            assert not isinstance(error, AssertionError)
    return found


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
@pytest.mark.parametrize("moment", [1.3, 1.77, 2.4])
def test_sigkill_costs_at_most_a_second(tmp_path: Path, moment: float) -> None:
    """ROS.md's pitfall: a killed process must still leave a readable bag."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path / "bag")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    times = []
    for line in process.stdout:
        times.append(float(line))
        if times[-1] - times[0] >= moment:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.wait(10)
    found = messages_of_unfinished(tmp_path / "bag/bag_0.mcap")
    assert found == [int_message(i) for i in range(len(found))]
    assert len(found) < len(times)
    assert times[-1] - times[len(found)] < 1.3, "a second, the writer's turn, and a busy machine"


class FullDisk(io.BytesIO):
    """Takes `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_stops_the_recording_and_says_so(tmp_path: Path) -> None:
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
def test_any_error_in_the_thread_is_said_and_the_file_closed(tmp_path: Path, where: str) -> None:
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
    deadline = time.monotonic() + 20.0
    while where != "close" and not recorder.status().error:
        assert time.monotonic() < deadline, "the error was never shown"
    status = recorder.close()
    assert status.error == "recording stopped: KeyError: 'unforeseen'"
    assert status.lost == (where == "write") and files[0].closed
    assert read_all(tmp_path / "bag") is not None, "the bag is finished as far as it goes"


def test_too_little_room_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    now = [0.0]
    settings = BagConfig(tmp_path / "bag", required_free_mib=10**9)
    writer = BagWriter(settings, clock=lambda: now[0])
    written = write_some(writer)
    now[0] = 2.0
    with pytest.raises(BagError, match="required_free_mib"):
        writer.flush_if_due()
    writer.close()
    assert read_all(tmp_path / "bag") == written, "there was room to finish the bag"


def test_what_the_disk_is_too_slow_for_is_counted(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(BagWriter):
        def write(self, *args: Any, **more: Any) -> None:
            assert gate.wait(20.0)
            super().write(*args, **more)

    recorder = BagRecorder(lambda: Slow(config(tmp_path)), queue_mib=1)
    big = b"\x00\x01\x00\x00" + bytes(400_000)
    topic = Topic("/big", "std_msgs/msg/String", "string data\n")
    taken = [recorder.record(topic, i, big) for i in range(10)]
    gate.set()
    status = recorder.close()
    assert 0 < status.lost == taken.count(False)
    assert status.written == taken.count(True) and not status.error


def test_closing_writes_all_that_waits(tmp_path: Path) -> None:
    recorder = BagRecorder(lambda: BagWriter(config(tmp_path)))
    for i in range(5000):
        assert recorder.record(INT, i, int_message(i))
    status = recorder.close()
    assert (status.written, status.lost, status.error) == (5000, 0, "")
    assert [d for _, _, d in read_all(tmp_path / "bag")] == [int_message(i) for i in range(5000)]


def test_the_log_time_does_not_follow_a_clock_that_is_set_back() -> None:
    wall, steady = [1_000], [50]
    clock = LogClock(lambda: wall[0], lambda: steady[0])
    assert clock() == 1_000
    wall[0], steady[0] = 10, 60
    assert clock() == 1_010


def test_chunks_are_small(tmp_path: Path) -> None:
    writer = BagWriter(config(tmp_path, chunk_kib=64))
    writer.add_topic(INT)
    for i in range(200):
        writer.write("/count", i, b"\x00\x01\x00\x00" + bytes(10_000))
    writer.close()
    with (tmp_path / "bag/bag_0.mcap").open("rb") as stream:
        records = StreamReader(stream, emit_chunks=True).records
        sizes = [r.uncompressed_size for r in records if isinstance(r, Chunk)]
    assert len(sizes) > 20 and max(sizes) < 80_000
