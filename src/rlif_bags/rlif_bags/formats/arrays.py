# SPDX-License-Identifier: Apache-2.0
"""Arrays of observations and actions as Steps: prior data from wherever there are demonstrations.

Needed are `observations` [n, state_dim] and `actions` [n, action_dim], and what separates the
episodes: `episode_ids`, `terminals` (ended in success), `timeouts`, `dones` or `next_observations`: an
episode ends where one is not the observation of the next row. Where there are, these are used:
`sources` (1 policy, 2 operator, 0 none) or `interventions`, `onsets`,
`outcomes`, `evaluations`, `step_indices`, `policy_actions` (of rows that the operator drove: what the
policy asked for; NaN where that is not known), and images: see npz.py, which writes such arrays.

`rewards` are not used: labels come from the control source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rlif_learner.data.steps import Outcome, Source, StepRecord

TOLERANCE = 1e-6  # of actions beyond [-1, 1]
SAME = 1e-5  # of an observation that was stored twice, relative to its size
ENDS = ("terminals", "timeouts", "dones")  # some have one array for both
BOUNDS = (*ENDS, "episode_ids", "step_indices", "next_observations")
ASKED = "policy_actions"
VECTORS = ("observations", "next_observations", "actions", ASKED)
COLUMNS = (*VECTORS, *BOUNDS, "sources", "interventions", "onsets", "outcomes", "evaluations",
           "image_rows")  # fmt: skip


@dataclass(frozen=True)
class Images:
    """The images that belong to arrays.

    of: called with start and stop, gives for each of the rows one image a camera, uint8 [height,
    width, 1 or 3]; then, if `final`, those of what came after
    """

    of: Callable[[int, int], Iterator[tuple[np.ndarray, ...]]]
    final: bool


Part = tuple[Mapping[str, np.ndarray], Images | None]  # arrays of one or more episodes


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


def steps_from_arrays(
    given: Mapping[str, np.ndarray],
    config: ImportConfig,
    sequence: int = 0,
    images: Images | None = None,
) -> Iterator[StepRecord]:
    """The Steps of the arrays' episodes, numbered from 1; T transitions are T + 1 of them.

    sequence: of the first Step. ValueError names the array that is wrong, and where.
    """
    arrays = checked_arrays(given)
    _check_actions(arrays["actions"], config.action_scale)
    stops = (np.flatnonzero(marked_ends(arrays) | jumps(arrays)) + 1).tolist()
    for number, rows in enumerate(zip([0, *stops[:-1]], stops, strict=True), start=1):
        for step in _episode(arrays, config, rows, number, sequence, images):
            yield step
            sequence = step.sequence + 1


def checked_arrays(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of COLUMNS, with what is one number a row as [n]: some have it as [n, 1].

    ValueError names an array that is missing, of another kind or size, or not finite.
    """
    if missing := sorted({"observations", "actions"} - set(given)):
        raise ValueError(f"found no {missing}, only {sorted(given)}")
    found = {name: given[name] for name in COLUMNS if name in given}
    rows = given["observations"].shape[:1]
    for name, array in found.items():
        if array.dtype.kind not in "buif":
            raise ValueError(f"{name}: found {array.dtype}, expected real numbers")
        if name not in VECTORS and array.ndim == 2 and array.shape[1] == 1:
            found[name] = array = array[:, 0]
        if array.ndim != (2 if name in VECTORS else 1):
            form = "[rows, entries]" if name in VECTORS else "[rows]"
            raise ValueError(f"{name}: found shape {array.shape}, expected {form}")
        if array.shape[:1] != rows:
            raise ValueError(f"{name}: found {len(array)} rows, expected {rows[0]}")
        if name in VECTORS and name != ASKED and not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
            raise ValueError(f"{name}: row {bad[0]} is not finite, and {len(bad) - 1} others")
    if rows == (0,):
        raise ValueError("observations: found no row")
    for name, like in (("next_observations", "observations"), (ASKED, "actions")):
        _check_entries(name, found.get(name, found[like]), found[like])
    return found


def _check_entries(name: str, array: np.ndarray, like: np.ndarray) -> None:
    found, expected = array.shape[1], like.shape[1]
    if found != expected:
        raise ValueError(f"{name}: found {found} entries, expected {expected}")


def _check_actions(actions: np.ndarray, scale: float) -> None:
    beyond = np.abs(actions / scale).max(axis=1) > 1.0 + TOLERANCE
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise ValueError(
            f"actions: row {row} is {actions[row]}, expected within [-1, 1]; --action-scale S divides "
            f"velocities (the largest is {np.abs(actions).max():.6g}); positions are none"
        )


def marked_ends(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows [n] after which some array, or the end of them, ends an episode."""
    ends = np.zeros(len(arrays["observations"]), np.bool_)
    for name in ENDS:
        if name in arrays:
            ends |= arrays[name].astype(bool)
    if "episode_ids" in arrays:
        ends[:-1] |= arrays["episode_ids"][1:] != arrays["episode_ids"][:-1]
    if "step_indices" in arrays:  # behind a gap nothing is the next observation of anything
        ends[:-1] |= np.diff(arrays["step_indices"].astype(np.int64)) != 1
    ends[-1] = True
    return ends


def jumps(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows [n] whose next observation is not that of the next row; none without next_observations."""
    found = np.zeros(len(arrays["observations"]), np.bool_)
    if "next_observations" in arrays:
        after, following = arrays["next_observations"][:-1], arrays["observations"][1:]
        found[:-1] = ~np.isclose(after, following, rtol=SAME, atol=1e-7).all(axis=1)
    return found


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
        refused = np.zeros(0)
        if source == Source.OPERATOR and ASKED in arrays and np.isfinite(arrays[ASKED][row]).all():
            refused = arrays[ASKED][row] / config.action_scale
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
            refused_action=np.asarray(refused, np.float32),
        )
        previous = source
