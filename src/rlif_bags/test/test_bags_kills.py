"""A recorder that is killed at any moment leaves a bag that is read, and can be made whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rosbags.highlevel import AnyReader

from rlif_bags.reading.files import BagError
from rlif_bags.reading.open import open_bag
from rlif_bags.reading.repair import repair_bag
from rlif_intervention.bag_writer import BagConfig, BagWriter, Topic

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
SEED = random.randrange(10**6)


def values(reader: AnyReader) -> list[int]:
    """Of the messages of both topics, in order."""
    found: list[Any] = [reader.deserialize(d, c.msgtype) for c, _, d in reader.messages()]
    return [m.data for m in found]


@pytest.mark.slow
@pytest.mark.parametrize("run", range(6))
def test_sigkill_at_a_random_moment(tmp_path: Path, run: int) -> None:
    """All but the last flush period is there, in one piece, with and without `rlif bag repair`."""
    chance = random.Random(f"{SEED}-{run}")
    moment = chance.uniform(0.05, 2.0)
    compression, split = chance.choice(["none", "zstd", "lz4"]), chance.choice([0.0, 0.5])
    about = f"seed {SEED}-{run}: {moment:.3f} s, {compression}, split {split}"
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
    process.wait(10)
    notes: list[str] = []
    try:
        with open_bag(bag, notes) as reader:
            found = values(reader)
    except BagError as error:
        assert "no whole message" in str(error) and moment < 0.6, about
        return
    assert found == list(range(len(found))), about
    # The flush period, and the turns of a writer on a busy machine.
    assert len(found) == len(times) or times[-1] - times[len(found)] < 0.7, about
    assert notes, about
    repair_bag(bag, tmp_path / "whole")
    with AnyReader([tmp_path / "whole"]) as reader:
        assert values(reader) == found, about


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_a_repaired_bag_is_compressed_as_it_was(tmp_path: Path, compression: str) -> None:
    """A copy that was ten times as large as its bag did not fit where that one had."""
    writer = BagWriter(BagConfig(tmp_path / "bag", compression=compression))
    writer.add_topic(Topic("/t", "std_msgs/msg/String", "string data"))
    for number in range(3000):
        writer.write("/t", number, b"\x00\x01\x00\x00\x04\x00\x00\x00abc\x00" * 50)
    writer.flush()
    file = tmp_path / "bag/bag_0.mcap"
    size = file.stat().st_size
    repair_bag(tmp_path / "bag", tmp_path / "new")
    writer.close()
    copy = (tmp_path / "new/new_0.mcap").stat().st_size
    assert copy > 3000 * 600 if compression == "none" else copy < 2 * size < 3000 * 300
