# SPDX-License-Identifier: Apache-2.0
"""Unfinished bags copied into finished ones."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from external_sessions import convert, session, sources_of, write_session
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from step_bags import assert_equal_steps, make_episodes, write_unfinished_bag
from waiting import scaled

from rlif_bags.reading.files import BagError, is_finished
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.repair import repair_bag
from rlif_bags.reading.step_reader import StepReader
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic


def test_repair_bag_cut_anywhere_keeps_every_whole_chunk(tmp_path: Path) -> None:
    """Killed at any byte: what was flushed before is there."""
    steps = make_episodes(4)
    sizes = write_unfinished_bag(tmp_path / "whole", steps)
    file = tmp_path / "whole/whole_0.mcap"
    data = file.read_bytes()
    for number, cut in enumerate(range(sizes[0], sizes[-1], 211)):
        bag = tmp_path / f"cut{number}"
        bag.mkdir()
        (bag / "cut_0.mcap").write_bytes(data[:cut])
        expected = 4 * sum(size <= cut for size in sizes)
        report = repair_bag(bag, tmp_path / f"repaired{number}")
        # The chunk's index follows it: the chunk can be whole where the flush is not.
        assert expected <= report.kept["/replay"] <= expected + 4
        repaired = list(StepReader(tmp_path / f"repaired{number}"))
        assert_equal_steps(repaired, steps[: report.kept["/replay"]])
    assert file.read_bytes() == data, "the source is never modified"


def test_repair_bag_damaged_chunk_is_left_out(tmp_path: Path) -> None:
    sizes = write_unfinished_bag(tmp_path / "bag", make_episodes(4))
    file = tmp_path / "bag/bag_0.mcap"
    data = bytearray(file.read_bytes())
    data[sizes[1] + 200] ^= 0xFF
    file.write_bytes(bytes(data))
    report = repair_bag(tmp_path / "bag", tmp_path / "out")
    assert report.kept == {"/replay": 8} and "bag_0.mcap" in report.cut


def test_repair_bag_result_is_a_finished_bag(tmp_path: Path) -> None:
    write_unfinished_bag(tmp_path / "bag", make_episodes(2))
    assert not is_finished(tmp_path / "bag/bag_0.mcap")
    repair_bag(tmp_path / "bag", tmp_path / "out")
    assert all(is_finished(f) for f in (tmp_path / "out").glob("*.mcap"))
    with AnyReader([tmp_path / "out"]) as reader:
        assert reader.message_count == 12


def test_repair_bag_messages_compressed_one_by_one_are_unpacked(tmp_path: Path) -> None:
    bag = write_session(tmp_path / "bag", session(5), StoragePlugin.MCAP, CompressionMode.MESSAGE)
    expected, _ = convert(bag)
    repair_bag(bag, tmp_path / "whole")
    steps, report = convert(tmp_path / "whole")
    assert sources_of(steps) == sources_of(expected) and not report.refused


SEED = random.randrange(10**6)


# Two topics, of which the second begins late; flushed every 0.2 s, a new file every 0.5 s.
_RECORDS = """
import sys, time
from pathlib import Path
from rlif_intervention.bag_recorder import BagRecorder, LogClock
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic
topics = [Topic(name, "std_msgs/msg/Int64", "int64 data\\n") for name in ("/first", "/late")]
config = BagConfig(
    Path(sys.argv[1]), compression=sys.argv[2], required_free_mib=0, chunk_kib=8,
    split_seconds=float(sys.argv[3]), flush_period=0.2,
)
recorder, now, i = BagRecorder(lambda: BagWriter(config)), LogClock(), 0
while True:
    data = b"\\x00\\x01\\x00\\x00" + i.to_bytes(8, "little")
    recorder.record(topics[i % 2 if i > 200 else 0], now(), data)
    print(time.monotonic(), flush=True)
    i += 1
    time.sleep(0.001)
"""


def values(path: Path, notes: list[str] | None = None) -> list[int]:
    """Of the messages of both topics, in order."""
    with open_bag(path, notes) as bag:
        return [m.data for _, _, m in bag.decoded(bag.connections, pytest.fail)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compression", "split", "latest"), [("none", 0.5, 1.2), ("zstd", 0.0, 0.8), ("lz4", 0.5, 1.2)]
)
def test_repair_bag_of_a_recorder_killed_at_a_random_moment(
    tmp_path: Path, compression: str, split: float, latest: float
) -> None:
    """All but the last flush period is there, in one piece, with and without `rlif bag repair`."""
    moment = random.Random(f"{SEED}-{compression}").uniform(0.05, latest)
    about = f"seed {SEED}: {moment:.3f} s, {compression}, split {split}"
    bag = tmp_path / "bag"
    process = subprocess.Popen(
        [sys.executable, "-c", _RECORDS, str(bag), compression, str(split)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    times: list[float] = []
    for line in process.stdout:
        times.append(float(line))
        if times[-1] - times[0] >= moment:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.wait(scaled(10))
    notes: list[str] = []
    try:
        found = values(bag, notes)
    except BagError as error:
        assert "no whole message" in str(error) and moment < 0.6, about
        return
    assert found == list(range(len(found))), about
    # The flush period, and the turns of a writer on a busy machine.
    assert len(found) == len(times) or times[-1] - times[len(found)] < 0.7, about
    assert notes, about
    repair_bag(bag, tmp_path / "whole")
    assert values(tmp_path / "whole") == found, about


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_repair_bag_is_compressed_as_its_source(tmp_path: Path, compression: str) -> None:
    """A copy that was ten times as large as its bag did not fit where that one had."""
    writer = BagWriter(BagConfig(tmp_path / "bag", compression=compression))
    writer.add_topic(Topic("/t", "std_msgs/msg/String", "string data"))
    for number in range(1500):
        writer.write("/t", number, b"\x00\x01\x00\x00\x04\x00\x00\x00abc\x00" * 50)
    writer.flush()
    file = tmp_path / "bag/bag_0.mcap"
    size = file.stat().st_size
    repair_bag(tmp_path / "bag", tmp_path / "new")
    writer.close()
    copy = (tmp_path / "new/new_0.mcap").stat().st_size
    assert copy > 1500 * 600 if compression == "none" else copy < 2 * size < 1500 * 300
