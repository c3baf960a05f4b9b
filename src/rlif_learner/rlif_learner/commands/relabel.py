"""Write new labels for bags, derived from what was recorded. The bags stay as they are.

  rlif relabel BAG... -o OUT [--scheme onset|every_step|module:function] [--set name=value]
  rlif relabel BAG... -o OUT --mapping FILE   bags that this suite did not record: first their
                                              Steps, as bags in OUT, then the labels of these
  rlif relabel --describe BAG...              what is in the bags, and a mapping to start from

`rlif train BAG... --labels OUT` learns from them. A second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rlif_learner.bags import STEP_TYPE, BagError, bag_paths, open_bag
from rlif_learner.bags_foreign import ForeignReport, foreign_steps
from rlif_learner.bags_info import describe_bag
from rlif_learner.bags_mapping import TopicMapping, starter
from rlif_learner.bags_relabel import Relabelling, RelabelReport, labels_path, relabel_bag
from rlif_learner.bags_write import StepWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG")
    parser.add_argument("-o", "--output", type=Path, help="directory of the labels")
    parser.add_argument("--scheme", default="onset", help="onset, every_step or module:function")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="parameter of the function; the value is JSON",
    )  # fmt: skip
    parser.add_argument(
        "--dwell", type=int, default=0, metavar="STEPS",
        help="the operator's return within so many steps is no new intervention",
    )  # fmt: skip
    parser.add_argument("--topic", default="", help="of the Steps, where there are several")
    parser.add_argument("--jobs", type=int, default=1, help="bags at the same time")
    parser.add_argument("--mapping", type=Path, help="what the topics of foreign bags mean")
    parser.add_argument("--describe", action="store_true", help="say what is in the bags, only")


def parse_parameters(given: list[str]) -> dict[str, Any]:
    """name=value pairs; what is no JSON is taken as text."""
    parameters: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set: found {pair!r}, expected NAME=VALUE")
        try:
            parameters[name] = json.loads(text)
        except json.JSONDecodeError:
            parameters[name] = text
    return parameters


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 with one line on stderr per bag that could not be done."""
    try:
        bags = bag_paths(arguments.bags)
        if arguments.describe:
            for bag in bags:
                print("\n".join([*describe_bag(bag), *_starter_lines(bag)]))
            return 0
        if arguments.output is None:
            raise ValueError("found no -o OUT, expected the directory of the labels")
        work = Relabelling(
            arguments.scheme,
            parse_parameters(arguments.parameters),
            arguments.dwell,
            arguments.topic,
        )
        work.function()  # one that does not exist is refused before anything is read
        _refuse_equal_names(bags, arguments.output)
        if arguments.mapping is not None:
            bags = _convert_all(bags, arguments.output, TopicMapping.read(arguments.mapping))
    except (BagError, ValueError) as error:
        print(f"rlif relabel: {error}", file=sys.stderr)
        return 1
    return _relabel_all(bags, arguments.output, work, max(1, arguments.jobs))


def _starter_lines(bag: Path) -> list[str]:
    """A mapping for a bag without Steps."""
    with open_bag(bag) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
    if STEP_TYPE in types.values():
        return []
    return ["a mapping to start from, for --mapping:", "", starter(types)]


def _convert_all(bags: list[Path], output: Path, mapping: TopicMapping) -> list[Path]:
    """Bags of Steps in `output`, of those that can be converted; the others are named."""
    output.mkdir(parents=True, exist_ok=True)
    converted = []
    for bag in bags:
        target = output / (bag.stem if bag.is_file() else bag.name)
        if target.exists():
            print(f"{target}: converted before")
            converted.append(target)
            continue
        report = ForeignReport()
        try:
            with StepWriter(target) as writer:
                for stamp, step in foreign_steps(bag, mapping, report):
                    writer.write(step, stamp)
                if not writer.count:
                    raise BagError(f"{bag}: gave no Step; " + "; ".join(report.lines()))
        except BagError as error:
            print(f"rlif relabel: {error}", file=sys.stderr)
            continue
        print("\n".join([f"{bag} -> {target}", *report.lines()]))
        converted.append(target)
    if len(converted) < len(bags):
        raise BagError(f"{len(bags) - len(converted)} of {len(bags)} bags cannot be converted")
    return converted


def _refuse_equal_names(bags: list[Path], output: Path) -> None:
    seen: dict[Path, Path] = {}
    for bag in bags:
        target = labels_path(bag, output)
        if target in seen:
            raise BagError(f"{bag} and {seen[target]} have the same name; relabel them apart")
        seen[target] = bag


def _try(bag: Path, output: Path, work: Relabelling) -> RelabelReport | str:
    try:
        return relabel_bag(bag, output, work)
    except (BagError, ValueError, TypeError) as error:
        return f"{bag}: {error}"


def _relabel_all(bags: list[Path], output: Path, work: Relabelling, jobs: int) -> int:
    count = len(bags)
    if jobs == 1 or count == 1:
        results = [_try(bag, output, work) for bag in bags]
    else:
        with ProcessPoolExecutor(min(jobs, count)) as pool:
            results = list(pool.map(_try, bags, [output] * count, [work] * count))
    failed = [r for r in results if isinstance(r, str)]
    done = [r for r in results if isinstance(r, RelabelReport)]
    for report in done:
        print("\n".join(report_lines(report)))
    for line in failed:
        print(f"rlif relabel: {line}", file=sys.stderr)
    if done:
        text = json.dumps([vars(r) for r in done], indent=1)
        (output / "report.json").write_text(text, encoding="utf-8")
        print(f"{len(done)} of {count} bags labelled, {len(failed)} refused: {output}/report.json")
    return 1 if failed else 0


def report_lines(report: RelabelReport) -> list[str]:
    """Before and after, for a person."""
    return [
        f"{report.bag}{' (done before)' if report.resumed else ''}",
        f"  {report.episodes} episodes, {report.steps} steps, {report.transitions} transitions",
        f"  interventions {report.interventions_before} -> {report.interventions}, negative labels "
        f"{report.negative_before} -> {report.negative}, {report.changed} labels changed",
        *(f"  left out, {why}: {count}" for why, count in report.skipped.items()),
        *(f"  note: {note}" for note in report.notes),
    ]
