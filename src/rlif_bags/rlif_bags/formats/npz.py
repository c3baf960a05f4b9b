# SPDX-License-Identifier: Apache-2.0
"""Runs as plain arrays in one npz file, one row for each transition.

observations, next_observations  float32 [n, state_dim]
actions                          float32 [n, action_dim], as executed
policy_actions, operator_actions the same, as requested; NaN where not
rewards                          float32 [n], of the label scheme
terminals, timeouts              bool [n]: ended in success; ended otherwise, to be bootstrapped
outcomes                         uint8 [n]: in an episode's last row, of it (rlif_msgs/Episode)
episode_ids, step_indices        uint32 [n]
sources, onsets, interventions   uint8 [n] (1 policy, 2 operator, 0 none), bool, bool [n]
evaluations                      bool [n]
stamps                           int64 [n], ns, of the observation
images.NAME                      uint8 [frames, height, width, channels], one for each camera
image_rows                       int64 [n]: of the observation; the next one's is one further
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from rlif_bags.formats.export import ExportReader, Run
from rlif_bags.reading.files import NOT_ARRAYS, BagError, partial_directory, refuse_existing

IMAGES = "images."


def run_arrays(run: Run, number: int, first_image: int = 0) -> dict[str, np.ndarray]:
    """The rows of one run, which is the episode `number`. first_image: rows before its first."""
    states, count = run.states, len(run)
    arrays = {"observations": states[:-1], "next_observations": states[1:], **run.columns()}
    arrays["episode_ids"] = np.full(count, number, np.uint32)
    for camera, name in enumerate(run.cameras):
        arrays[IMAGES + name] = np.stack(run.images(camera))
        arrays["image_rows"] = first_image + np.arange(count)
    return arrays


def write_npz(reader: ExportReader, output: Path) -> None:
    """The runs of `reader` as `output`, complete or not at all. BagError names why.

    Holds one episode in memory at a time: rows wait in files beside the output until all are there.
    """
    with partial_directory(output) as partial:
        kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            frames = 0
            for run in reader:
                for name, array in run_arrays(run, reader.runs, frames).items():
                    if name not in files:
                        files[name] = stack.enter_context((partial / name).open("wb"))
                        kinds[name] = (array.dtype, array.shape[1:])
                    files[name].write(np.ascontiguousarray(array).tobytes())
                frames += len(run) + 1
        if not kinds:
            raise BagError("; ".join(["there is no transition to export", *reader.lines()]))
        with (partial / ".whole").open("wb") as stream:
            arrays: dict[str, Any] = {
                name: np.memmap(partial / name, dtype, "r").reshape(-1, *shape)
                for name, (dtype, shape) in kinds.items()
            }
            np.savez_compressed(stream, **arrays)
        refuse_existing(output)
        (partial / ".whole").rename(output)


class NpzImages:
    """The images.NAME of an npz file, for `steps_from_arrays`. BagError names a wrong one.

    They are unpacked into a temporary directory: NumPy would load all of them into memory.
    """

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self._unpacked = TemporaryDirectory(prefix="rlif-npz-")
        self._images: dict[str, np.ndarray] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.startswith(IMAGES):
                        file = archive.extract(member, self._unpacked.name)
                        name = member.removesuffix(".npy")
                        self._images[name] = _checked(name, np.load(file, mmap_mode="r"))
        except NOT_ARRAYS as error:
            raise BagError(f"{path}: {error}") from error
        self.cameras = [*self._images]
        self.final = "image_rows" in arrays
        self._at = arrays.get("image_rows", np.arange(len(arrays["observations"])))

    def of(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, ...]]:
        wanted = self._at[start:stop].tolist()
        for row in [*wanted, wanted[-1] + 1] if self.final else wanted:
            for name, images in self._images.items():
                if not 0 <= row < len(images):
                    raise ValueError(f"{name}: found {len(images)} rows, expected row {row}")
            yield tuple(images[row] for images in self._images.values())


def _checked(name: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{name}: found {images.dtype} {images.shape}, expected uint8 [rows, height, width, "
            "1 or 3]"
        )
    return images
