"""Many bags: wherever they are relabelled, with the same files and the same report."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bag_episodes as own
import bag_sessions as foreign
import numpy as np
import pytest
import yaml
from PIL import Image

from rlif_bags.commands import relabel as relabel_command
from rlif_bags.reading.files import BagError, DirectoryLock, remove_abandoned
from rlif_bags.reading.step_reader import read_steps
from rlif_bags.relabelling.jobs import Job, run_job
from rlif_bags.relabelling.relabel import Relabelling, read_labels
from rlif_bags.step_writer import StepWriter

run = partial(own.run, relabel_command)


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(foreign.MAPPING))
    return path


def sessions(tmp_path: Path, count: int = 3) -> list[Path]:
    return [foreign.write(tmp_path / f"s{n}", foreign.session(5 + n)) for n in range(count)]


def outcome(output: Path) -> tuple[dict[str, Any], list[Any]]:
    """All labels by name, and the report without the name of the output."""
    labels = {f.name: read_labels(f).columns for f in sorted(output.glob("*.labels.npz"))}
    text = (output / "report.json").read_text().replace(str(output), "OUT")
    return labels, json.loads(text)


def assert_same(one: Path, two: Path) -> None:
    labels, report = outcome(one)
    others, other_report = outcome(two)
    assert list(labels) == list(others) and report == other_report
    for name, columns in labels.items():
        assert all(np.array_equal(columns[k], others[name][k]) for k in columns), name


def test_foreign_bags_side_by_side_give_the_same_files_and_report(
    tmp_path: Path, mapping_file: Path
) -> None:
    bags = sessions(tmp_path)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    words = [*bags, tmp_path / "bad.mcap", "--mapping", mapping_file]
    assert run(*words, "-o", tmp_path / "one") == 1
    assert run(*words, "-o", tmp_path / "two", "--jobs", 2) == 1
    assert_same(tmp_path / "one", tmp_path / "two")
    report = outcome(tmp_path / "one")[1]
    assert [r["conversion"]["steps"] for r in report[:3]] == [6, 7, 8]
    assert "bad.mcap" in report[3]["error"], "what was refused is in the report"


def test_a_conversion_resumes_after_a_kill(tmp_path: Path, mapping_file: Path) -> None:
    (bag,) = sessions(tmp_path, 1)
    left = tmp_path / "out/.partial-s0"
    left.mkdir(parents=True)
    (left / ".partial-s0.mcap").write_bytes(b"half")
    (tmp_path / "out/s0.conversion.json").write_text("{}")
    assert run(bag, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
    assert not left.exists() and len(list(read_steps(tmp_path / "out/s0"))) == 6


def test_steps_of_another_mapping_are_not_taken_for_those_of_this_one(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bag,) = sessions(tmp_path, 1)
    words = (bag, "-o", tmp_path / "out", "--mapping", mapping_file)
    assert run(*words) == 0 and run(*words) == 0
    assert "converted before" in capsys.readouterr().out
    mapping_file.write_text(yaml.safe_dump({**foreign.MAPPING, "linear_scale": 0.2}))
    assert run(*words) == 1
    assert "another mapping" in capsys.readouterr().err


def test_a_bag_that_somebody_writes_is_left_alone(tmp_path: Path) -> None:
    steps = own.make_episodes(1)
    with StepWriter(tmp_path / "bag") as writer:
        writer.write(steps[0], 0)
        with pytest.raises(BagError, match="being written"):
            StepWriter(tmp_path / "bag")
    assert len(list(read_steps(tmp_path / "bag"))) == 1
    (tmp_path / "left").mkdir()
    remove_abandoned(tmp_path / "left")
    assert not (tmp_path / "left").exists()
    with DirectoryLock(tmp_path), pytest.raises(BlockingIOError):
        DirectoryLock(tmp_path)


@pytest.mark.parametrize(
    ("body", "words", "message"),
    [
        ("raise KeyError('oh')", [], r"episode 1: KeyError: 'oh' (scheme_of_test.py, line 2)"),
        ("return 1, 2", [], "returned shapes () and () for 6 steps"),
        ("return steps", ["--set", "blame=3"], "do not fit"),
        ("return None", [], "returned None, expected rewards and terminals"),
        ("return [float('nan')] * len(steps), [0] * len(steps)", [], "not finite"),
    ],
)
def test_a_function_of_the_user_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    body: str, words: list[str], message: str,
) -> None:  # fmt: skip
    (tmp_path / "scheme_of_test.py").write_text(f"def f(steps):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scheme_of_test", raising=False)
    bag = own.write_bag(tmp_path / "bag", own.make_episodes(1))
    assert run(bag, "-o", tmp_path / "out", "--scheme", "scheme_of_test:f", *words) == 1
    assert message in capsys.readouterr().err
    sys.modules.pop("scheme_of_test", None)


_DIES = "import os\ndef f(steps):\n    os.kill(os.getpid(), 9)\n"


def test_a_worker_that_dies_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dies_in_test.py").write_text(_DIES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    bags = [own.write_bag(tmp_path / f"b{n}", own.make_episodes(1)) for n in range(2)]
    words = ("-o", tmp_path / "out", "--scheme", "dies_in_test:f", "--jobs", 2)
    assert run(*bags, *words) == 1
    assert "a worker process died" in capsys.readouterr().err
    sys.modules.pop("dies_in_test", None)


def test_a_picture_for_each_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = own.write_bag(tmp_path / "peg", own.make_episodes(3))
    assert run(bag, "-o", tmp_path / "out", "--scheme", "every_step", "--plots") == 0
    assert "plots:" in capsys.readouterr().out
    pictures = sorted((tmp_path / "out/peg.plots").iterdir())
    assert [p.name for p in pictures] == [f"episode_{n:06d}.png" for n in (1, 2, 3)]
    pixels = np.asarray(Image.open(pictures[0]).convert("RGB")).reshape(-1, 3)
    assert ((pixels == (0xC0, 0x18, 0x2B)).all(axis=1)).sum() > 100, "the new labels"


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
def test_relabelling_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    bags = [own.write_bag(tmp_path / f"b{n}", own.make_episodes(40)) for n in range(6)]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(output), *map(str, bags)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait(10)
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


_PEAK = """
import resource, sys
from pathlib import Path
from rlif_bags.relabelling.relabel import Relabelling, relabel_bag
relabel_bag(Path(sys.argv[1]), Path(sys.argv[2]), Relabelling())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    peaks = []
    for episodes in (20, 500):  # 3 and 70 MiB
        with StepWriter(tmp_path / f"bag{episodes}") as writer:
            for step in own.make_episodes(episodes):
                writer.write(replace(step, images=(image, image)), step.sequence * own.PERIOD)
        words = [sys.executable, "-c", _PEAK, str(tmp_path / f"bag{episodes}"), str(tmp_path)]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 25_000, f"KiB: {peaks}"


def test_without_ray_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    bag = own.write_bag(tmp_path / "bag", own.make_episodes(1))
    assert run(bag, "-o", tmp_path / "out", "--ray", "local") == 1
    assert "pip install 'ray" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"
)
def test_on_ray_the_files_and_the_report_are_the_same(
    tmp_path: Path, mapping_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = sessions(tmp_path)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    words = [*bags, tmp_path / "bad.mcap", "--mapping", mapping_file, "--dwell", 1]
    words += ["--scheme", "rlif_bags.relabelling.relabel:shared_blame", "--set", "blame_steps=2"]
    assert run(*words, "-o", tmp_path / "one") == 1
    first = capsys.readouterr().out.replace("/one", "/OUT")
    assert run(*words, "-o", tmp_path / "two", "--ray", "local") == 1
    assert capsys.readouterr().out.replace("/two", "/OUT") == first
    assert_same(tmp_path / "one", tmp_path / "two")
    assert run(*bags, "-o", tmp_path / "no", "--ray", "127.0.0.1:1") == 1
    assert "--ray 127.0.0.1:1" in capsys.readouterr().err


_SLOW = """
import time
def f(steps):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_ctrl_c_ends_all_workers_in_a_line(tmp_path: Path) -> None:
    """Each worker said its own traceback: Ctrl-C reaches all processes of a terminal."""
    (tmp_path / "slow_scheme.py").write_text(_SLOW)
    bags = [own.write_bag(tmp_path / f"b{n}", own.make_episodes(1)) for n in range(3)]
    words = ["relabel", *map(str, bags), "-o", "out", "--jobs", "2", "--scheme", "slow_scheme:f"]
    command = [sys.executable, "-c", "from rlif_bringup.cli import main; exit(main())", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "rlif relabel: interrupted\n")


def test_nothing_is_written_into_a_bag_nor_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: labels in the bag changed it, and the next relabelling found another source."""
    bag = own.write_bag(tmp_path / "one", own.make_episodes(1))
    for output in (bag, bag / "labels"):
        assert run(bag, "-o", output) == 1
        assert "nothing is written into" in capsys.readouterr().err
    assert sorted(f.suffix for f in bag.iterdir()) == [".mcap", ".yaml"]
    (tmp_path / "file").write_text("")
    assert run(bag, "-o", tmp_path / "file") == 1
    assert "expected a directory" in capsys.readouterr().err
    assert run(bag, "-o", tmp_path / "out") == 0
    (bag / "notes.txt").write_text("what I saw")
    assert run(bag, "-o", tmp_path / "out") == 0, "a file of the user's is no other source"
    assert "(done before)" in capsys.readouterr().out


def test_what_nobody_thought_of_ends_one_bag_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("rlif_bags.relabelling.jobs.relabel_bag", broken)
    result = run_job(Job(tmp_path / "bag", tmp_path / "out", Relabelling()))
    assert "unexpected KeyError: 'surprise' (test_bags_jobs.py, line " in result.error


def test_a_file_that_is_called_bag_goes_by_the_name_of_its_directory(
    tmp_path: Path, mapping_file: Path
) -> None:
    """Regression: its labels were called after the output."""
    made = foreign.write(tmp_path / "made", foreign.session(5))
    (tmp_path / "monday").mkdir()
    file = next(made.glob("*.mcap")).rename(tmp_path / "monday/bag.mcap")
    assert run(file, "-o", tmp_path / "out", "--mapping", mapping_file) == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"monday", "monday.conversion.json", "monday.labels.npz", "report.json"}


def test_pictures_are_of_the_labels_that_are_there(tmp_path: Path) -> None:
    """Regression: after the labels were deleted and made anew, the old pictures stayed."""
    bag = own.write_bag(tmp_path / "peg", own.make_episodes(1))
    words = (bag, "-o", tmp_path / "out", "--plots")
    assert run(*words) == 0
    (picture,) = (tmp_path / "out/peg.plots").iterdir()
    before = picture.read_bytes()
    assert run(*words) == 0 and picture.read_bytes() == before
    (tmp_path / "out/peg.labels.npz").unlink()
    assert run(*words, "--scheme", "every_step") == 0 and picture.read_bytes() != before


def test_a_report_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = own.write_bag(tmp_path / "peg", own.make_episodes(1))
    (tmp_path / "out/report.json").mkdir(parents=True)
    assert run(bag, "-o", tmp_path / "out") == 1
    assert "report.json" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(bag, "-o", tmp_path / "file/labels") == 1
    assert "rlif relabel: " in capsys.readouterr().err


def test_one_bag_that_cannot_be_described_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bag,) = sessions(tmp_path / "good", 1)
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    assert run("--describe", tmp_path / "bad.mcap", bag) == 1
    said = capsys.readouterr()
    assert "control_rate" in said.out and "bad.mcap" in said.err


@pytest.mark.slow
def test_the_command_of_the_shell_does_bags_side_by_side(tmp_path: Path) -> None:
    """Regression: its workers imported the script, which began anew in each of them."""
    bags = [own.write_bag(tmp_path / name, own.make_episodes(1)) for name in ("one", "two")]
    words = ["rlif", "relabel", *map(str, bags), "-o", str(tmp_path / "out"), "--jobs", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "2 of 2 bags labelled" in done.stdout
