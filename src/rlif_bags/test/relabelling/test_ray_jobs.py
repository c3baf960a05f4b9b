# SPDX-License-Identifier: Apache-2.0
"""Many bags on a Ray cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from external_sessions import assert_same_labels, write_sessions
from step_bags import Cli, rlif


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"
)
def test_run_on_ray_gives_the_same_files_and_report(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    bags = write_sessions(tmp_path)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    words = [*bags, tmp_path / "bad.mcap", "--mapping", mapping_file, "--dwell", 1]
    words += ["--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2"]
    assert rlif("relabel", *words, "-o", tmp_path / "one") == 1
    first = capsys.readouterr().out.replace("/one", "/OUT")
    assert rlif("relabel", *words, "-o", tmp_path / "two", "--ray", "local") == 1
    assert capsys.readouterr().out.replace("/two", "/OUT") == first
    assert_same_labels(tmp_path / "one", tmp_path / "two")
    assert "--ray 127.0.0.1:1" in cli.fails(
        "relabel", *bags, "-o", tmp_path / "no", "--ray", "127.0.0.1:1"
    )
