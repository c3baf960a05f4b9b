# SPDX-License-Identifier: Apache-2.0
"""External recordings converted to bags of Steps, once."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from external_sessions import (
    MAPPING,
    SECOND,
    SOURCES,
    pose,
    session,
    sources_of,
    write_session,
    write_sessions,
)
from step_bags import Cli, make_episodes, rlif

from rlif_bags.reading.step_reader import StepReader
from rlif_bags.step_writer import StepWriter


def test_convert_bag_through_the_command_makes_steps_and_labels(
    tmp_path: Path, mapping_file: Path, cli: Cli
) -> None:
    bag = write_session(tmp_path / "teleop", session())
    output = cli.succeeds("relabel", bag, "-o", tmp_path / "out", "--mapping", mapping_file)
    assert "11 steps of 1 episodes" in output and "1 of 1 bags labelled" in output
    assert sources_of(list(StepReader(tmp_path / "out/teleop"))) == SOURCES


def test_convert_bag_with_gaps_and_refusals_is_written_and_resumed(
    tmp_path: Path, mapping_file: Path, cli: Cli
) -> None:
    """Regression: the counts could not be written, and so no bag with a single gap was converted."""
    silent = (SECOND + 3 * SECOND // 10, SECOND + 7 * SECOND // 10)
    messages = [m for m in session() if m[0] != "/arm/pose" or not silent[0] < m[1] < silent[1]]
    messages.append(pose(SECOND + 85 * SECOND // 100, 0.0, frame="tool"))
    bag = write_session(tmp_path / "teleop", messages)
    for _ in range(2):
        text = cli.succeeds("relabel", bag, "-o", tmp_path / "out", "--mapping", mapping_file)
        assert "ticks without a step: ee_pose missing" in text
        assert "1 messages of /arm/pose refused" in text
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report[0]["conversion"]["refused"] == {"/arm/pose": 1}
    assert list(report[0]["conversion"]["gaps"].values()) == [3]


def test_convert_bag_after_a_kill_is_made_again(tmp_path: Path, mapping_file: Path) -> None:
    (bag,) = write_sessions(tmp_path, 1)
    left = tmp_path / "out/.partial-s0"
    left.mkdir(parents=True)
    (left / ".partial-s0.mcap").write_bytes(b"half")
    (tmp_path / "out/s0.conversion.json").write_text("{}")
    assert rlif("relabel", bag, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
    assert not left.exists() and len(list(StepReader(tmp_path / "out/s0"))) == 6


def test_convert_bag_steps_of_another_mapping_are_refused(
    tmp_path: Path, mapping_file: Path, cli: Cli
) -> None:
    (bag,) = write_sessions(tmp_path, 1)
    args = (bag, "-o", tmp_path / "out", "--mapping", mapping_file)
    assert "converted before" not in cli.succeeds("relabel", *args)
    assert "converted before" in cli.succeeds("relabel", *args)
    mapping_file.write_text(yaml.safe_dump({**MAPPING, "linear_scale": 0.2}))
    assert "another mapping" in cli.fails("relabel", *args)


def test_convert_bag_that_another_call_converts_is_reported(
    tmp_path: Path, mapping_file: Path, cli: Cli
) -> None:
    """Regression: "unexpected WriterError", where the other had made its directory, not yet locked."""
    (bag,) = write_sessions(tmp_path, 1)
    args = (bag, "-o", tmp_path / "out", "--mapping", mapping_file)
    with StepWriter(tmp_path / "out/s0") as other:
        assert "is being written by another process" in cli.fails("relabel", *args)
        other.write(make_episodes(1)[0], 0)
