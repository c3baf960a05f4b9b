# SPDX-License-Identifier: Apache-2.0
"""Train a success detector from the success button: docs/success_detector.md.

  rlif detector train BAG... -o DIR [--before N] [--from-disagreements] [--config robot.yaml]

The last observations of episodes that ended in success are the positives, all others the negatives.
DIR gets the detector, report.json and mistakes.png; the launch argument detector:=DIR uses it.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rlif_bags.commands.options import (
    add_bags,
    add_set,
    parse_parameters,
    print_notes,
    reports_errors,
)
from rlif_bags.detector import layout_of, read_episodes
from rlif_bags.drawing.mistakes import Mistake, draw_mistakes
from rlif_bags.reading.files import bag_paths, refuse_inside
from rlif_bags.train import read_parameters
from rlif_learner.config import checked
from rlif_learner.detector_training import (
    DetectorTraining,
    Observations,
    Quality,
    gather,
    judge,
    train,
)
from rlif_learner.vision import NO_ENCODER, VisionConfig, make_vision
from rlif_policy.detector import FILE, Detector, DetectorSpec, save_detector

SHOWN = 12  # of the worst mistakes
THREADS = 1  # of PyTorch: of small networks more only wait for each other
REPORT, PICTURE = "report.json", "mistakes.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True, metavar="{train}")
    part = parts.add_parser("train", help="train a detector from bags")
    default = DetectorTraining()
    add_bags(part)
    add_set(part, "encoder…, batch_size, learning_rate …, e.g. encoder_pooling=average")
    add = part.add_argument
    add("-o", "--output", type=Path, required=True, help="directory of the detector; new")
    add("--config", type=Path, help="robot.yaml: the policy's encoder, the names of the features")
    add("--cameras", nargs="+", default=(), help="that the detector sees; default: all")
    add("--state", action="store_true", help="the state too; without images it is used anyway")
    add(
        "--before", type=int, default=default.before, metavar="N",
        help="observations before the last one that show the success too (%(default)s)",
    )  # fmt: skip
    add(
        "--margin", type=int, default=default.margin, metavar="N",
        help="observations before those that are left out (%(default)s)",
    )  # fmt: skip
    add("--precision", type=float, default=default.precision, help="wished (%(default)s)")
    add("--ticks", type=int, default=default.ticks, help="in a row that count (%(default)s)")
    add("--updates", type=int, default=default.updates, help="(%(default)s)")
    add("--seed", type=int, default=default.seed, help="(%(default)s)")
    add(
        "--from-disagreements", action="store_true",
        help="episodes in which the operator corrected the detector count four times",
    )  # fmt: skip


@reports_errors("detector")
def run(arguments: argparse.Namespace) -> int:
    if (arguments.output / FILE).exists():
        raise ValueError(f"{arguments.output} has a detector; name a new directory")
    bags = bag_paths(arguments.bags)
    refuse_inside(bags, arguments.output)
    config, vision, features = _settings(arguments)
    notes: list[str] = []
    episodes = read_episodes(bags, arguments.topic, notes)
    corrections = episodes.corrections
    if config.from_disagreements and not corrections:
        notes.append(
            "--from-disagreements changes nothing: found no episode in which the operator corrected "
            "the detector; record some with detector:=DIR"
        )
    print_notes(*notes)
    layout = layout_of(episodes.named[0][1][0], arguments.state, features, arguments.cameras)
    data = gather(episodes.named, layout, config, corrections, episodes.detected)
    seen = make_vision(vision) if layout.images else None
    spec = DetectorSpec(layout, seen.encoder if seen else None)
    torch.set_num_threads(THREADS)
    trunk = seen.trunk if seen else None
    detector, held, confidences = train(spec, data, config, trunk, _progress(config))
    threshold = detector.threshold.item()
    quality = judge(data, held, confidences, threshold, config.ticks)
    arguments.output.mkdir(parents=True, exist_ok=True)
    _write_report(arguments.output / REPORT, detector, quality, config, len(corrections))
    if layout.images:
        _draw(data, quality, confidences, threshold, arguments.output / PICTURE)
    path = save_detector(detector, arguments.output)
    Console(soft_wrap=True).print(_table(data, held, quality, threshold, config, len(corrections)))
    print(f"{path}\nnext: the launch argument detector:={arguments.output}")
    return 0


def _settings(
    arguments: argparse.Namespace,
) -> tuple[DetectorTraining, VisionConfig, tuple[str, ...]]:
    """Of training, of the encoder, names of the features. ValueError names what is unknown."""
    file = read_parameters(arguments.config) if arguments.config else {}
    given = parse_parameters(arguments.parameters)
    seeing = {f.name for f in fields(VisionConfig) if f.name.startswith("encoder")}
    known = {f.name: f.default for f in fields(DetectorTraining)}
    if unknown := sorted(set(given) - seeing - set(known)):
        raise ValueError(f"--set: found {unknown}, expected some of {sorted(seeing | set(known))}")
    options = {n: getattr(arguments, n) for n in known if hasattr(arguments, n)}
    own = {n: checked(n, v, known[n]) for n, v in given.items() if n in known}
    encoder: dict[str, Any] = {n: v for n, v in (file | given).items() if n in seeing}
    if encoder.get("encoder", NO_ENCODER) == NO_ENCODER:
        encoder["encoder"] = "small"
    # The sizes and names of the images are those of the bags; the encoder alone is asked for here.
    vision = VisionConfig.from_parameters(encoder | {"cameras": ["any"]})
    return DetectorTraining(**(options | own)), vision, tuple(file.get("features", ()))


def _progress(config: DetectorTraining) -> Any:
    every = max(1, config.updates // 10)

    def report(update: int, loss: float) -> None:
        if update % every == 0:
            print(f"  {update}/{config.updates} updates  loss {loss:.4f}", flush=True)

    return report


def _table(
    data: Observations, held: np.ndarray, quality: Quality, threshold: float,
    config: DetectorTraining, corrections: int,
) -> Table:  # fmt: skip
    """What came out, on the episodes that were held out."""
    table = Table("", "", title="Success detector, on held-out episodes", show_header=False)
    trained = ~held
    successes = len(np.unique(data.episode[trained & (data.labels == 1)]))
    for row in (
        ("trained on", f"{len(np.unique(data.episode[trained]))} episodes, {successes} successes"),
        ("held out", f"{quality.episodes} episodes, {quality.positives} observations with and "
                     f"{quality.negatives} without success"),
        ("corrected by the operator", f"{corrections} episodes"),
        ("threshold", f"{threshold:.3f}, {_reached(quality, config)}"),
        ("precision", f"{quality.precision:.3f}"),
        ("recall", f"{quality.recall:.3f}"),
        ("calibration error", f"{quality.calibration_error:.3f}"),
        ("false successes", _false_successes(quality, config, data.rate)),
    ):  # fmt: skip
        table.add_row(*row)
    return table


def _reached(quality: Quality, config: DetectorTraining) -> str:
    """Whether the threshold gives the wished precision."""
    if quality.precision >= config.precision:
        return f"chosen here for a precision of {config.precision:.3f}"
    return f"the best there is: none gives a precision of {config.precision:.3f}. Do not use it yet"


def _false_successes(quality: Quality, config: DetectorTraining, rate: float) -> str:
    """Per hour of control; on the episodes that the threshold was chosen on, so it is optimistic."""
    found = (
        f"{quality.false_successes} of {quality.episodes} episodes, {config.ticks} ticks in a row"
    )
    if not quality.hours:
        return f"{found}; the Steps have no stamps"
    return f"{found}: {quality.false_per_hour:.1f} per hour at {rate:.1f} Hz"


def _write_report(
    path: Path, detector: Detector, quality: Quality, config: DetectorTraining, corrections: int
) -> None:
    values = {name: value for name, value in asdict(quality).items() if name != "worst"}
    per_hour = None if math.isnan(quality.false_per_hour) else quality.false_per_hour
    content = {
        **values,
        "false_per_hour": per_hour,
        "threshold": detector.threshold.item(),
        "corrections": corrections,
        "layout": detector.spec.layout.fingerprint(),
        "spec": json.loads(detector.spec.to_json()),
        "settings": asdict(config),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _draw(
    data: Observations, quality: Quality, confidences: np.ndarray, threshold: float, path: Path
) -> None:
    mistakes = []
    for row in quality.worst[:SHOWN]:
        success, above = data.labels[row] == 1, confidences[row] >= threshold
        kind = "right" if success == above else "missed" if success else "false success"
        caption = f"{kind}: {confidences[row]:.3f}\n{data.names[row]}"
        mistakes.append(Mistake([camera[row].numpy() for camera in data.images], caption))
    draw_mistakes(mistakes, f"Held out, worst first; threshold {threshold:.3f}", path)
