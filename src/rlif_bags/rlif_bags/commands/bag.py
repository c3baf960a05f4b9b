# SPDX-License-Identifier: Apache-2.0
"""Look into bags and make unfinished ones whole.

rlif bag info BAG...            topics, counts, rates, gaps; what is in the Steps
rlif bag repair BAG -o OUTPUT   all whole messages into a new bag; the source stays as it is
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlif_bags.commands.options import print_errors, reports_errors
from rlif_bags.reading.files import BagError, bag_errors, find_bags, one_bag
from rlif_bags.reading.info import describe_bag
from rlif_bags.reading.repair import repair_bag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True, metavar="{info,repair}")
    info = parts.add_parser("info", help="topics, counts, rates, gaps; what is in the Steps")
    info.add_argument("bags", nargs="+", type=Path, metavar="BAG")
    repair = parts.add_parser(
        "repair", help="copy one unfinished MCAP bag into a new, finished one"
    )
    repair.add_argument("bag", type=Path, metavar="BAG")
    repair.add_argument("-o", "--output", type=Path, required=True)
    repair.add_argument(
        "--compress",
        action="store_true",
        help="zstd chunks in the new bag, even if the old one has none",
    )


@reports_errors("bag")
def run(arguments: argparse.Namespace) -> int:
    if arguments.part == "repair":
        return _repair(arguments)
    bags, problems = find_bags(arguments.bags)
    for path in bags:
        try:
            print("\n".join(describe_bag(path)))
        except BagError as error:
            problems.append(str(error))
    return print_errors("bag", *problems)


def _repair(arguments: argparse.Namespace) -> int:
    with bag_errors(f"{arguments.output}: cannot be written", OSError):
        report = repair_bag(one_bag(arguments.bag), arguments.output, arguments.compress)
    for line in report.lines():
        print(line)
    for topic, count in sorted(report.kept.items()):
        print(f"{count:8d}  {topic}")
    print(f"{sum(report.kept.values()):8d}  messages in {arguments.output}")
    return 0
