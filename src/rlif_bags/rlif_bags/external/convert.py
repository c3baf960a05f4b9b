# SPDX-License-Identifier: Apache-2.0
"""External recordings converted to bags of Steps, each once, and known by what it was made of.

OUT/<bag>/                   the Steps
OUT/<bag>.conversion.json    source, mapping, and what became of the messages
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ConversionReport
from rlif_bags.external.steps import ExternalSteps
from rlif_bags.reading.files import BagError, bag_name, source_files
from rlif_bags.reading.open import open_bag
from rlif_bags.step_writer import StepWriter
from rlif_learner.data.steps import StepRecord


def convert_bag(bag: Path, output: Path, mapping: TopicMapping) -> ConversionReport:
    """Write the Steps of one bag; what is there already and the same is left as it is.

    BagError if other Steps are there, or the bag gives none.
    """
    target = output / bag_name(bag)
    beside = output / f"{target.name}.conversion.json"
    of: dict[str, Any] = json.loads(
        json.dumps({**source_files(bag), "mapping": asdict(mapping)})  # as it will be read
    )
    if target.exists():
        return _made_before(bag, target, beside, of)
    output.mkdir(parents=True, exist_ok=True)
    report = ConversionReport(target=str(target))
    with StepWriter(target) as writer:
        for stamp, step in external_steps(bag, mapping, report):
            writer.write(step, stamp)
        if not writer.count:
            raise BagError(
                f"{bag}: gave no Step; " + "; ".join(s.strip() for s in report.lines()[1:])
            )
        # Before the bag has its name: killed in between, the next run makes both again.
        beside.write_text(json.dumps({"of": of, "report": report.entry()}, indent=1), "utf-8")
    return report


def _made_before(bag: Path, target: Path, beside: Path, of: dict[str, Any]) -> ConversionReport:
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        same, values = found["of"] == of, found["report"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BagError(f"{target} is there, and not what it was made of ({error})") from error
    if not same:
        raise BagError(
            f"{target} holds Steps of another mapping, or {bag} has changed; name another output"
        )
    for name in ("refused", "other_joints", "gaps"):
        values[name] = Counter(values[name])
    return ConversionReport(**{**values, "target": str(target), "resumed": True})


def external_steps(
    path: Path, mapping: TopicMapping, report: ConversionReport
) -> Iterator[tuple[int, StepRecord]]:
    """Stamps (ns) and Steps of an external recording.

    BagError names topics that are not in it, and those of unknown type.
    """
    report.bag = str(path)
    with open_bag(path, report.notes) as bag:
        used = mapping.topics
        connections = [c for c in bag.connections if c.topic in used]
        missing = sorted(set(used) - {c.topic for c in connections} - {mapping.success})
        if missing:
            raise BagError(
                f"{path}: found no topic "
                + ", ".join(f"{topic} (of {used[topic]})" for topic in missing)
                + f"; there are {sorted({c.topic for c in bag.connections})}"
            )
        if mapping.success and mapping.success not in {c.topic for c in connections}:
            report.notes.append(
                f"{path}: found no topic {mapping.success} (success): no episode ends in success"
            )
        bag.require_types(connections)
        steps = ExternalSteps(mapping, report)
        for connection, stamp, message in bag.decoded(connections, report.refuse):
            yield from steps.feed(connection.topic, stamp, message)
        yield from steps.finish()
