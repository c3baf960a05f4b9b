# SPDX-License-Identifier: Apache-2.0
"""A file of arrays for `steps_from_arrays`: npz, as npz.py writes it, or HDF5 as D4RL lays it out."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rlif_bags.formats.arrays import (
    BOUNDS,
    COLUMNS,
    Images,
    Part,
    checked_arrays,
    jumps,
    marked_ends,
)
from rlif_bags.formats.npz import IMAGES
from rlif_bags.optional import optional
from rlif_bags.reading.files import NOT_ARRAYS, BagError, bag_errors

HDF5 = (".hdf5", ".h5")


class ArrayFile:
    """All that is in one file. BagError where it is none; ValueError where nothing separates its
    episodes.

    one_episode: all rows are one; cameras: names, in the order of the images
    """

    rate = None  # Hz

    def __init__(self, path: Path, one_episode: bool = False) -> None:
        self._path, self._arrays = path, read_arrays(path)
        bounds = sorted(set(BOUNDS) & set(self._arrays))
        if one_episode and bounds:
            raise ValueError(f"--one-episode: found {', '.join(bounds)}, which separate episodes")
        if not one_episode and not bounds and {"observations", "actions"} <= set(self._arrays):
            raise ValueError(
                f"found nothing that separates the episodes ({', '.join(BOUNDS)}), only "
                f"{sorted(self._arrays)}; --one-episode if all rows are one"
            )
        # Images are unpacked into a directory: NumPy would load all of them into memory.
        self._directory = TemporaryDirectory(prefix="rlif-npz-")
        self._images = self._unpack() if path.suffix == ".npz" else {}
        self.cameras = tuple(name.removeprefix(IMAGES) for name in self._images)

    def _unpack(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        with bag_errors(f"{self._path}", *NOT_ARRAYS), zipfile.ZipFile(self._path) as archive:
            for member in archive.namelist():
                if member.startswith(IMAGES):
                    file = archive.extract(member, self._directory.name)
                    found[member.removesuffix(".npy")] = np.load(file, mmap_mode="r")
        for name, images in found.items():
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
                raise BagError(
                    f"{self._path}: {name}: found {images.dtype} {images.shape}, expected uint8 "
                    "[rows, height, width, 1 or 3]"
                )
        return found

    @property
    def _final(self) -> bool:
        """Whether there are images of what the last actions of the episodes led to."""
        return "image_rows" in self._arrays

    def notes(self, images: bool) -> list[str]:
        """Notes for the user."""
        arrays, notes = checked_arrays(self._arrays), []
        marked = marked_ends(arrays)
        if new := int((jumps(arrays) & ~marked).sum()):
            notes.append(
                f"{new} rows have a next observation that is not the next row's, where nothing else "
                "ends an episode: one ends there"
            )
        if "next_observations" not in arrays:
            notes.append(
                f"no next_observations: the last action of each of {marked.sum()} episodes leads to "
                "nothing that is known, and is left out"
            )
        if unused := sorted(set(self._arrays) - set(COLUMNS)):
            notes.append(f"not used: {', '.join(unused)}")
        if images and self._images and not self._final:
            notes.append(
                "no image_rows, and so no images of what the last action of an episode led to: that "
                "action is left out"
            )
        return [f"{self._path}: {note}" for note in notes]

    def __iter__(self) -> Iterator[Part]:
        yield self._arrays, Images(self._images_of, self._final) if self._images else None

    def _images_of(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, ...]]:
        rows = self._arrays.get("image_rows", np.arange(stop)).reshape(-1)[start:stop].tolist()
        for row in [*rows, rows[-1] + 1] if self._final else rows:
            for name, images in self._images.items():
                if not 0 <= row < len(images):
                    raise ValueError(f"{name}: found {len(images)} rows, expected row {row}")
            yield tuple(images[row] for images in self._images.values())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz or HDF5 file but the images, without any code in it. BagError if none."""
    if not path.exists():
        raise BagError(f"{path}: there is no such file or dataset")
    with bag_errors(f"{path}: not a readable file of plain arrays", *NOT_ARRAYS):
        if path.suffix in HDF5:
            with optional("h5py").File(path, "r") as file:  # groups may lie beside the arrays
                return {name: item[()] for name, item in file.items() if hasattr(item, "dtype")}
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files if not name.startswith(IMAGES)}
