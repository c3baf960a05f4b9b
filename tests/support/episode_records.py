# SPDX-License-Identifier: Apache-2.0
"""Episode records of a run, made up."""

from __future__ import annotations

from rlif_bringup.summary import EpisodeRecord


def record(phase: str, number: int, operator_steps: int, success: bool) -> EpisodeRecord:
    return EpisodeRecord(phase, number, 10 * number, 10, operator_steps, 1, success, float(number))


def run_of(training: int, judged: int = 10) -> list[EpisodeRecord]:
    records = [record("demonstrations", n, 10, True) for n in range(2)]
    records += [record("training", n, 8 if n < 20 else 2, n > 5) for n in range(training)]
    records += [record("policy", n, 0, n > 0) for n in range(judged)]
    return records + [record("expert", n, 10, n % 2 == 0) for n in range(judged)]
