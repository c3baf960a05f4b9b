"""Steps as plain arrays of transitions (npz), and back: for other programs, and as prior data.

    observations, next_observations  float32 [n, state_dim]
    actions                          float32 [n, action_dim]
    rewards                          float32 [n], of the label scheme
    terminals, timeouts              bool [n]: ended in success; ended otherwise, to be bootstrapped
    episode_ids, step_indices        uint32 [n]
    sources, onsets                  uint8 [n] (1 policy, 2 operator, 0 nobody), bool [n]

Read back, `rewards` count for nothing: labels come from who drove. Needed are observations and
actions, and what tells the episodes apart: episode_ids, or terminals and timeouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlif_learner.bags import BagError
from rlif_learner.bags_relabel import episodes_of
from rlif_learner.labels import label_rewards
from rlif_learner.steps import Outcome, Source, StepRecord, discards, follows

TOLERANCE = 1e-6  # of actions beyond [-1, 1]


def transitions(
    steps: Iterable[StepRecord], scheme: str = "onset", evaluation: bool = False
) -> dict[str, np.ndarray]:
    """All transitions of `steps`, in order; those of evaluation only if asked for.

    Discarded episodes are left out.
    """
    rows: list[dict[str, Any]] = []
    for episode in episodes_of(s for s in steps if evaluation or not s.evaluation):
        if discards(episode[-1]):
            continue
        rewards, terminals = label_rewards(episode, scheme)
        for i, (step, following) in enumerate(zip(episode, episode[1:], strict=False)):
            if follows(following, step):
                rows.append(
                    {
                        "observations": step.state,
                        "actions": step.action,
                        "next_observations": following.state,
                        "rewards": rewards[i],
                        "terminals": terminals[i],
                        "timeouts": following.is_last and not terminals[i],
                        "episode_ids": step.episode_id,
                        "step_indices": step.step_index,
                        "sources": step.source,
                        "onsets": step.onset,
                    }
                )
    kinds = {
        "observations": np.float32, "actions": np.float32, "next_observations": np.float32,
        "rewards": np.float32, "terminals": np.bool_, "timeouts": np.bool_,
        "episode_ids": np.uint32, "step_indices": np.uint32, "sources": np.uint8,
        "onsets": np.bool_,
    }  # fmt: skip
    if not rows:
        raise BagError("there is no transition to export; evaluation is left out unless asked for")
    return {name: np.asarray([row[name] for row in rows], kind) for name, kind in kinds.items()}


def write_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """As npz, complete or not at all. BagError if the file exists."""
    if path.exists():
        raise BagError(f"{path} exists already; name another output")
    partial = path.with_name(f".partial-{path.name}")
    content: dict[str, Any] = dict(arrays)
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **content)
    partial.replace(path)


@dataclass(frozen=True)
class ImportConfig:
    """How to read arrays that do not say.

    driver: who drove, where there are no `sources`; outcome: of episodes without terminals and
    timeouts; action_scale: what is 1 in an action, to divide by
    """

    driver: Source = Source.OPERATOR
    outcome: Outcome = Outcome.TRUNCATED
    action_scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.action_scale > 0.0:
            raise ValueError(f"action_scale: found {self.action_scale}, expected above 0")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without any code in it. BagError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, AttributeError) as error:
        raise BagError(f"{path}: not a readable npz file of plain arrays: {error}") from error


def steps_from_arrays(
    arrays: Mapping[str, np.ndarray], config: ImportConfig, sequence: int = 0
) -> Iterator[StepRecord]:
    """The Steps of the arrays' episodes; T transitions are T + 1 of them.

    sequence: of the first Step. ValueError names the array that is wrong, and where.
    """
    count = _check(arrays, config)
    for number, (start, stop) in enumerate(_episodes(arrays, count), start=1):
        for step in _episode(arrays, config, start, stop, number, sequence):
            yield step
            sequence = step.sequence + 1


def _check(arrays: Mapping[str, np.ndarray], config: ImportConfig) -> int:
    missing = sorted({"observations", "actions"} - set(arrays))
    if missing:
        raise ValueError(f"found no {missing}, only {sorted(arrays)}")
    count = len(arrays["observations"])
    known = ("observations", "next_observations", "actions", "terminals", "timeouts",
             "episode_ids", "sources", "onsets")  # fmt: skip
    for name in known:
        if name in arrays and len(arrays[name]) != count:
            raise ValueError(f"{name}: found {len(arrays[name])} rows, expected {count}")
    if count == 0:
        raise ValueError("observations: found no row")
    for name in ("observations", "next_observations", "actions"):
        if name in arrays:
            _check_rows(name, arrays[name])
    beyond = np.abs(arrays["actions"] / config.action_scale).max(axis=1) > 1.0 + TOLERANCE
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise ValueError(
            f"actions: row {row} is {arrays['actions'][row]}, expected within [-1, 1]; give the "
            "scale of the actions"
        )
    return count


def _check_rows(name: str, array: np.ndarray) -> None:
    if array.ndim != 2:
        raise ValueError(f"{name}: found shape {array.shape}, expected [rows, entries]")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: row {bad[0]} is not finite, and {len(bad) - 1} others")


def _episodes(arrays: Mapping[str, np.ndarray], count: int) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) of each episode."""
    ends = np.zeros(count, np.bool_)
    for name in ("terminals", "timeouts"):
        if name in arrays:
            ends |= arrays[name].astype(bool)
    if "episode_ids" in arrays:
        ends[:-1] |= arrays["episode_ids"][1:] != arrays["episode_ids"][:-1]
    ends[-1] = True
    stops = (np.flatnonzero(ends) + 1).tolist()
    return zip([0, *stops[:-1]], stops, strict=True)


def _outcome(arrays: Mapping[str, np.ndarray], config: ImportConfig, last: int) -> Outcome:
    if "terminals" in arrays and arrays["terminals"][last]:
        return Outcome.SUCCESS
    if "timeouts" in arrays and arrays["timeouts"][last]:
        return Outcome.TRUNCATED
    return config.outcome


def _episode(
    arrays: Mapping[str, np.ndarray], config: ImportConfig, start: int, stop: int, number: int,
    sequence: int,
) -> Sequence[StepRecord]:  # fmt: skip
    following = arrays.get("next_observations")
    driven = stop - start if following is not None else stop - start - 1
    states = [arrays["observations"][start + i] for i in range(driven)]
    states.append(arrays["observations"][stop - 1] if following is None else following[stop - 1])
    steps: list[StepRecord] = []
    for i, state in enumerate(states):
        last = i == driven
        source = Source.NONE if last else config.driver
        if not last and "sources" in arrays:
            source = Source(int(arrays["sources"][start + i]))
        begins = source == Source.OPERATOR and (i == 0 or steps[-1].source != Source.OPERATOR)
        if "onsets" in arrays and not last:
            begins = bool(arrays["onsets"][start + i])
        action = np.zeros(0) if last else arrays["actions"][start + i] / config.action_scale
        steps.append(
            StepRecord(
                sequence=sequence + i,
                episode_id=number,
                step_index=i,
                is_first=i == 0,
                is_last=last,
                outcome=_outcome(arrays, config, stop - 1) if last else Outcome.RUNNING,
                source=source,
                onset=begins,
                intervention_id=number if source == Source.OPERATOR else 0,
                evaluation=False,
                state=np.asarray(state, np.float32),
                action=np.clip(np.asarray(action, np.float32), -1.0, 1.0),
            )
        )
    return steps
