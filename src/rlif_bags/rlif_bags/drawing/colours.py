# SPDX-License-Identifier: Apache-2.0
"""Colours of control sources and outcomes, and of what is drawn around them."""

from __future__ import annotations

from rlif_learner.data.steps import Outcome, Source

POLICY, OPERATOR, GREY = "#1f6f8b", "#e07a3f", "#6b7280"  # as in the plot of a run
SOURCE_COLOURS = {Source.POLICY: POLICY, Source.OPERATOR: OPERATOR, Source.NONE: GREY}
SOURCE_TEXTS = {
    Source.POLICY: "POLICY in control",
    Source.OPERATOR: "OPERATOR in control",
    Source.NONE: "no active source",
}
OUTCOMES = {
    Outcome.SUCCESS: ("SUCCESS", "#2e7d4f"),
    Outcome.FAILURE: ("FAILURE", "#b3261e"),
    Outcome.TRUNCATED: ("TRUNCATED", GREY),
    Outcome.DISCARDED: ("DISCARDED", GREY),
}
NEGATIVE = "#c0182b"  # of a label below 0
INK, PAPER, LINE = "#1f2937", "#ffffff", "#e5e7eb"
