# SPDX-License-Identifier: Apache-2.0
"""Arrays of observations and actions as Steps: prior data from wherever there are demonstrations.

Needed are `observations` [n, state_dim] and `actions` [n, action_dim], and what separates the
episodes: `episode_ids`, `terminals` (ended in success), `timeouts`, `dones` or `next_observations`: an
episode ends where one is not the observation of the next row. Where there are, these are used:
`sources` (1 policy, 2 operator, 0 none) or `interventions`, `onsets`,
`outcomes`, `evaluations`, `step_indices`, and images: see npz.py, which writes such arrays.

`rewards` are not used: labels come from the control source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rlif_bags.formats.npz import IMAGES
from rlif_bags.optional import optional
from rlif_bags.reading.files import NOT_ARRAYS, BagError
from rlif_learner.data.steps import Outcome, Source, StepRecord

TOLERANCE = 1e-6  # of actions beyond [-1, 1]
SAME = 1e-5  # of an observation that was stored twice, relative to its size
ENDS = ("terminals", "timeouts", "dones")  # some have one array for both
BOUNDS = (*ENDS, "episode_ids", "step_indices", "next_observations")
COLUMNS = ("observations", "actions", *BOUNDS, "sources", "interventions", "onsets", "outcomes",
           "evaluations", "image_rows")  # fmt: skip
HDF5 = (".hdf5", ".h5")


class Images(Protocol):
    """The images that belong to arrays. final: whether the last observation of an episode has any."""

    @property
    def final(self) -> bool: ...

    def of(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, ...]]:
        """For each of the rows, one image a camera; then, if `final`, those of what came after."""


@dataclass(frozen=True)
class ImportConfig:
    """What the arrays may lack.

    driver: the control source, where there are no `sources`; outcome: of episodes without terminals and
    timeouts; action_scale: what is 1 in an action, to divide by
    """

    driver: Source = Source.OPERATOR
    outcome: Outcome = Outcome.TRUNCATED
    action_scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.action_scale > 0.0:
            raise ValueError(f"action_scale: found {self.action_scale}, expected above 0")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz or HDF5 file but the images, without any code in it. BagError if none."""
    if not path.exists():
        raise BagError(f"{path}: there is no such file or dataset")
    try:
        if path.suffix in HDF5:
            return _read_hdf5(path)
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files if not name.startswith(IMAGES)}
    except NOT_ARRAYS as error:
        raise BagError(f"{path}: not a readable file of plain arrays: {error}") from error


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """As D4RL lays it out: arrays at the top, groups beside them."""
    with optional("h5py").File(path, "r") as file:
        return {name: item[()] for name, item in file.items() if hasattr(item, "dtype")}


def steps_from_arrays(
    arrays: Mapping[str, np.ndarray],
    config: ImportConfig,
    sequence: int = 0,
    images: Images | None = None,
) -> Iterator[StepRecord]:
    """The Steps of the arrays' episodes, numbered from 1; T transitions are T + 1 of them.

    sequence: of the first Step. ValueError names the array that is wrong, and where.
    """
    count = _check(arrays)
    _check_actions(arrays["actions"], config.action_scale)
    for number, (start, stop) in enumerate(_episodes(arrays, count), start=1):
        for step in _episode(arrays, config, (start, stop), number, sequence, images):
            yield step
            sequence = step.sequence + 1


def _check(arrays: Mapping[str, np.ndarray]) -> int:
    """The number of rows."""
    missing = sorted({"observations", "actions"} - set(arrays))
    if missing:
        raise ValueError(f"found no {missing}, only {sorted(arrays)}")
    count = len(arrays["observations"])
    for name in COLUMNS:
        if name in arrays and len(arrays[name]) != count:
            raise ValueError(f"{name}: found {len(arrays[name])} rows, expected {count}")
    if count == 0:
        raise ValueError("observations: found no row")
    for name in ("observations", "next_observations", "actions"):
        if name in arrays:
            _check_rows(name, arrays[name])
    if "next_observations" in arrays:
        size, expected = arrays["next_observations"].shape[1], arrays["observations"].shape[1]
        if size != expected:
            raise ValueError(f"next_observations: found {size} entries, expected {expected}")
    return count


def _check_actions(actions: np.ndarray, scale: float) -> None:
    beyond = np.abs(actions / scale).max(axis=1) > 1.0 + TOLERANCE
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise ValueError(
            f"actions: row {row} is {actions[row]}, expected within [-1, 1]; --action-scale S divides "
            f"velocities (the largest is {np.abs(actions).max():.6g}); positions are none"
        )


def _check_rows(name: str, array: np.ndarray) -> None:
    if array.ndim != 2:
        raise ValueError(f"{name}: found shape {array.shape}, expected [rows, entries]")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: row {bad[0]} is not finite, and {len(bad) - 1} others")


def _episodes(arrays: Mapping[str, np.ndarray], count: int) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) of each episode."""
    stops = (np.flatnonzero(_marked_ends(arrays, count) | _elsewhere(arrays)) + 1).tolist()
    return zip([0, *stops[:-1]], stops, strict=True)


def _marked_ends(arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Rows [n] after which some array, or the end of them, ends an episode."""
    ends = np.zeros(count, np.bool_)
    for name in ENDS:
        if name in arrays:
            ends |= arrays[name].astype(bool)
    if "episode_ids" in arrays:
        ends[:-1] |= arrays["episode_ids"][1:] != arrays["episode_ids"][:-1]
    if "step_indices" in arrays:  # behind a gap nothing is the next observation of anything
        ends[:-1] |= np.diff(arrays["step_indices"].astype(np.int64)) != 1
    ends[-1] = True
    return ends


def _elsewhere(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows [n] whose next observation is not that of the next row; none without next_observations."""
    found = np.zeros(len(arrays["observations"]), np.bool_)
    if "next_observations" in arrays:
        after, following = arrays["next_observations"][:-1], arrays["observations"][1:]
        found[:-1] = ~np.isclose(after, following, rtol=SAME, atol=1e-7).all(axis=1)
    return found


def columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same, with what is one number a row as [n]: some have it as [n, 1].

    ValueError names an array that is of another kind.
    """
    found = dict(arrays)
    for name in set(COLUMNS) & set(found):
        array = found[name]
        if array.dtype.kind not in "buif":
            raise ValueError(f"{name}: found {array.dtype}, expected real numbers")
        if name in ("observations", "next_observations", "actions"):
            continue
        if array.ndim == 2 and array.shape[1] == 1:
            array = found[name] = array[:, 0]
        if array.ndim != 1:
            raise ValueError(f"{name}: found shape {array.shape}, expected [rows]")
    return found


def remarks(arrays: Mapping[str, np.ndarray], one_episode: bool = False) -> list[str]:
    """Notes for the user on arrays that are to become Steps.

    one_episode: all rows are one. ValueError where neither that nor anything else separates
    episodes.
    """
    count = _check(arrays)
    bounds = sorted(set(BOUNDS) & set(arrays))
    if one_episode and bounds:
        raise ValueError(f"--one-episode: found {', '.join(bounds)}, which separate episodes")
    if not one_episode and not bounds:
        raise ValueError(
            f"found nothing that separates the episodes ({', '.join(BOUNDS)}), only "
            f"{sorted(arrays)}; --one-episode if all rows are one"
        )
    notes = []
    marked = _marked_ends(arrays, count)
    if new := int((_elsewhere(arrays) & ~marked).sum()):
        notes.append(
            f"{new} rows have a next observation that is not the next row's, where nothing else "
            "ends an episode: one ends there"
        )
    if "next_observations" not in arrays:
        notes.append(
            f"no next_observations: the last action of each of {marked.sum()} episodes leads to nothing "
            "that is known, and is left out"
        )
    if unused := sorted(set(arrays) - set(COLUMNS)):
        notes.append(f"not used: {', '.join(unused)}")
    return notes


def _outcome(arrays: Mapping[str, np.ndarray], config: ImportConfig, last: int) -> Outcome:
    if "outcomes" in arrays and arrays["outcomes"][last]:
        return Outcome(int(arrays["outcomes"][last]))
    if "terminals" in arrays and arrays["terminals"][last]:
        return Outcome.SUCCESS
    if "timeouts" in arrays and arrays["timeouts"][last]:
        return Outcome.TRUNCATED
    return config.outcome


def _source(arrays: Mapping[str, np.ndarray], config: ImportConfig, row: int) -> Source:
    if "sources" in arrays:
        return Source(int(arrays["sources"][row]))
    if "interventions" in arrays:
        return Source.OPERATOR if arrays["interventions"][row] else Source.POLICY
    return config.driver


def _episode(
    arrays: Mapping[str, np.ndarray], config: ImportConfig, rows: tuple[int, int], number: int,
    sequence: int, images: Images | None,
) -> Iterator[StepRecord]:  # fmt: skip
    """Without what came after the last action, that action has no successor and is left out."""
    start, stop = rows
    whole = "next_observations" in arrays and (images is None or images.final)
    actions = stop - start if whole else stop - start - 1
    pictures = None if images is None else images.of(start, stop)
    previous = Source.NONE
    for i in range(actions + 1):
        row, last = start + i, i == actions
        source = Source.NONE if last else _source(arrays, config, row)
        onset = source == Source.OPERATOR and previous != Source.OPERATOR
        if "onsets" in arrays and not last:
            onset = bool(arrays["onsets"][row])
        state = arrays["observations"][row] if row < stop else arrays["next_observations"][stop - 1]
        action = np.zeros(0) if last else arrays["actions"][row] / config.action_scale
        yield StepRecord(
            sequence=sequence + i,
            episode_id=number,
            step_index=i,
            is_first=i == 0,
            is_last=last,
            outcome=_outcome(arrays, config, stop - 1) if last else Outcome.RUNNING,
            source=source,
            onset=onset,
            intervention_id=number if source == Source.OPERATOR else 0,
            evaluation="evaluations" in arrays and bool(arrays["evaluations"][min(row, stop - 1)]),
            state=np.asarray(state, np.float32),
            action=np.clip(np.asarray(action, np.float32), -1.0, 1.0),
            images=() if pictures is None else next(pictures),
        )
        previous = source
