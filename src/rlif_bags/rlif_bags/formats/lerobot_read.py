# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset, format v3.0, as arrays for `steps_from_arrays`: an episode at a time.

Of a dataset that `rlif export` wrote, all comes back but the actions that were asked for and not
executed; of any other, observation.state, action, videos or images, and where there are these:
next.success, next.truncated, intervention. In a dataset of others a frame has an action, and the
observation after the last action is not there: that action has no successor, and is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.formats.arrays import Images, Part
from rlif_bags.formats.lerobot import (
    ACTION,
    ASKED,
    FINAL_PATH,
    IMAGES,
    SCALARS,
    STATE,
    VECTORS,
    decoded,
    final_images,
)
from rlif_bags.formats.video import VideoReader
from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError, bag_errors

LEFT_OUT = ("operator_actions", *(f"{name}_known" for name in ASKED), "rewards", "dones")

# Names of motors by LeRobot end in `.pos`; other converters write `_position` and the like.
_POSITION = re.compile(r"(^|[._/])(q?pos|position)s?$", re.IGNORECASE)
_GRIPPER = re.compile("gripper|finger", re.IGNORECASE)


@dataclass(frozen=True)
class Differences:
    """Velocities out of absolute positions: how fast an action differs from the one before.

    scale: what is 1 in an action, units of the positions per second
    gripper_range: positions of a gripper that is closed and open: its position stays one, from -1
    to 1, as the gripper axis has it
    """

    scale: float = 1.0
    gripper_range: tuple[float, float] | None = None

    def check(self, names: Sequence[str], root: Path) -> None:
        """BagError where a gripper's range is not known."""
        grippers = [name for name in names if _GRIPPER.search(name)]
        if grippers and self.gripper_range is None:
            raise BagError(
                f"{root}: --differences: {', '.join(grippers)} is a gripper, whose position stays "
                "one; --gripper-range CLOSED OPEN says what -1 and 1 are"
            )

    def of(self, positions: np.ndarray, names: Sequence[str], rate: float) -> np.ndarray:
        """Actions of one episode [rows, entries], not clipped.

        The first row has none before it: its velocities are 0.
        """
        actions = np.diff(positions, axis=0, prepend=positions[:1]) * (rate / self.scale)
        for at, name in enumerate(names):
            if _GRIPPER.search(name) and self.gripper_range is not None:
                closed, opened = self.gripper_range
                share = (positions[:, at] - closed) / (opened - closed)
                actions[:, at] = np.clip(2.0 * share - 1.0, -1.0, 1.0)
        return actions


def _names(feature: Mapping[str, Any]) -> list[str]:
    """Of the entries of a feature; datasets hold them as a list, or under `motors` or `axes`."""
    names = feature.get("names") or []
    if isinstance(names, Mapping):
        names = [
            name for part in names.values() for name in (part if isinstance(part, list) else [])
        ]
    return [str(name) for name in names]


def is_lerobot(path: Path) -> bool:
    return (path / "meta/info.json").exists()


class LeRobotReader:
    """Of one dataset. BagError names what is missing in it.

    state: the features that make up the state, in this order
    differences: take velocities out of positions
    cameras: names, in the order of the images; rate: frames a second
    """

    def __init__(
        self, root: Path, state: Sequence[str] = (STATE,), action: str = ACTION,
        differences: Differences | None = None,
    ) -> None:  # fmt: skip
        self.root, self._state, self._action = root, tuple(state), action
        self._differences = differences
        where = f"{root}/meta/info.json: not that of a dataset"
        with bag_errors(where, OSError, ValueError, KeyError, TypeError):
            info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
            self._features: dict[str, Any] = info["features"]
            self.rate = float(info["fps"])
            self._data, self._video = str(info["data_path"]), str(info["video_path"])
            version = str(info["codebase_version"])
        if not version.startswith("v3."):
            raise BagError(
                f"{root}: found LeRobot's format {version}, expected v3; convert it with lerobot's "
                "convert_dataset_v21_to_v30"
            )
        missing = [key for key in (*state, action) if key not in self._features]
        if missing:
            raise BagError(f"{root}: found no {missing}, only {sorted(self._features)}")
        self._names = _names(self._features[action])
        positions = [name for name in self._names if _POSITION.search(name)]
        if positions and differences is None:
            raise BagError(
                f"{root}: {action} is absolute positions ({', '.join(positions)}), expected "
                "velocities; --differences takes how fast they change, and --action-scale what is 1"
            )
        if differences is not None:
            differences.check(self._names, root)
        kinds = {key: feature["dtype"] for key, feature in self._features.items()}
        self._keys = [key for key, kind in kinds.items() if kind in ("video", "image")]
        self._videos = {
            k: VideoReader(self._channels(k)) for k in self._keys if kinds[k] == "video"
        }
        self.cameras = tuple(key.removeprefix(IMAGES) for key in self._keys)

    def notes(self, images: bool) -> list[str]:
        """Notes for the user."""
        found = []
        unused = [
            key for key in self._features
            if key.startswith("observation.") and key not in (*self._state, *self._keys)
        ]  # fmt: skip
        if unused:
            found.append(
                f"{self.root}: not used: {', '.join(unused)}; --state-key joins several to the state"
            )
        if images and self._keys and not (self.root / FINAL_PATH).exists():
            found.append(
                f"{self.root}: found no {FINAL_PATH}, and so no images of what the last action of an "
                "episode led to: that action is left out"
            )
        return found

    def _channels(self, key: str) -> int:
        return int((self._features[key].get("info") or {}).get("rlif.channels", 3))

    def __iter__(self) -> Iterator[Part]:
        """The arrays and images of each episode."""
        last, episodes = final_images(self.root), self._episodes()
        for number, columns in self._rows():
            episode = next(episodes, {"episode_index": None, "length": None})
            length = len(self._need(columns, self._action))
            self._check(number, length, episode)
            pictures = {key: columns.pop(key) for key in self._keys if key in columns}
            ends = tuple(image for _, _, image in _take(last, episode, len(self._keys)))
            frames = self._frames(episode, self._need(columns, "timestamp"), pictures)
            yield self._arrays(columns), _images(frames, ends) if self._keys else None
        for episode in episodes:
            self._check(None, None, episode)

    def _check(self, number: int | None, length: int | None, episode: Mapping[str, Any]) -> None:
        expected = (episode["episode_index"], episode["length"])
        if (number, length) != expected:
            raise BagError(
                f"{self.root}: found data of episode {number} with {length} rows, expected "
                f"{expected[0]} with {expected[1]} as in meta/episodes; the dataset is incomplete"
            )

    def _need(self, found: Mapping[str, Any], name: str) -> Any:
        if name not in found:
            raise BagError(f"{self.root}: found no column {name!r}, only {sorted(found)}")
        return found[name]

    def _episodes(self) -> Iterator[dict[str, Any]]:
        paths = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        if not paths:
            raise BagError(f"{self.root}/meta/episodes: found no parquet file")
        for path in paths:
            yield from _read(path, lambda name: not name.startswith("stats/")).to_pylist()

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Episode and columns, in one pass over the data files; images as they are stored."""
        known = {*self._state, self._action, *VECTORS, *SCALARS, "timestamp", "episode_index",
                 *self._keys}  # fmt: skip
        for path in sorted((self.root / self._data.partition("{")[0]).parent.glob("*/*.parquet")):
            table = _read(path, known.__contains__)
            if "episode_index" not in table.column_names:
                raise BagError(f"{path}: found no column 'episode_index'")
            numbers = table["episode_index"].to_numpy()
            starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
            for start, stop in pairwise([*starts, len(numbers)]):
                rows = table.slice(start, stop - start).to_pydict()
                whole = {k: v if k in self._keys else np.asarray(v) for k, v in rows.items()}
                yield int(numbers[start]), whole

    def _arrays(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """By the names of `steps_from_arrays`."""
        count = len(columns[self._action])
        arrays = {
            name: columns[key].reshape(count, -1) for key, name in VECTORS.items() if key in columns
        }
        if self._state != (STATE,):  # the next one is of observation.state
            arrays.pop("next_observations", None)
        states = [self._need(columns, key).reshape(count, -1) for key in self._state]
        arrays["observations"] = np.concatenate(states, axis=1)
        arrays["actions"] = columns[self._action].reshape(count, -1)
        if self._differences is not None:
            arrays["actions"] = self._differences.of(arrays["actions"], self._names, self.rate)
        arrays |= {name: columns[key] for key, (name, _) in SCALARS.items() if key in columns}
        if "policy_actions" in arrays:
            if self._differences is not None or "policy_actions_known" not in arrays:
                del arrays["policy_actions"]  # not of the kind of `actions`
            else:
                known = arrays["policy_actions_known"].reshape(-1, 1)
                arrays["policy_actions"] = np.where(known, arrays["policy_actions"], np.nan)
        return {name: array for name, array in arrays.items() if name not in LEFT_OUT}

    def _frames(
        self, episode: Mapping[str, Any], times: np.ndarray, pictures: Mapping[str, Sequence[Any]]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        streams = []
        for key in self._keys:
            if key in self._videos:
                chunk, file, first = (
                    self._need(episode, f"videos/{key}/{name}")
                    for name in ("chunk_index", "file_index", "from_timestamp")
                )
                relative = self._video.format(video_key=key, chunk_index=chunk, file_index=file)
                path, at = self.root / relative, (first + times.reshape(-1)).tolist()
                streams.append(self._videos[key].frames(path, at, 0.5 / self.rate))
            else:
                streams.append(decoded(stored["bytes"]) for stored in pictures[key])
        yield from zip(*streams, strict=True)


def _images(frames: Iterator[tuple[np.ndarray, ...]], end: tuple[np.ndarray, ...]) -> Images:
    """Of one episode, read as they are asked for, each once and in order."""

    def of(start: int, stop: int) -> Iterator[tuple[np.ndarray, ...]]:
        yield from islice(frames, stop - start)
        if end:
            yield end

    return Images(of, bool(end))


def _read(path: Path, wanted: Callable[[str], bool]) -> Any:
    """The wanted columns of a parquet file, of which LeRobot makes none too large. BagError."""
    parquet = optional("pyarrow.parquet")
    with bag_errors(f"{path}: cannot be read", OSError, ValueError):  # pyarrow's are
        names = [name for name in parquet.read_schema(path).names if wanted(name)]
        return parquet.read_table(path, columns=names, partitioning=None)


def _take(
    last: Iterator[tuple[int, str, np.ndarray]], episode: Mapping[str, Any], count: int
) -> list[tuple[int, str, np.ndarray]]:
    """The final images of this episode, or none: the file is written in the order of episodes."""
    taken = list(islice(last, count))
    if any(number != episode["episode_index"] for number, _, _ in taken):
        raise BagError(
            f"rlif/final.parquet: found the images of episode {taken[0][0]}, expected those of "
            f"{episode['episode_index']}; remove the file if episodes were taken out of the dataset"
        )
    return taken
