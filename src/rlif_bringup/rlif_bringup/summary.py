# SPDX-License-Identifier: Apache-2.0
"""What a run came to: episodes as records, rates with intervals, the keys of summary.json."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WINDOW = 20  # episodes over which rates are shown and compared
_PACKAGES = ("rlif-bringup", "torch", "numpy", "mujoco", "rosbags", "safetensors")


@dataclasses.dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode.

    Attributes:
        phase: of the run that it belongs to, as `training`.
        env_steps: steps driven in the run up to its end, evaluation left out.
        steps: driven in the episode, `operator_steps` of them by the operator.
        interventions: take-overs that began in it.
        wall_seconds: since the start of the run.
        ended_by: detector, or anything else, once there is a success detector; None: there is none.
        robot: of several, which one.
    """

    phase: str
    id: int
    env_steps: int
    steps: int
    operator_steps: int
    interventions: int
    success: bool
    wall_seconds: float
    ended_by: str | None = None
    robot: str = ""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate by Wilson's score; (0, 1) where nothing was tried.

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, found {successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    rate, z2n = successes / trials, z * z / trials
    centre = (rate + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(rate * (1 - rate) / trials + z2n / (4 * trials))
    # Rounding must not push the bounds over what is possible.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def success_rate(records: Sequence[EpisodeRecord]) -> float | None:
    """Share of successful episodes; None where there are none."""
    return sum(r.success for r in records) / len(records) if records else None


def operator_share(records: Sequence[EpisodeRecord]) -> float | None:
    """Share of steps that the operator drove; None where nothing was driven."""
    steps = sum(r.steps for r in records)
    return sum(r.operator_steps for r in records) / steps if steps else None


def moving_average(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Mean of each value and up to `window - 1` before it."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    starts = (max(0, end - window) for end in range(1, len(sums)))
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]


def of_phase(records: Sequence[EpisodeRecord], phase: str) -> list[EpisodeRecord]:
    """The records of one phase, in order."""
    return [record for record in records if record.phase == phase]


TRIAL = "trial at "  # phases in which the policy is tried alone, between two parts of the training


def trial_name(env_steps: int) -> str:
    """The name of the phase that tries the policy after so many steps."""
    return f"{TRIAL}{env_steps}"


@dataclasses.dataclass(frozen=True)
class Trial:
    """How the policy did alone after `env_steps`."""

    env_steps: int
    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Of success."""
        return self.successes / self.episodes


def trials(records: Sequence[EpisodeRecord]) -> list[Trial]:
    """All trials, in order."""
    names = dict.fromkeys(r.phase for r in records if r.phase.startswith(TRIAL))
    found = ((name, of_phase(records, name)) for name in names)
    return [
        Trial(int(name.removeprefix(TRIAL)), sum(r.success for r in done), len(done))
        for name, done in found
    ]


def ros_distribution() -> str:
    """Of the sourced installation, or of the wheels where there is none."""
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().split("-")
        if name[0] == "ros" and name[2:] == ["rclpy"]:
            return name[1]
    return os.environ.get("ROS_DISTRO", "unknown")


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    found = {"python": platform.python_version(), "ros": ros_distribution()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def summarise(records: Sequence[EpisodeRecord], **facts: Any) -> dict[str, Any]:
    """The content of summary.json; rates are None where their phase did not take place."""
    training = of_phase(records, "training")
    summary: dict[str, Any] = {}
    for key, phase in (("policy_success", "policy"), ("expert_success", "expert")):
        judged = of_phase(records, phase)
        summary[key] = success_rate(judged)
        interval = wilson_interval(sum(r.success for r in judged), len(judged))
        summary[f"{key}_interval"] = list(interval) if judged else None
        summary[f"{phase}_episodes"] = len(judged)
    learned_from = [*of_phase(records, "demonstrations"), *training]
    summary |= {
        "env_steps": sum(r.steps for r in learned_from),
        "training_episodes": len(training),
        "demonstration_episodes": len(learned_from) - len(training),
        "interventions": sum(r.interventions for r in training),
        "operator_share_first20": operator_share(training[:WINDOW]),
        "operator_share_last20": operator_share(training[-WINDOW:]),
        "training_success_last20": success_rate(training[-WINDOW:]),
    }
    tried = trials(records)
    if tried:
        summary["trials"] = [{**dataclasses.asdict(t), "success": t.rate} for t in tried]
    return {**summary, **facts, "versions": versions()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def write_csv(path: Path, records: Sequence[EpisodeRecord]) -> None:
    """One line per episode, with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in dataclasses.fields(EpisodeRecord)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(record) for record in records)
