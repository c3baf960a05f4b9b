# SPDX-License-Identifier: Apache-2.0
"""Many bags, in one process or several: the same files and report."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from external_sessions import assert_same_labels, outcome, write_sessions
from step_bags import Cli, make_episodes, rlif, write_bag
from waiting import scaled

from rlif_bags.relabelling.jobs import Job, run_job
from rlif_bags.relabelling.relabel import Relabelling, read_labels


@pytest.mark.slow
def test_run_jobs_two_workers_give_the_same_files_and_report(
    tmp_path: Path, mapping_file: Path
) -> None:
    bags = write_sessions(tmp_path)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    args = [*bags, tmp_path / "bad.mcap", "--mapping", mapping_file]
    assert rlif("relabel", *args, "-o", tmp_path / "one") == 1
    assert rlif("relabel", *args, "-o", tmp_path / "two", "--jobs", 2) == 1
    assert_same_labels(tmp_path / "one", tmp_path / "two")
    report = outcome(tmp_path / "one")[1]
    assert [r["conversion"]["steps"] for r in report[:3]] == [6, 7, 8]
    assert "bad.mcap" in report[3]["error"], "what was refused is in the report"


_DIES = "import os\ndef f(steps):\n    os.kill(os.getpid(), 9)\n"


@pytest.mark.slow
def test_run_jobs_worker_that_dies_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    (tmp_path / "dies_in_test.py").write_text(_DIES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    bags = [write_bag(tmp_path / f"b{n}", make_episodes(1)) for n in range(2)]
    args = ("-o", tmp_path / "out", "--scheme", "dies_in_test:f", "--jobs", 2)
    assert "a worker process died" in cli.fails("relabel", *bags, *args)
    sys.modules.pop("dies_in_test", None)


_KILLED = """
import os, sys
from pathlib import Path
from rlif_bags.relabelling.jobs import Job, run_job
from rlif_bags.relabelling.relabel import Relabelling
work = Relabelling("rlif_bags.relabelling.relabel:shared_blame")
for bag in map(Path, sys.argv[2:]):
    run_job(Job(bag, Path(sys.argv[1]), work))
    print(bag, flush=True)
"""


@pytest.mark.slow
def test_run_job_after_a_kill_goes_on_where_it_was(tmp_path: Path) -> None:
    bags = [write_bag(tmp_path / f"b{n}", make_episodes(8)) for n in range(4)]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(output), *map(str, bags)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait(scaled(10))
    work = Relabelling("rlif_bags.relabelling.relabel:shared_blame")
    results = [run_job(Job(bag, output, work)) for bag in bags]
    assert not any(r.error for r in results)
    assert results[0].report is not None and results[0].report.resumed
    fresh = [run_job(Job(bag, tmp_path / "fresh", work)) for bag in bags]
    for one, two in zip(results, fresh, strict=True):
        assert one.report is not None and two.report is not None
        found = read_labels(Path(one.report.output)).columns
        expected = read_labels(Path(two.report.output)).columns
        assert all(np.array_equal(found[k], expected[k]) for k in expected)


_SLOW = """
import os, time
def f(steps):
    os.write(1, b"begun\\n")  # in one piece: two processes write
    time.sleep(60)
"""


@pytest.mark.slow
def test_run_jobs_ctrl_c_ends_all_workers_in_a_line(tmp_path: Path) -> None:
    """Each worker printed its own traceback: Ctrl-C reaches all processes of a terminal."""
    (tmp_path / "slow_scheme.py").write_text(_SLOW)
    bags = [write_bag(tmp_path / f"b{n}", make_episodes(1)) for n in range(3)]
    options = ["-o", "out", "--jobs", "2", "--scheme", "slow_scheme:f"]
    args = ["relabel", *map(str, bags), *options]
    command = [sys.executable, "-c", "from rlif_bringup.cli import main; exit(main())", *args]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=scaled(30))
    assert (process.returncode, errors) == (130, "rlif relabel: interrupted\n")


def test_run_job_unexpected_error_ends_one_bag_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("rlif_bags.relabelling.jobs.relabel_bag", broken)
    result = run_job(Job(tmp_path / "bag", tmp_path / "out", Relabelling()))
    assert "unexpected KeyError: 'surprise' (test_jobs.py, line " in result.error


@pytest.mark.slow
def test_run_jobs_from_a_shell_does_bags_side_by_side(tmp_path: Path) -> None:
    """Regression: its workers imported the script, which began again in each of them."""
    bags = [write_bag(tmp_path / name, make_episodes(1)) for name in ("one", "two")]
    args = ["rlif", "relabel", *map(str, bags), "-o", str(tmp_path / "out"), "--jobs", "2"]
    done = subprocess.run(args, capture_output=True, text=True, timeout=scaled(100))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "2 of 2 bags labelled" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"
)
def test_run_jobs_on_ray_gives_the_same_files_and_report(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    bags = write_sessions(tmp_path)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    args = [*bags, tmp_path / "bad.mcap", "--mapping", mapping_file, "--dwell", 1]
    args += ["--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2"]
    assert rlif("relabel", *args, "-o", tmp_path / "one") == 1
    first = capsys.readouterr().out.replace("/one", "/OUT")
    assert rlif("relabel", *args, "-o", tmp_path / "two", "--ray", "local") == 1
    assert capsys.readouterr().out.replace("/two", "/OUT") == first
    assert_same_labels(tmp_path / "one", tmp_path / "two")
    assert "--ray 127.0.0.1:1" in cli.fails(
        "relabel", *bags, "-o", tmp_path / "no", "--ray", "127.0.0.1:1"
    )
