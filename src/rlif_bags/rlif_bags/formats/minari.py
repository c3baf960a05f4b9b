# SPDX-License-Identifier: Apache-2.0
"""Runs as a Minari dataset (HDF5), and such a dataset as arrays for `steps_from_arrays`.

A run of T transitions is an episode of T actions and T + 1 observations, as Minari has it. The
observation is the state, or with cameras a dictionary of `state` and `images`. Where neither
termination nor truncation is set at an episode's end, nothing is: a gap cut the episode off, and its
last row is truncated. `infos` hold, for each of the T + 1 observations, the control source and the rest of
what npz.py lists; in the last entry, which belongs to no action, they are 0, or NaN.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.formats.arrays import Images, Part
from rlif_bags.formats.export import ExportReader, Run
from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError, bag_errors, new_directory

INFOS = (
    "policy_actions", "operator_actions", "outcomes", "sources", "interventions", "onsets",
    "evaluations", "step_indices", "stamps",
)  # fmt: skip
# Of a goal-conditioned environment of Gymnasium-Robotics; what was achieved is in `observation`.
GOAL_ENTRIES = ("observation", "desired_goal", "achieved_goal")
CAMERAS = "rlif_cameras"  # their order, of which a dictionary space knows nothing
NAME = re.compile(r"[-\w]+-v\d+")


def write_minari(reader: ExportReader, output: Path, author: str = "") -> None:
    """The runs of `reader` as the dataset `output`, complete or not at all. BagError names why.

    The name of the directory is the id of the dataset, so it must end in -v0 or the like. Holds one
    episode in memory at a time.
    """
    if not NAME.fullmatch(output.name):
        raise BagError(f"{output.name}: found no Minari id, expected NAME-v0 (or another number)")
    storage_of = optional("minari.dataset.minari_storage").MinariStorage
    optional("h5py")
    with new_directory(output) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that a robot's data do not have
        storage: Any = None
        for run in reader:
            if storage is None:
                storage = _new_storage(storage_of, (partial / "data").resolve(), run, reader.notes)
                about = _about(output.name, reader, author)
                storage.update_metadata({**about, CAMERAS: list(run.cameras)})
            storage.update_episodes([_buffer(run)])


def _new_storage(storage_of: Any, path: Path, run: Run, notes: list[str]) -> Any:
    spaces = optional("gymnasium.spaces")
    state, action = run.states[0], run.steps[0].action
    observation = spaces.Box(-np.inf, np.inf, state.shape, np.float32)
    images = dict(zip(run.cameras, run.steps[0].images, strict=True))
    if images:
        boxes = {n: spaces.Box(0, 255, image.shape, np.uint8) for n, image in images.items()}
        observation = spaces.Dict({"state": observation, "images": spaces.Dict(boxes)})
    options: dict[str, Any] = {}
    if "jpeg_encoding" in inspect.signature(storage_of.new).parameters:
        options["jpeg_encoding"] = False
    elif images:
        _check_jpeg(images)
        notes.append("this version of Minari stores images as JPEG: they are not the same pixels")
    return storage_of.new(
        path,
        observation_space=observation,
        action_space=spaces.Box(-1.0, 1.0, action.shape, np.float32),
        **options,
    )


def _check_jpeg(images: Mapping[str, np.ndarray]) -> None:
    """Minari before 0.5.4 writes any image as JPEG, and reads only large coloured ones back."""
    for name, image in images.items():
        if min(image.shape[:2]) < 32 or image.shape[2] != 3:
            raise BagError(
                f"camera {name}: found an image of {image.shape}; Minari before 0.5.4 cannot store "
                "grey ones, or smaller ones than 32x32: update it, or export with --no-images"
            )


def _about(name: str, reader: ExportReader, author: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "dataset_id": name,
        "minari_version": optional("minari").__version__,
        "algorithm_name": "RLIF",
        "description": f"Steps of a robot that a person corrects; rewards: {reader.work.scheme}.",
    }
    if author:
        about["author"] = {author}
    return about


def _buffer(run: Run) -> Any:
    columns = run.columns()
    observations: Any = run.states
    if run.cameras:
        pictures = {name: np.stack(run.images(i)) for i, name in enumerate(run.cameras)}
        observations = {"state": run.states, "images": pictures}
    return optional("minari").data_collector.EpisodeBuffer(
        observations=observations,
        actions=columns["actions"],
        rewards=columns["rewards"],
        terminations=columns["terminals"],
        truncations=columns["timeouts"],
        infos={name: _one_more(columns[name]) for name in INFOS},
    )


def _one_more(values: np.ndarray) -> np.ndarray:
    """With an entry for the last observation."""
    filler = np.full((1, *values.shape[1:]), np.nan if values.dtype.kind == "f" else 0)
    return np.concatenate([values, filler.astype(values.dtype)])


def is_minari(path: Path) -> bool:
    return (path / "data/metadata.json").exists() and (path / "data/main_data.hdf5").exists()


def cameras_of(path: Path) -> tuple[str, ...]:
    """The names of the cameras, in their order."""
    metadata = json.loads((path / "data/metadata.json").read_text(encoding="utf-8"))
    if CAMERAS in metadata:
        return tuple(metadata[CAMERAS])
    space = optional("minari").MinariDataset(str(path / "data")).observation_space
    images = getattr(space, "spaces", {}).get("images")
    return tuple(sorted(getattr(images, "spaces", {})))


def _episodes(path: Path, dataset: Any) -> Iterator[Any]:
    """BagError where the file ends before."""
    with bag_errors(f"{path}: cannot be read", OSError, KeyError, ValueError):
        yield from dataset.iterate_episodes()


def _flat(observations: Any, name: str = "") -> dict[str, np.ndarray]:
    """The arrays of a space of dictionaries, named by their paths."""
    if not isinstance(observations, dict):
        return {name: np.asarray(observations)}
    return {
        path: array
        for key, value in observations.items()
        for path, array in _flat(value, f"{name}/{key}" if name else str(key)).items()
    }


class MinariReader:
    """The arrays and images of each episode of a dataset. BagError where there is no state.

    state: entries of a dictionary that make up the state, in this order; none: `state` or
    `observation`, of a goal-conditioned dataset with the `desired_goal` behind it
    cameras: names, in the order of the images
    """

    rate = None  # Hz

    def __init__(self, path: Path, state: Sequence[str] = ()) -> None:
        self._path = path
        self._dataset: Any = optional("minari").MinariDataset(str(path / "data"))
        self.cameras = cameras_of(path)
        first = next(_episodes(path, self._dataset), None)
        entries = {} if first is None else _flat(first.observations)
        self._pictures = [n for n in entries if n.startswith("images/")]
        vectors = {n: a.shape[1] for n, a in entries.items() if a.ndim == 2 and a.dtype != object}
        self._state = self._chosen(vectors, tuple(state), [*entries])
        self._unused = [n for n in entries if n not in (*self._state, *self._pictures)]

    def _chosen(
        self, vectors: Mapping[str, int], wanted: tuple[str, ...], entries: Sequence[str]
    ) -> tuple[str, ...]:
        there = ", ".join(f"{name} [{size}]" for name, size in vectors.items())
        if missing := [name for name in wanted if name not in vectors]:
            raise BagError(f"{self._path}: --state-key: found no vectors {missing}, only {there}")
        if wanted or not entries:
            return wanted
        if "" in vectors:
            return ("",)
        if {"observation", "desired_goal"} <= set(vectors) <= set(GOAL_ENTRIES):
            return ("observation", "desired_goal")
        alone = [name for name in ("state", "observation") if set(vectors) == {name}]
        if not alone:
            raise BagError(
                f"{self._path}: found observations of {self._dataset.observation_space}, expected "
                "vectors, or a dictionary with vectors under `state` or `observation` alone"
                + f"; --state-key NAME... joins some of {there} to the state"
                * bool(vectors)
            )
        return (alone[0],)

    def notes(self, images: bool) -> list[str]:
        """Notes for the user."""
        unused = self._unused + (self._pictures if not images else [])
        found = []
        if len(self._state) > 1:
            found.append(f"{self._path}: the state is {' and '.join(self._state)}, in this order")
        if unused:
            found.append(f"{self._path}: not used: {', '.join(unused)}")
        return found

    def __iter__(self) -> Iterator[Part]:
        for episode in _episodes(self._path, self._dataset):
            entries, count = _flat(episode.observations), len(episode.actions)
            states = np.concatenate([entries[name] for name in self._state], axis=1)
            arrays = {
                "observations": states[:count],
                "next_observations": states[1 : count + 1],
                "actions": episode.actions.reshape(count, -1),
                "terminals": episode.terminations,
                "timeouts": episode.truncations,
            }
            infos = episode.infos if isinstance(episode.infos, dict) else {}
            arrays |= {n: infos[n][:count] for n in INFOS if isinstance(infos.get(n), np.ndarray)}
            yield arrays, _images([entries[f"images/{name}"] for name in self.cameras])


def _images(cameras: Sequence[np.ndarray]) -> Images | None:
    """Of an episode. cameras: of each all T + 1 images."""
    if not cameras:
        return None
    return Images(
        lambda start, stop: zip(*(c[start : stop + 1] for c in cameras), strict=True), True
    )
