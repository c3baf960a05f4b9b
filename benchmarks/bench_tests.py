# SPDX-License-Identifier: Apache-2.0
"""How long the tests take: all of them, and those of `make test-fast`.

make bench-tests      writes benchmarks/results/tests.json

ARGS="--levels avx2" runs all tests once more with the instructions of the processor lowered to that
level (RLIF_CPU_LEVEL), and writes these figures under its name; with --only-levels nothing else is run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "benchmarks" / "results" / "tests.json"
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|reruns?)\b")


def run(arguments: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Wall seconds and counts of a run of pytest; what it prints passes through."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if COUNTS.search(line) and " in " in line else last
    process.wait()
    seconds = time.monotonic() - begin
    found = {name.rstrip("s"): int(number) for number, name in COUNTS.findall(last)}
    if not found:
        raise SystemExit(f"found no closing line of pytest (exit code {process.returncode})")
    failed = found.get("failed", 0) + found.get("error", 0)
    return {
        "seconds": round(seconds, 1),
        "tests": found.get("passed", 0) + failed,
        "failed": failed,
        "skipped": found.get("skipped", 0),
        "reruns": found.get("rerun", 0),
    }


def processor() -> str:
    """The name of the processor and the number of cores."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return f"{found[1] if found else 'unknown'}, {len(os.sched_getaffinity(0))} cores"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="*", default=[], help="values of RLIF_CPU_LEVEL")
    parser.add_argument("--only-levels", action="store_true", help="the other figures stay")
    arguments = parser.parse_args()
    found = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    result = found if arguments.only_levels else measure()
    levels = {level: run([], {"RLIF_CPU_LEVEL": level}) for level in arguments.levels}
    result["levels"] = found.get("levels", {}) | levels
    TARGET.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return int(bool(result.get("failed")) or any(level["failed"] for level in levels.values()))


def measure() -> dict[str, Any]:
    """All tests, and the fast ones, with the instructions that the processor has."""
    fast = run(["-m", "not ros and not slow"], {})
    whole = run([], {})
    return {
        "seconds_all": whole["seconds"],
        "seconds_fast": fast["seconds"],
        "tests": whole["tests"],
        "tests_fast": fast["tests"],
        "failed": whole["failed"] + fast["failed"],
        "skipped": whole["skipped"],
        "reruns": whole["reruns"] + fast["reruns"],
        "cpu": processor(),
    }


if __name__ == "__main__":
    sys.exit(main())
