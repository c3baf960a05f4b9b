# SPDX-License-Identifier: Apache-2.0
"""Runs as plain arrays in one npz file, one row for each transition.

observations, next_observations  float32 [n, state_dim]
actions                          float32 [n, action_dim], as executed
policy_actions, operator_actions the same, as asked for; NaN where nobody did
rewards                          float32 [n], of the label scheme
terminals, timeouts              bool [n]: ended in success; ended otherwise, to be bootstrapped
outcomes                         uint8 [n]: in an episode's last row, of it (rlif_msgs/Episode)
episode_ids, step_indices        uint32 [n]
sources, onsets, interventions   uint8 [n] (1 policy, 2 operator, 0 nobody), bool, bool [n]
evaluations                      bool [n]
stamps                           int64 [n], ns, of the observation
images.NAME                      uint8 [frames, height, width, channels], one for each camera
image_rows                       int64 [n]: of the observation; the next one's is one further
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlif_bags.formats.export import ExportReader, Run
from rlif_bags.reading.files import BagError, partial_directory

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
        with _Rows(partial) as rows:
            frames = 0
            for run in reader:
                rows.append(run_arrays(run, reader.runs, frames))
                frames += len(run) + 1
        if not rows.counts:
            why = "; ".join(reader.lines())
            raise BagError(f"there is no transition to export{': ' * bool(why)}{why}")
        rows.compress(partial / output.name)
        (partial / output.name).rename(output)


class _Rows:
    """Arrays that grow by rows, each in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.counts: dict[str, int] = {}
        self.kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.rows"

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if name not in self._files:
                path = self._path(name)
                self._files[name] = self._stack.enter_context(path.open("wb"))
                self.kinds[name] = (array.dtype, array.shape[1:])
            self._files[name].write(np.ascontiguousarray(array).tobytes())
            self.counts[name] = self.counts.get(name, 0) + len(array)

    def compress(self, path: Path) -> None:
        """All of them as an npz file."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (dtype, shape) in self.kinds.items():
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self.counts[name], *shape),
                }
                with (
                    archive.open(f"{name}.npy", "w", force_zip64=True) as out,
                    self._path(name).open("rb") as raw,
                ):
                    start = io.BytesIO()
                    np.lib.format.write_array_header_1_0(start, header)
                    out.write(start.getvalue())
                    shutil.copyfileobj(raw, out, 1 << 20)


class NpzImages:
    """The images.NAME of an npz file, for `steps_from_arrays`. ValueError names a wrong one."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
        self.cameras = [name for name in members if name.startswith(IMAGES)]
        self._rows = [_NpzRows(path, name) for name in self.cameras]
        self.final = "image_rows" in arrays
        self._at = arrays.get("image_rows", np.arange(len(arrays["observations"])))

    def of(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, ...]]:
        wanted = self._at[start:stop].tolist()
        for row in [*wanted, wanted[-1] + 1] if self.final else wanted:
            yield tuple(rows[row] for rows in self._rows)

    def close(self) -> None:
        for rows in self._rows:
            rows.close()


class _NpzRows:
    """Rows of one array of an npz file, read forwards: only one lies in memory."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._archive = zipfile.ZipFile(path)
        self._open()

    def _open(self) -> None:
        self._file = self._archive.open(f"{self._name}.npy")
        version = np.lib.format.read_magic(self._file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(self._file)
        if fortran or dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
            raise ValueError(
                f"{self._name}: found {dtype} {shape}, expected uint8 [rows, height, width, 1 or 3]"
            )
        self.rows, self.shape = shape[0], shape[1:]
        self._next, self._last = 0, np.zeros(self.shape, np.uint8)

    def __getitem__(self, row: int) -> np.ndarray:
        """ValueError where the array ends before."""
        if not 0 <= row < self.rows:
            raise ValueError(f"{self._name}: found {self.rows} rows, expected row {row}")
        if row < self._next - 1:
            self._file.close()
            self._open()
        size = int(np.prod(self.shape))
        while self._next <= row:
            data = self._file.read(size)
            if len(data) < size:
                raise ValueError(f"{self._name}: the file ends in row {self._next}")
            self._last = np.frombuffer(data, np.uint8).reshape(self.shape)
            self._next += 1
        return self._last

    def close(self) -> None:
        self._file.close()
        self._archive.close()
