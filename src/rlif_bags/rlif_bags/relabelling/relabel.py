# SPDX-License-Identifier: Apache-2.0
"""New labels from recorded facts. A bag is never changed: its labels lie in a file beside.

    OUT/<bag>.labels.npz   sequence, episode_id, step_index, reward, terminal, transition; `about`

`transition`: whether a step has a successor, and so a label at all. A scheme is a name of
rlif_learner.data.labels, or a function of yours, `module:function`, called with the steps of one
episode and the parameters, that returns rewards (float32 [n]) and terminals (bool [n]).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.reading.files import (
    NOT_ARRAYS,
    BagError,
    bag_errors,
    bag_name,
    new_file,
    source_files,
)
from rlif_bags.reading.step_reader import StepReader, episodes_of
from rlif_learner.data.labels import SCHEMES, label_rewards
from rlif_learner.data.steps import Source, StepRecord, discards, follows

Scheme = Callable[..., tuple[np.ndarray, np.ndarray]]
_VERSION = 2  # of what a file of labels holds
_ROW = np.dtype(
    [("sequence", np.uint64), ("episode_id", np.uint32), ("step_index", np.uint32),
     ("reward", np.float32), ("terminal", np.bool_), ("transition", np.bool_)]
)  # fmt: skip
COLUMNS = _ROW.names or ()


def shared_blame(steps: Sequence[StepRecord], blame_steps: int = 3) -> tuple[Any, Any]:
    """`onset`, but the last `blame_steps` policy steps before an onset share the -1 equally.

    Usage: --scheme rlif_bags.relabelling.relabel:shared_blame --set blame_steps=5
    """
    if blame_steps < 1:
        raise ValueError(f"blame_steps: found {blame_steps}, expected at least 1")
    rewards, terminals = label_rewards(steps, "onset")
    shared = np.zeros_like(rewards)
    for at in np.flatnonzero(rewards < 0.0):
        first = int(at)
        while (
            first > max(0, at + 1 - blame_steps)
            and steps[first - 1].source == Source.POLICY
            and follows(steps[first], steps[first - 1])
        ):
            first -= 1
        shared[first : at + 1] += rewards[at] / (at - first + 1)
    return shared, terminals


@dataclass(frozen=True)
class Relabelling:
    """What to do with each bag.

    scheme: a name of labels.SCHEMES, or module:function; parameters: for the latter
    dwell: steps; the operator's return within so many of the policy's is no new intervention
    """

    scheme: str = "onset"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dwell: int = 0
    topic: str = ""

    def __post_init__(self) -> None:
        if self.dwell < 0:
            raise ValueError(f"dwell: found {self.dwell}, expected 0 or more steps")
        if self.scheme in SCHEMES and self.parameters:
            raise ValueError(
                f"scheme {self.scheme!r} takes no parameters, found {sorted(self.parameters)}"
            )

    def function(self) -> Scheme:
        """The scheme to call with the steps of an episode. ValueError if there is none."""
        if self.scheme in SCHEMES:
            return lambda steps: label_rewards(steps, self.scheme)
        return partial(_called, self._own(), self)

    def written(self) -> str:
        """sha256 of the file with a function of the user's: edited, it makes other labels.

        Empty where it stands in none, such as a built-in.
        """
        if self.scheme in SCHEMES:
            return ""
        try:
            file = inspect.getsourcefile(inspect.unwrap(self._own()))
        except TypeError:  # an object that is called
            file = None
        return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()

    def _own(self) -> Scheme:
        """The user's function. ValueError if there is none, or it does not take the parameters."""
        module, colon, name = self.scheme.partition(":")
        if not colon:
            raise ValueError(
                f"scheme: found {self.scheme!r}, expected one of {list(SCHEMES)} or module:function"
            )
        if "" not in sys.path:
            sys.path.append("")  # as `python` does: a file in the current directory is a module
        try:
            found: Scheme = getattr(importlib.import_module(module), name)
            inspect.signature(found).bind((), **self.parameters)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"scheme {self.scheme!r}: {error}") from error
        except TypeError as error:  # the text names the wrong parameter
            raise ValueError(f"scheme {self.scheme!r} and --set do not fit: {error}") from error
        return found


def _called(
    function: Scheme, work: Relabelling, steps: Sequence[StepRecord]
) -> tuple[np.ndarray, np.ndarray]:
    """What a user's function returns. ValueError names the line that failed."""
    of = f"scheme {work.scheme!r}"
    try:
        returned = function(steps, **work.parameters)
    except Exception as error:  # noqa: BLE001 - the user's: it may raise anything, which is reported
        failed = f"{of} failed on episode {steps[0].episode_id}"
        raise ValueError(f"{failed}: {describe_raised(error)}") from error
    try:
        rewards, terminals = returned
        rewards, terminals = np.asarray(rewards, np.float32), np.asarray(terminals, np.bool_)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{of} returned {returned!r}, expected rewards and terminals") from error
    if rewards.shape != (len(steps),) or terminals.shape != (len(steps),):
        raise ValueError(
            f"{of} returned shapes {rewards.shape} and {terminals.shape} for {len(steps)} steps, "
            f"expected ({len(steps)},) twice"
        )
    if not np.isfinite(rewards).all():
        raise ValueError(f"{of} returned rewards that are not finite: {rewards}")
    return rewards, terminals


def describe_raised(error: Exception) -> str:
    """An error that nobody expected, with where it was raised: it is to be reported."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def merge_interventions(steps: Sequence[StepRecord], dwell: int) -> list[StepRecord]:
    """The same steps without the onsets that come within `dwell` steps of the operator's last."""
    merged, last_operator = list(steps), None
    for at, step in enumerate(steps):
        if step.onset and last_operator is not None and at - last_operator - 1 <= dwell:
            merged[at] = replace(step, onset=False)
        if step.source == Source.OPERATOR:
            last_operator = at
    return merged


@dataclass
class RelabelReport:
    """Of one bag. changed: labels that differ from those of `onset`, which the learner gave."""

    bag: str
    output: str
    steps: int = 0
    episodes: int = 0
    transitions: int = 0
    interventions_before: int = 0
    interventions: int = 0
    negative_before: int = 0
    negative: int = 0
    changed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    resumed: bool = False

    def add(
        self, steps: Sequence[StepRecord], used: Sequence[StepRecord], labels: np.ndarray
    ) -> None:
        """Count an episode, whose labels were made of `used`."""
        old, rewards = label_rewards(steps, "onset")[0], labels["reward"]
        self.steps += len(steps)
        self.episodes += 1
        self.transitions += int(labels["transition"].sum())
        self.interventions_before += sum(s.onset for s in steps)
        self.interventions += sum(s.onset for s in used)
        self.negative_before += int((old < 0.0).sum())
        self.negative += int((rewards < 0.0).sum())
        self.changed += int((old != rewards).sum())

    def lines(self) -> list[str]:
        """Before and after, for a person."""
        return [
            f"{self.bag}{' (done before)' if self.resumed else ''}",
            f"  {self.episodes} episodes, {self.steps} steps, {self.transitions} transitions",
            f"  interventions {self.interventions_before} -> {self.interventions}, negative labels "
            f"{self.negative_before} -> {self.negative}, {self.changed} labels changed",
            *(f"  left out, {why}: {count}" for why, count in self.skipped.items()),
            *(f"  note: {note}" for note in self.notes),
        ]


def facts_of(step: StepRecord) -> bytes:
    """All that labels may come from, for a digest of a bag: two bags number their Steps alike, and are
    not the same."""
    facts = (step.sequence, step.episode_id, step.step_index, step.is_first, step.is_last,
             step.outcome, step.source, step.onset, step.intervention_id, step.evaluation)  # fmt: skip
    numbers = np.asarray(facts, np.int64)
    return numbers.tobytes() + step.state.tobytes() + step.action.tobytes()


def _about(bag: Path, work: Relabelling) -> dict[str, Any]:
    """What the labels were made of: equal means that they need not be made again."""
    written = work.written()
    return {
        "version": _VERSION,
        **source_files(bag),
        **({"function": written} if written else {}),
        "scheme": work.scheme,
        "parameters": dict(work.parameters),
        "dwell": work.dwell,
        "topic": work.topic,
    }


def labels_path(bag: Path, output: Path) -> Path:
    """Where the labels of `bag` lie."""
    return output / f"{bag_name(bag)}.labels.npz"


def relabel_bag(bag: Path, output: Path, work: Relabelling) -> RelabelReport:
    """Write the labels of one bag; what is there already and the same is left as it is.

    BagError if other labels are there. ValueError for what the scheme returns.
    """
    target, about = labels_path(bag, output), _about(bag, work)
    if target.exists():
        found = read_labels(target)
        if found.about["of"] != about:
            raise BagError(f"{target} holds labels of other settings; name another output")
        return RelabelReport(**{**found.about["report"], "resumed": True})
    scheme, digest = work.function(), hashlib.sha256()
    report = RelabelReport(str(bag), str(target))
    parts = [np.zeros(0, _ROW)]
    reader = StepReader(bag, work.topic, images=False)
    for steps in episodes_of(reader):
        used = merge_interventions(steps, work.dwell) if work.dwell else steps
        parts.append(_rows(steps, *scheme(used)))
        report.add(steps, used, parts[-1])
        digest.update(b"".join(map(facts_of, steps)))
    report.skipped, report.notes = dict(reader.skipped), reader.notes
    rows = np.concatenate(parts)
    text = json.dumps({"of": about, "report": vars(report), "steps": digest.hexdigest()})
    columns: dict[str, Any] = {name: rows[name] for name in COLUMNS}
    output.mkdir(parents=True, exist_ok=True)
    with new_file(target) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(stream, about=np.array(text), **columns)
    return report


def _rows(steps: Sequence[StepRecord], rewards: np.ndarray, terminals: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(steps), _ROW)
    for name in ("sequence", "episode_id", "step_index"):
        rows[name] = [getattr(step, name) for step in steps]
    rows["reward"], rows["terminal"] = rewards, terminals
    if not discards(steps[-1]):
        rows["transition"][:-1] = [follows(b, a) for a, b in pairwise(steps)]
    return rows


@dataclass(frozen=True)
class Labels:
    """What `relabel_bag` wrote: one entry per step, in the order of the bag."""

    columns: dict[str, np.ndarray]
    about: dict[str, Any]


def read_labels(path: Path) -> Labels:
    """BagError if it is no file of labels."""
    if not path.exists():
        raise BagError(f"{path}: there are no such labels; `rlif relabel` makes them")
    where, remedy = f"{path}: not a file of labels", "delete it, and label again"
    with bag_errors(where, *NOT_ARRAYS, remedy=remedy), np.load(path, allow_pickle=False) as data:
        about = json.loads(str(data["about"]))
        return Labels({name: data[name] for name in COLUMNS}, about)
