# SPDX-License-Identifier: Apache-2.0
"""Write new labels for bags, derived from what was recorded. The bags stay as they are.

  rlif relabel BAG... -o OUT [--scheme onset|every_step|module:function] [--set name=value]
  rlif relabel BAG... -o OUT --mapping FILE   bags that this suite did not record: first their
                                              Steps, as bags in OUT, then the labels of these
  rlif relabel --describe BAG...              what is in the bags, and a mapping to start from

--jobs N does N bags at a time, --ray ADDRESS does them on a cluster; --plots draws each episode.
`rlif train BAG... --labels OUT` learns from them. A second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rlif_bags.commands.options import (
    add_bags,
    add_scheme,
    parse_parameters,
    print_errors,
    reports_errors,
)
from rlif_bags.external.guess import starter_lines
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.reading.files import (
    BagError,
    directory_lock,
    find_bags,
    new_file,
    refuse_equal_names,
    refuse_inside,
)
from rlif_bags.reading.info import describe_bag
from rlif_bags.relabelling.jobs import Job, JobResult, run_jobs
from rlif_bags.relabelling.relabel import Relabelling, labels_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bags(parser)
    add_scheme(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, help="directory of the labels")
    add(
        "--dwell", type=int, default=0, metavar="STEPS",
        help="the operator's return within so many steps is no new intervention",
    )  # fmt: skip
    add("--jobs", type=int, default=1, help="bags at the same time")
    add(
        "--ray", metavar="ADDRESS",
        help="do the bags on this Ray cluster; local: on one of this machine alone",
    )  # fmt: skip
    add("--plots", action="store_true", help="a picture for each episode, too")
    add("--mapping", type=Path, help="what the topics of external recordings mean")
    add(
        "--describe", action="store_true",
        help="only print what is in the bags, and a mapping to start from, as YAML",
    )  # fmt: skip


@reports_errors("relabel")
def run(arguments: argparse.Namespace) -> int:
    bags, problems = find_bags(arguments.bags)
    failed = print_errors("relabel", *problems)
    if not bags:
        return 1
    if arguments.describe:
        return _describe(bags) or failed
    results = []
    for result in run_jobs(_jobs(bags, arguments), arguments.jobs, arguments.ray):
        results.append(result)
        _print(result)
    return _write_report(results, arguments.output) or failed


def _describe(bags: list[Path]) -> int:
    """A mapping for each bag on stdout; all else there is a comment in it."""
    failed = 0
    for bag in bags:
        try:
            lines = [f"# {line}" for line in describe_bag(bag)] + starter_lines(bag)
            print("---\n" * (len(bags) > 1) + "\n".join(lines))
        except BagError as error:
            failed = print_errors("relabel", error)
    return failed


def _jobs(bags: list[Path], arguments: argparse.Namespace) -> list[Job]:
    """One for each bag. What is asked wrongly is refused here, before anything is read."""
    if arguments.output is None:
        raise ValueError("found no -o OUT, expected the directory of the labels")
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: found {arguments.jobs}, expected at least 1")
    parameters = parse_parameters(arguments.parameters)
    work = Relabelling(arguments.scheme, parameters, arguments.dwell, arguments.topic)
    work.function()
    output = arguments.output.absolute()  # a job may run in another directory
    if output.exists() and not output.is_dir():
        raise ValueError(f"-o: found the file {arguments.output}, expected a directory")
    refuse_inside(bags, output)
    refuse_equal_names(bags, lambda bag: labels_path(bag, output).name)
    mapping = None if arguments.mapping is None else TopicMapping.read(arguments.mapping)
    return [Job(bag.absolute(), output, work, mapping, arguments.plots) for bag in bags]


def _print(result: JobResult) -> None:
    if result.conversion is not None:
        print("\n".join(result.conversion.lines()))
    if result.report is not None:
        print("\n".join(result.report.lines()))
    if result.plots:
        print(f"  plots: {result.plots}")
    if result.error:
        print_errors("relabel", result.error)


def _write_report(results: list[JobResult], output: Path) -> int:
    failed = sum(bool(r.error) for r in results)
    done, count = len(results) - failed, len(results)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "report.json"
    with directory_lock(output, wait=True):  # another call may be at work on other bags
        entries = _entries_before(path)
        for result in results:
            old = entries.get(result.bag, {})
            if result.error and "error" not in old and "output" in old:
                # Labels of an earlier call stay there, and so do their numbers.
                entries[result.bag] = {**old, "last_call_refused": result.error}
            else:
                entries[result.bag] = result.entry()
        with new_file(path) as unfinished:
            unfinished.write_text(json.dumps([*entries.values()], indent=1), encoding="utf-8")
    print(f"{done} of {count} bags labelled, {failed} refused: {path}")
    return 1 if failed else 0


def _entries_before(path: Path) -> dict[str, dict[str, Any]]:
    """Of earlier calls with the same output, by bag; none where it is no report."""
    try:
        return {entry["bag"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
